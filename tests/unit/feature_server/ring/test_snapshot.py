"""Snapshots: whatever does not fit ends in nothing."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_server.ring.snapshot import (
    CHUNK_BYTES_MAX,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotIntake,
    digest_after,
    made_chunk,
)
from headrace.errors import DataLoss, Unavailable

CHUNKS = [made_chunk("a.sst", 0, b"first"), made_chunk("a.sst", 5, b"second"), made_chunk("b", 0, b"")]


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.installed: SnapshotEnd | None = None
        self.is_discarded = False

    def begin(self) -> None:
        self.files = {}

    def write(self, chunk: SnapshotChunk) -> None:
        self.files[chunk.part] = self.files.get(chunk.part, b"") + chunk.data

    def install(self, end: SnapshotEnd) -> None:
        self.installed = end

    def discard(self) -> None:
        self.is_discarded = True


def end_of(chunks: list[SnapshotChunk]) -> SnapshotEnd:
    digest = 0
    for chunk in chunks:
        digest = digest_after(digest, chunk)
    return SnapshotEnd(3, 9, 77, digest)


def taken(sink: Sink, chunks: list[SnapshotChunk], end: SnapshotEnd | None) -> None:
    intake = SnapshotIntake(4, sink)
    for chunk in chunks:
        intake.take(chunk)
    intake.finish(end)


def test_what_fits_is_installed() -> None:
    sink = Sink()
    taken(sink, CHUNKS, end_of(CHUNKS))
    assert sink.files == {"a.sst": b"firstsecond", "b": b""}
    assert sink.installed == end_of(CHUNKS)


WRONG: dict[str, Callable[[], list[SnapshotChunk]]] = {
    "a bit": lambda: [CHUNKS[0]._replace(data=b"fIrst"), *CHUNKS[1:]],
    "a checksum": lambda: [CHUNKS[0]._replace(checksum=1), *CHUNKS[1:]],
    "a hole": lambda: [CHUNKS[0], CHUNKS[1]._replace(position=6), CHUNKS[2]],
    "a chunk lost": lambda: [CHUNKS[0], CHUNKS[2]],
    "a chunk twice": lambda: [CHUNKS[0], CHUNKS[0], *CHUNKS[1:]],
    "another order": lambda: [CHUNKS[2], CHUNKS[0], CHUNKS[1]],
    "a part twice": lambda: [*CHUNKS, made_chunk("a.sst", 0, b"again")],
    "a path": lambda: [made_chunk("../escape", 0, b"x")],
    "an absolute path": lambda: [made_chunk("/etc/escape", 0, b"x")],
    "a hidden name": lambda: [made_chunk(".", 0, b"x")],
    "no name": lambda: [made_chunk("", 0, b"x")],
    "a long name": lambda: [made_chunk("n" * 129, 0, b"x")],
    "too large": lambda: [made_chunk("a", 0, bytes(CHUNK_BYTES_MAX + 1))],
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_discarded(case: str) -> None:
    sink = Sink()
    with pytest.raises(DataLoss) as error:
        taken(sink, WRONG[case](), end_of(CHUNKS))
    assert error.value.reason == "SNAPSHOT_DAMAGED"
    assert sink.is_discarded and sink.installed is None


def test_without_an_end_nothing_is_installed() -> None:
    sink = Sink()
    with pytest.raises(DataLoss):
        taken(sink, CHUNKS, None)
    assert sink.is_discarded and sink.installed is None


def test_a_disk_that_refuses_ends_it() -> None:
    sink = Sink()

    def refuse(chunk: SnapshotChunk) -> None:
        raise Unavailable("full", reason="STORAGE_IO")

    sink.write = refuse  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        taken(sink, CHUNKS, end_of(CHUNKS))
    assert sink.is_discarded


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6), st.data())
def test_no_change_of_a_byte_goes_unseen(parts: list[bytes], data: st.DataObject) -> None:
    chunks = [made_chunk(f"part{at}", 0, part) for at, part in enumerate(parts)]
    end = end_of(chunks)
    at = data.draw(st.integers(0, len(chunks) - 1))
    byte = data.draw(st.integers(0, len(chunks[at].data) - 1))
    changed = bytearray(chunks[at].data)
    changed[byte] ^= data.draw(st.integers(1, 255))
    chunks[at] = made_chunk(chunks[at].part, 0, bytes(changed))  # with a checksum that fits
    sink = Sink()
    with pytest.raises(DataLoss):
        taken(sink, chunks, end)
    assert sink.installed is None
