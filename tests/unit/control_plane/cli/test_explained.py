"""What the command says of the value of another time, and how it prints a whole explanation."""

from dataclasses import replace
from typing import Any

import pytest

from control_plane.cli.amounts import time_text
from control_plane.cli.explained_lines import lines_of
from control_plane.cli.explained_times import history_sentences
from control_plane.cli.storage_commands import size_text
from headrace.client.inspection import (
    Explanation,
    FeatureFacts,
    Reason,
    RowFacts,
    TileFacts,
    WindowFacts,
)

AT_US = 1_760_000_000_000_000
HOUR_US = 3_600_000_000
ROW = RowFacts(
    slot=5, shard=1, view_id=7, is_stored=True, is_cached=False, is_erased=False, is_drained=True, schema_id=7,
    event_time_us=AT_US - 10, write_time_us=AT_US - 5, available_time_us=AT_US - 5, source_id=0, source="", partition=1,
    offset=9, row_bytes=100, tile_map_bytes=0,
)  # fmt: skip
FEATURE = FeatureFacts(
    feature="a.b.c@v1:x", transform="latest x", value=2, value_type="i64", has_value=True, status=1, state="PRESENT",
    event_time_us=AT_US - 10, reasons=(Reason("STORED", "the row holds it"),), row=ROW, window=None, inputs=(),
    request_fields={},
)  # fmt: skip
WINDOW = WindowFacts(
    start_time_us=AT_US, end_time_us=AT_US + 5 * HOUR_US, window_us=HOUR_US, hop_us=HOUR_US, event_count=3,
    newest_event_time_us=AT_US, is_exact=True, tiles=(TileFacts(AT_US, HOUR_US, 3, 12, False),),
)  # fmt: skip
THEN = {"value": 1, "status": 1, "state": "PRESENT", "late_row_count": 0, "row": {
    "event_time": AT_US - 10, "write_time": AT_US - 5, "source_id": 0, "log_partition": 1, "offset": 9,
    "tombstone": False}}  # fmt: skip
SAME = "it is the value that is served now"

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None, str]] = {
    "the same": ({}, {}, THEN | {"value": 2}, SAME),
    "another type": ({}, {}, THEN | {"value": 2.0}, "of the same rows"),
    "no data": ({}, {}, None, "needs request data"),
    "no history": ({}, {}, {"problem": "no table", "reason": "X"}, "history has no value: no table"),
    "a later event": ({}, {"event_time_us": AT_US + 1}, THEN, f", after {time_text(AT_US)}"),
    "a late row": ({}, {"available_time_us": AT_US + 1}, THEN, "it was late, and nobody knew it"),
    "an erasure": ({}, {"event_time_us": AT_US + 1, "is_erased": True}, THEN, "the erasure is of event time"),
    "not drained": ({}, {"is_drained": False}, THEN | {"row": None}, "not yet drained"),
    "not in the table": ({}, {}, THEN | {"row": None}, "is not in the table"),
    "another row": ({}, {"offset": 10}, THEN, "history took the row of event time"),
    "hidden rows": ({}, {}, THEN | {"late_row_count": 4}, "4 rows of events up to"),
    "expired since": ({"state": "EXPIRED"}, {}, THEN, "it has expired since"),
    "expired then": ({}, {}, THEN | {"state": "EXPIRED"}, "had expired then"),
    "unreadable": ({"state": "UNAVAILABLE"}, {}, THEN, "cannot be read"),
    "a window": ({"window": WINDOW}, {}, THEN, f"its window was ({time_text(AT_US // HOUR_US * HOUR_US - HOUR_US)}, "),
    "inputs": ({"inputs": (FEATURE,)}, {}, THEN, "its expression reads a.b.c@v1:x, as they were then"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_cause_has_its_sentence(case: str) -> None:
    feature, row, historical, wanted = CASES[case]
    found = Explanation(replace(FEATURE, row=replace(ROW, **row), **feature), AT_US + 5 * HOUR_US, 3)
    sentences = history_sentences(found, historical, AT_US)
    assert any(wanted in sentence for sentence in sentences), sentences
    assert (SAME in sentences) == (wanted == SAME)


def test_a_whole_explanation_is_printed_line_by_line() -> None:
    below = replace(FEATURE, feature="a.b.c@v1:y", window=WINDOW, status=0x21, row=replace(ROW, tile_map_bytes=40))
    found = Explanation(replace(FEATURE, inputs=(below,), row=None), AT_US, 3)
    run = {"kind": "drain", "state": "FAILED", "start_time": "then", "end_time": None, "detail": "no disk"}
    lake = {"runs": [run], "historical": THEN, "problem": ""}
    lines = list(lines_of(found, {"user_id": 7}, lake, ["it was late"], AT_US))
    assert lines[0] == f"a.b.c@v1:x of user_id=7, read at {time_text(AT_US)}"
    assert lines[1:4] == ["value      2 (PRESENT)", "why        the row holds it", "transform  latest x"]
    assert "  value      2 (PRESENT, stale)" in lines
    assert "  row        100 bytes, 40 of them tiles, shard 1, slot 5, a.b.c@v1 (view id 7), from disk" in lines
    assert any(line.split()[1:] == ["1h", "3", "12", "stream"] for line in lines)
    assert "last run   drain FAILED, began then: no disk" in lines
    assert lines[-1] == "why        it was late"
    assert "value      1 (PRESENT)" in lines


def test_sizes_are_in_the_unit_that_they_fill() -> None:
    sizes = [size_text(count) for count in (0, 1_023, 1_536, 5 << 20, 3 << 40, 2 << 50)]
    assert sizes == ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 TiB", "2,048.0 TiB"]
