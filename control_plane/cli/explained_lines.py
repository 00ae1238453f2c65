"""An explanation as lines for people."""

import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from control_plane.cli.amounts import time_text
from control_plane.cli.output import plain, print_table
from headrace.client import Explanation
from headrace.client.inspection import FeatureFacts, RowFacts, WindowFacts
from headrace.definitions.durations import format_duration

LABEL_WIDTH: Final = 11
INDENT: Final = "  "
_DEFAULTED: Final = 0x10  # of a status byte; see ValueState in the contract
_STALE: Final = 0x20

Document = Mapping[str, Any]  # Any: JSON values


def lines_of(
    found: Explanation, entity: Mapping[str, Any], lake: Document, sentences: Sequence[str], at_us: int | None
) -> Iterator[str]:
    """The feature, then what it was made of, then what the offline store adds."""
    keys = ", ".join(f"{name}={plain(key)}" for name, key in entity.items())
    yield f"{found.feature.feature} of {keys}, read at {_time(found.read_time_us)}"
    yield from _feature_lines(found.feature)
    for run in lake["runs"]:
        ended = f", ended {run['end_time']}" if run["end_time"] else ""
        detail = f": {run['detail']}" if run["detail"] else ""
        yield _line("last run", f"{run['kind']} {run['state']}, began {run['start_time']}{ended}{detail}")
    if lake["problem"]:
        yield _line("offline", lake["problem"])
    if at_us is not None:
        yield from _historical_lines(lake["historical"], sentences, at_us)


def _historical_lines(historical: Document | None, sentences: Sequence[str], at_us: int) -> Iterator[str]:
    yield ""
    yield f"at {_time(at_us)}, by the offline store"
    if historical is not None and "state" in historical:
        yield _line("value", _text(historical["value"], historical["state"], historical["status"]))
        row = historical.get("row")
        if row is not None:
            erased = ", a tombstone" if row["tombstone"] else ""
            yield _line("row", f"of {_time(row['event_time'])}, written {_time(row['write_time'])}{erased}")
            yield _line("source", f"{row['source_id']}, partition {row['log_partition']}, offset {row['offset']}")
    for sentence in sentences:
        yield _line("why", sentence)


def _feature_lines(feature: FeatureFacts) -> Iterator[str]:
    yield _line("value", _value(feature))
    for number, reason in enumerate(feature.reasons):
        yield _line("" if number else "why", reason.message)
    yield _line("transform", feature.transform)
    if feature.row is not None:
        yield from _row_lines(feature.row, feature.feature)
    if feature.window is not None:
        yield from _window_lines(feature.window)
    for name, kind in feature.request_fields.items():
        yield _line("request", f"{name} ({kind})")
    for one in feature.inputs:
        yield _line("input", one.feature)
        yield from (INDENT + line for line in _feature_lines(one))


def _row_lines(row: RowFacts, feature: str) -> Iterator[str]:
    version = feature.rpartition(":")[0]
    where = f"shard {row.shard}, slot {row.slot}, {version} (view id {row.view_id})"
    if not row.is_stored:
        yield _line("row", f"none: {where}")
        return
    tiles = f", {row.tile_map_bytes:,} of them tiles" if row.tile_map_bytes else ""
    kind = "tombstone" if row.is_erased else f"{row.row_bytes:,} bytes{tiles}"
    yield _line("row", f"{kind}, {where}, from {'memory' if row.is_cached else 'disk'}")
    yield _line("event", _time(row.event_time_us))
    yield _line("written", _time(row.write_time_us))
    yield _line("available", _time(row.available_time_us))
    source = row.source or ("a write by a caller" if not row.source_id else f"source {row.source_id}")
    drained = "in the offline store" if row.is_drained else "not known to be in the offline store"
    yield _line("source", f"{source}, partition {row.partition}, offset {row.offset}, {drained}")


def _window_lines(window: WindowFacts) -> Iterator[str]:
    edges = f"({_time(window.start_time_us)}, {_time(window.end_time_us)}]"
    declared = f"{_span(window.window_us)} by {_span(window.hop_us)}"
    yield _line("window", f"{edges}, {declared}, {window.event_count} events in {len(window.tiles)} tiles")
    if not window.tiles:
        return
    text = io.StringIO()
    rows = [
        (
            _time(tile.start_time_us),
            _span(tile.width_us),
            tile.event_count,
            "" if tile.covered_offset is None else tile.covered_offset,
            "batch" if tile.is_batch else "stream",
        )
        for tile in window.tiles
    ]
    print_table(("tile after", "width", "events", "up to offset", "made by"), rows, text)
    yield from (" " * LABEL_WIDTH + line for line in text.getvalue().splitlines())


def _value(feature: FeatureFacts) -> str:
    if feature.status is None:
        return "not computed"
    return _text(feature.value if feature.has_value else None, feature.state, feature.status)


def _text(value: Any, state: str, status: int) -> str:  # Any: of every type
    marks = [name for name, flag in (("defaulted", _DEFAULTED), ("stale", _STALE)) if status & flag]
    told = ", ".join([state, *marks])
    return told if value is None else f"{plain(value)} ({told})"


def _line(label: str, text: str) -> str:
    return f"{label.ljust(LABEL_WIDTH)}{' '.join(text.split())}"


def _time(time_us: int) -> str:
    try:
        return time_text(time_us)
    except OverflowError:
        return f"{time_us} us"


def _span(span_us: int) -> str:
    return format_duration(timedelta(microseconds=span_us))
