"""Each checker keeps quiet on a good run and speaks on a planted violation."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.checker import (
    ShardPosition,
    StoredRow,
    check_acknowledged,
    check_failures,
    check_monotonic,
    check_recovery,
    check_state,
    check_suffix_lost,
    check_tokens,
    check_written,
    require,
)
from tests.cluster.history import (
    FSYNC,
    LOG,
    MEMORY,
    History,
    Mark,
    Read,
    Recorder,
    Request,
    Seen,
    Token,
    Write,
    load,
)


def hash_row(storage_key: bytes, row: bytes) -> int:
    return int.from_bytes((storage_key + row)[:8].ljust(8, b"\0"), "little")


def stored(key: int, seq: int, event_us: int, offset: int, shard: int = 0) -> StoredRow:
    return StoredRow(shard, b"k%d" % key, b"r%d" % seq, key, seq, event_us, event_us, 0, shard, offset)


@pytest.fixture
def history() -> History:
    """Two acknowledged requests on shard 0, one at MEMORY, one never answered."""
    return History(
        requests={
            "a": Request("a", LOG, (Write(1, 100, 1), Write(2, 100, 2))),
            "b": Request("b", FSYNC, (Write(1, 200, 3),)),
            "c": Request("c", MEMORY, (Write(3, 100, 4),)),
            "d": Request("d", LOG, (Write(2, 300, 5),)),
        },
        acknowledged={"a": (Token(0, 1, 2),), "b": (Token(0, 1, 3),), "c": (Token(0, 1, 4),)},
        failures=[("d", "UNAVAILABLE")],
    )


ROWS = [stored(1, 3, 200, 3), stored(2, 2, 100, 2), stored(3, 4, 100, 4)]
FINAL = {1: Seen(1, 3, 200), 2: Seen(2, 2, 100), 3: Seen(3, 4, 100)}


def position(offset: int, rows: list[StoredRow]) -> ShardPosition:
    total = sum(hash_row(row.storage_key, row.row) for row in rows) % 2**64
    return ShardPosition(0, 1, offset, total.to_bytes(8, "little"), "SERVING", "")


def test_good_run_has_no_violation(history: History) -> None:
    reads = [Read("r", 1, tuple(FINAL.values()))]
    shards = [position(4, ROWS)]
    assert check_acknowledged(history, FINAL) == []
    assert check_written(history, reads) == []
    assert check_monotonic(reads, over_restarts=True) == []
    assert check_state(history, ROWS, shards, hash_row) == []
    assert check_tokens(history, shards) == []
    assert check_suffix_lost(history, ROWS, shards, lambda key: 0) == []


def test_unanswered_write_may_be_there(history: History) -> None:
    final = {**FINAL, 2: Seen(2, 5, 300)}
    assert check_acknowledged(history, final) == []
    assert check_written(history, [Read("r", 1, tuple(final.values()))]) == []


def test_missing_acknowledged_write_is_found(history: History) -> None:
    assert "key 1" in check_acknowledged(history, {2: FINAL[2]})[0]
    assert check_acknowledged(history, {2: FINAL[2]}, unreadable={1}) == []
    assert "nothing is there" in check_acknowledged(history, {**FINAL, 1: Seen(1, None, -1)})[0]


def test_older_value_than_acknowledged_is_found(history: History) -> None:
    assert "older 1" in check_acknowledged(history, {**FINAL, 1: Seen(1, 1, 100)})[0]


def test_memory_write_may_be_lost_unless_promised(history: History) -> None:
    final = {1: FINAL[1], 2: FINAL[2]}
    assert check_acknowledged(history, final) == []
    assert len(check_acknowledged(history, final, (LOG, FSYNC, MEMORY))) == 1


def test_log_write_may_be_lost_where_only_fsync_is_promised(history: History) -> None:
    final = {1: FINAL[1]}
    assert check_acknowledged(history, final, (FSYNC,)) == []
    assert len(check_acknowledged(history, {}, (FSYNC,))) == 1


@pytest.mark.parametrize("seen", [Seen(1, 99, 100), Seen(1, 2, 100), Seen(1, -1, 100), Seen(1, 3, 100)])
def test_value_never_written_is_found(history: History, seen: Seen) -> None:
    """An invented value, one of another key, a torn one, one with another write's event time."""
    assert len(check_written(history, [Read("r", 1, (seen,))])) == 1


def test_going_back_is_found() -> None:
    reads = [Read("r", 1, (Seen(1, 3, 200),)), Read("r", 1, (Seen(1, 1, 100),)), Read("r", 1, (Seen(1, None, -1),))]
    assert len(check_monotonic(reads, over_restarts=False)) == 2


def test_going_back_over_a_restart_counts_only_when_asked() -> None:
    reads = [Read("r", 1, (Seen(1, 3, 200),)), Read("r", 2, (Seen(1, 1, 100),))]
    assert check_monotonic(reads, over_restarts=False) == []
    assert len(check_monotonic(reads, over_restarts=True)) == 1


