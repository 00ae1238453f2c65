"""Says how the value of another time differs from the one that is served now, and why."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from control_plane.cli.amounts import time_text
from headrace.client import Explanation
from headrace.client.inspection import FeatureFacts, RowFacts
from headrace.definitions.values import value_document

Document = Mapping[str, Any]  # Any: JSON values


def history_sentences(found: Explanation, historical: Document | None, at_us: int) -> Sequence[str]:
    """Sentences on the value that history has for a time, beside the one that is served now."""
    if historical is None:
        return ["history was not asked, as the value needs request data: send it by --request"]
    if "problem" in historical:
        return [f"history has no value: {historical['problem']}"]
    feature = found.feature
    if historical["state"] == feature.state and _is_same(historical["value"], feature):
        return ["it is the value that is served now"]
    return list(_causes(found, historical, at_us)) or ["the two reads are of different times, and of the same rows"]


def document_of(value: Any) -> Any:  # Any: a value of any type, and its JSON form
    """JSON form of a value as a client has it."""
    return None if value is None else value_document(tuple(value) if isinstance(value, list) else value)


def _is_same(document: Any, feature: FeatureFacts) -> bool:  # Any: a JSON value
    return repr(document_of(feature.value)) == repr(document)


def _causes(found: Explanation, historical: Document, at_us: int) -> Iterator[str]:
    feature, row = found.feature, found.feature.row
    yield from _state_causes(found, historical, at_us)
    if row is not None and row.is_stored:
        yield from _row_causes(row, historical, at_us)
    if historical.get("late_row_count"):
        yield (
            f"{historical['late_row_count']} rows of events up to {time_text(at_us)} became known only after it, so "
            "that history does not see them then"
        )
    if feature.window is not None:
        start_us = (at_us - feature.window.window_us) // feature.window.hop_us * feature.window.hop_us
        yield (
            f"its window was ({time_text(start_us)}, {time_text(at_us)}] then, and is "
            f"({time_text(feature.window.start_time_us)}, {time_text(found.read_time_us)}] now"
        )
    if feature.inputs:
        names = ", ".join(one.feature for one in feature.inputs)
        yield f"its expression reads {names}, as they were then: explain each with the same --at"


def _state_causes(found: Explanation, historical: Document, at_us: int) -> Iterator[str]:
    now, then = found.feature.state, historical["state"]
    if now == "EXPIRED" != then:
        yield f"it has expired since {time_text(at_us)}"
    elif then == "EXPIRED" != now:
        yield "the newest row of then had expired then"
    if now == "UNAVAILABLE":
        yield "what is served now cannot be read"


def _row_causes(row: RowFacts, historical: Document, at_us: int) -> Iterator[str]:
    what = "the erasure" if row.is_erased else "the row that is served now"
    if row.event_time_us > at_us:
        yield f"{what} is of event time {time_text(row.event_time_us)}, after {time_text(at_us)}"
    elif row.available_time_us > at_us:
        written = time_text(row.write_time_us)
        yield f"{what} was written at {written}: it was late, and nobody knew it at {time_text(at_us)}"
    elif historical.get("row") is None:
        where = "is in the log of its shard, and not yet drained" if not row.is_drained else "is not in the table"
        yield f"{what} was known then, but {where}, so that history has no row"
    elif (historical["row"]["event_time"], historical["row"]["offset"]) != (row.event_time_us, row.offset):
        known = time_text(historical["row"]["event_time"])
        yield f"history took the row of event time {known}, and the one that is served now is not the same"
