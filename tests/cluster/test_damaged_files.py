"""Rows 5 to 8 of the fault table: torn logs, flipped bits, exchanged and missing files of a stopped server."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
import pytest

from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.cluster import dataset
from tests.cluster.calls import SHARD_COUNT, TIMEOUT_S, Caller, code_of, request_for_shard, shard_of_key
from tests.cluster.checker import check_acknowledged, check_written, require
from tests.cluster.damage import Content, ShardOpening, flip_bit, logs, manifest, shard_folders, swap, tables
from tests.cluster.run import FaultRun

TORN_WINDOW_BYTES: Final = 64 << 10
POSITIONS: Final = 60  # of each kind of damage; the long runs take every one
TABLE_TAIL_BYTES: Final = 3_000  # filter, index, properties and footer of the tables of these runs
REFUSALS: Final = ("DATA_LOSS", "UNAVAILABLE")


@pytest.fixture
def shard(written_run: FaultRun, tmp_path: Path, source: random.Random) -> ShardOpening:
    """One shard of the written run, to be opened alone."""
    number = source.randrange(SHARD_COUNT)
    keys = [key for key in range(written_run.key_count) if shard_of_key(key, SHARD_COUNT) == number]
    storage_keys = [written_run.view.storage_key(key) for key in keys]
    return ShardOpening(shard_folders(written_run.server.data)[number], tmp_path / "shard", storage_keys)


@pytest.fixture
def whole(shard: ShardOpening) -> Content:
    """What the undamaged shard holds."""
    shard.copy()
    content = shard.content()
    assert content is not None and content.rows
    return content


def tear(shard: ShardOpening, whole: Content, positions: list[int]) -> None:
    """Cuts the newest log at positions, counted from its end, and judges each opening."""
    for position in sorted(positions):
        (log,) = logs(shard.copy())
        size = log.stat().st_size
        with log.open("r+b") as file:
            file.truncate(max(0, size - position))
        content = shard.content()
        assert content is not None, f"a log torn {position} bytes before its end does not open"
        assert content.next_offset <= whole.next_offset
        assert position > 0 or content == whole


def test_torn_log_opens_at_its_last_whole_batch(shard: ShardOpening, whole: Content, source: random.Random) -> None:
    """Fault: the log ends at any of many bytes of its last 64 KiB.

    Outcome: the shard opens with whole batches only: the rows found are exactly those that its record counts.
    """
    tear(shard, whole, [*range(12), *source.sample(range(TORN_WINDOW_BYTES), POSITIONS)])


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_log_torn_at_every_byte_opens(shard: ShardOpening, whole: Content) -> None:
    """Fault and outcome as in the short run, at every byte of the last 64 KiB."""
    tear(shard, whole, list(range(TORN_WINDOW_BYTES)))


def test_bit_flipped_inside_a_log_is_noticed(shard: ShardOpening, whole: Content, source: random.Random) -> None:
    """Fault: one bit of the log changes, before its last batches.

    Outcome: the shard is refused as damaged; the log is not cut there in silence.
    """
    for _ in range(POSITIONS):
        (log,) = logs(shard.copy())
        at = source.randrange(log.stat().st_size * 3 // 4)
        flip_bit(log, at, source)
        assert shard.content() is None, f"a bit changed at byte {at} and the log was taken as whole"


def test_bit_flipped_inside_a_table_is_noticed(shard: ShardOpening, whole: Content, source: random.Random) -> None:
    """Fault: one bit of a table changes, in a data block, the filter, the index, the properties or the footer.

    Outcome: the rows are right or the shard says that they are lost; never a wrong row, never one missing.
    """
    noticed = 0
    for number in range(2 * POSITIONS):
        table = source.choice(tables(shard.copy()))
        size = table.stat().st_size
        tail = min(TABLE_TAIL_BYTES, size)
        at = source.randrange(size) if number % 2 else size - 1 - source.randrange(tail)
        flip_bit(table, at, source)
        content = shard.content()
        assert content in (None, whole), f"a bit changed at byte {at} of {size} changed the rows"
        noticed += content is None
    assert noticed > POSITIONS // 2, "most flips must be noticed, or the damage misses the tables"


def test_damaged_manifest_or_current_is_refused(shard: ShardOpening, whole: Content, source: random.Random) -> None:
    """Fault: one bit of MANIFEST or CURRENT changes, or the file ends too early, or is gone.

    Outcome: the shard is refused, or holds everything; never an older state.
    """
    for _ in range(POSITIONS):
        folder = shard.copy()
        file = source.choice([manifest(folder), folder / "CURRENT"])
        flip_bit(file, source.randrange(file.stat().st_size), source)
        assert shard.content() in (None, whole), f"{file.name} changed"
    for name in ("CURRENT", "MANIFEST"):
        size = (shard.copy() / "CURRENT").stat().st_size if name == "CURRENT" else manifest(shard.copy()).stat().st_size
        for end in source.sample(range(size), min(size, POSITIONS)):
            folder = shard.copy()
            file = folder / "CURRENT" if name == "CURRENT" else manifest(folder)
            with file.open("r+b") as opened:
                opened.truncate(end)
            assert shard.content() in (None, whole), f"{name} ends at {end} of {size}"
        folder = shard.copy()
        (folder / "CURRENT" if name == "CURRENT" else manifest(folder)).unlink()
        assert shard.content() is None, f"{name} is gone"


def test_missing_log_or_table_is_noticed(shard: ShardOpening, whole: Content) -> None:
    """Fault: a table or the live log is deleted, or two tables are exchanged.

    Outcome: the shard is refused.
    """
    for index in range(len(tables(shard.copy()))):
        tables(shard.copy())[index].unlink()
        assert shard.content() is None, f"table {index} is gone"
    first, second, *_ = tables(shard.copy())
    swap(first, second)
    assert shard.content() is None, "two tables were exchanged"
    logs(shard.copy())[0].unlink()
    assert shard.content() is None, "the log is gone"


def damage_all_but_one(folders: list[Path], source: random.Random) -> list[str]:
    """A different damage to each shard; the last one stays whole."""
    for table in tables(folders[0]):
        for at in range(0, table.stat().st_size - TABLE_TAIL_BYTES, 1_000):
            flip_bit(table, at, source)
    table = tables(folders[1])[0]
    for back in range(60, 2_000, 40):
        flip_bit(table, table.stat().st_size - back, source)
    tables(folders[2])[0].unlink()
    swap(*tables(folders[3])[:2])
    flip_bit(manifest(folders[4]), 60, source)
    (folders[5] / "CURRENT").unlink()
    log = logs(folders[6])[0]
    flip_bit(log, log.stat().st_size // 2, source)
    return ["data blocks", "index and filter", "table gone", "tables exchanged", "manifest", "CURRENT gone", "log"]


def test_damaged_shards_do_not_stop_the_others(
    start_run: Callable[..., FaultRun], written_run: FaultRun, source: random.Random
) -> None:
    """Fault: seven of eight shards are damaged, each in another way.

    Outcome: the server starts; each damaged shard is quarantined at the latest when a damaged row is read; no read
    shows a wrong value or hides a row; writes to those shards are refused; the whole shard serves reads and writes;
    nothing of it changes over another restart.
    """
    run = start_run()
    run.adopt(written_run)
    damages = damage_all_but_one(shard_folders(run.server.data), source)
    for _ in range(2):
        run.server.start()
        read, unavailable = run.read_all()
        history = run.history()
        final = {seen.key: seen for seen in read.rows}
        acknowledged = check_acknowledged(history, final, unreadable=unavailable)
        require([*check_written(history, [read]), *acknowledged], run.seed)
        with Caller(run.server.address) as caller:
            states = {shard.shard: shard.state for shard in caller.shards()}
            for number, damage in enumerate(damages):
                assert states[number] == "QUARANTINED", damage
                assert not caller.is_serving(f"shard/{number}"), damage
            assert states[SHARD_COUNT - 1] == "SERVING"
            assert caller.is_serving(f"shard/{SHARD_COUNT - 1}")
            for number in range(SHARD_COUNT):
                write_to_shard(caller, number, is_refused=number < SHARD_COUNT - 1)
            refuse_partial_read(caller)
        assert run.server.stop() == 0


def write_to_shard(caller: Caller, number: int, *, is_refused: bool) -> None:
    """Writes one row to a shard, past the keys of the load."""
    request = request_for_shard(number)
    if not is_refused:
        caller.write(request)
        (seen,) = caller.read([request.writes[0].key])[0]
        assert seen.seq == request.writes[0].seq
        return
    with pytest.raises(grpc.RpcError) as caught:
        caller.write(request)
    assert code_of(caught.value) in REFUSALS
    assert f"shard {number}" in str(caught.value.details())


def refuse_partial_read(caller: Caller) -> None:
    """A read that wants all or nothing fails."""
    message = dataset.read_request(range(100))
    message.options.partial_policy = pb.PARTIAL_POLICY_FAIL
    with pytest.raises(grpc.RpcError) as caught:
        caller.online.GetOnlineFeatures(message, timeout=TIMEOUT_S)
    assert code_of(caught.value) in REFUSALS