def test_readers_are_judged_apart() -> None:
    reads = [Read("r", 1, (Seen(1, 3, 200),)), Read("s", 1, (Seen(1, 1, 100),))]
    assert check_monotonic(reads, over_restarts=True) == []


def test_wrong_content_hash_is_found(history: History) -> None:
    changed = [replace(ROWS[0], row=b"R3"), *ROWS[1:]]
    assert "content hash" in check_state(history, changed, [position(4, ROWS)], hash_row)[0]
    assert "content hash" in check_state(history, ROWS[1:], [position(4, ROWS)], hash_row)[0]


def test_row_past_the_stored_offset_is_found(history: History) -> None:
    assert "past the stored 3" in check_state(history, ROWS, [position(3, ROWS)], hash_row)[0]


def test_offset_given_twice_is_found(history: History) -> None:
    rows = [ROWS[0], replace(ROWS[1], offset=3), ROWS[2]]
    violations = check_state(history, rows, [position(4, rows)], hash_row)
    assert any("both hold offset 3" in violation for violation in violations)


def test_row_outside_its_token_is_found(history: History) -> None:
    rows = [replace(ROWS[0], offset=9), *ROWS[1:]]
    assert check_state(history, rows, [position(9, rows)], hash_row) == ["key 1: offset 9 lies outside its token 3"]


def test_stored_value_never_written_is_found(history: History) -> None:
    rows = [*ROWS, stored(7, 77, 100, 1)]
    assert check_state(history, rows, [position(4, rows)], hash_row) == ["key 7: stored value 77 was never written"]


def test_token_past_the_stored_offset_is_found(history: History) -> None:
    assert "acknowledged 3, stored only 2" in check_tokens(history, [position(2, ROWS)])[0]


def test_token_of_an_unlisted_shard_is_found(history: History) -> None:
    assert len(check_tokens(history, [])) == 2


def test_token_given_twice_is_found(history: History) -> None:
    history.acknowledged["b"] = (Token(0, 1, 2),)
    assert "two requests" in check_tokens(history, [position(4, ROWS)])[0]


def test_hole_before_the_stored_offset_is_found(history: History) -> None:
    """Offset 4 is stored, so offset 3 may not be missing; were 2 stored, it may."""
    rows = [stored(1, 1, 100, 1), *ROWS[1:]]
    assert "before the stored offset" in check_suffix_lost(history, rows, [position(4, rows)], lambda key: 0)[0]
    assert check_suffix_lost(history, rows[:2], [position(2, rows)], lambda key: 0) == []
    assert len(check_suffix_lost(history, rows[1:], [position(2, rows)], lambda key: 0)) == 1


def test_slow_and_missing_recovery_are_found() -> None:
    second = 10**9
    marks = [Mark("start", 0), Mark("ready", 2 * second), Mark("start", 10 * second), Mark("ready", 11 * second)]
    assert len(check_recovery(History(marks=marks), 1.5)) == 1
    assert check_recovery(History(marks=marks), 2.5) == []
    never = [Mark("start", 0), Mark("start", second), Mark("ready", 2 * second)]
    assert check_recovery(History(marks=never), 5) == ["a start was never ready"]
    assert check_recovery(History(marks=[never[0], Mark("kill", 1), *never[1:]]), 5) == []


def test_other_error_than_allowed_is_found(history: History) -> None:
    assert check_failures(history, {"UNAVAILABLE"}) == []
    assert check_failures(history, {"DATA_LOSS"}) == ["request d failed with UNAVAILABLE"]


def test_require_names_the_seed() -> None:
    require([], 7)
    with pytest.raises(AssertionError, match="--seed 7"):
        require(["lost"], 7)


def test_history_comes_back_as_recorded(tmp_path: Path) -> None:
    request = Request("a", LOG, (Write(1, 100, 1), Write(2, 100, 2)))
    read = Read("r", 1, (Seen(1, 1, 100), Seen(5, None, -1)))
    with Recorder(tmp_path / "history") as recorder:
        recorder.sent(request)
        recorder.acknowledged("a", [Token(0, 1, 2)])
        recorder.failed("b", "UNAVAILABLE")
        recorder.read(read)
        recorder.mark("kill", "random")
    history = load([tmp_path / "history"])
    assert history.requests == {"a": request}
    assert history.acknowledged == {"a": (Token(0, 1, 2),)}
    assert history.failures == [("b", "UNAVAILABLE")]
    assert history.reads == [read]
    assert [(mark.name, mark.detail) for mark in history.marks] == [("kill", "random")]


def test_half_line_at_the_end_of_a_history_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b'{"kind":"failed","request":"a","code":"INTERNAL"}\n{"kind":"ackno')
    assert load([path]).failures == [("a", "INTERNAL")]


def test_unknown_event_in_a_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b'{"kind":"invented"}\n')
    with pytest.raises(ValueError, match="invented"):
        load([path])
