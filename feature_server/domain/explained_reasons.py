"""Says in plain sentences why a value is what it is, from the facts of one read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from core_ext.rules import DEFAULTED, EXPIRED, MISSING, NULL, STALE, UNAVAILABLE, WITHHELD
from feature_server.domain.explained import Answered, ExplainedFeature, FoundRow, Place, Reason, WindowFacts
from feature_server.domain.selected import AnyColumn, SelectedColumn
from headrace.definitions.durations import format_duration
from headrace.definitions.transforms import Latest, Window, transform_text
from headrace.definitions.views import Fallback
from headrace.types import ValueType

OTHERS_NAMED_MAX: Final = 5
_STATES: Final = {EXPIRED: "EXPIRED", MISSING: "MISSING", NULL: "NULL", UNAVAILABLE: "UNAVAILABLE"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOSSES: Final = (
    "",
    "the sum of whole numbers does not fit 64 bits",
    "its denominator is 0",
    "its values span more buckets than a quantile keeps",
    "it saw more different values than top_k keeps",
)  # HR_LOST_* of native/hr_state_value.h, by number


@dataclass(frozen=True, slots=True)
class Read:
    """What one read found for a feature."""

    time_us: int
    place: Place | None
    found: FoundRow | None
    window: WindowFacts | None
    inputs: Sequence[ExplainedFeature]
    request_fields: Mapping[str, ValueType]

    @property
    def event_us(self) -> int:
        """Event time of the row."""
        assert self.found is not None and self.found.header is not None, "there is a row"
        return self.found.header.event_time_us


def transform_of(column: AnyColumn) -> str:
    """What is computed, as definitions say it."""
    return transform_text(column.view.definition.features[column.view.columns[column.feature]].transform)


def reasons_of(column: AnyColumn, answered: Answered | None, read: Read, others: Sequence[str]) -> Sequence[Reason]:
    """Sentences, the deciding one first. `others` are views of the entity with a row, where this one has none."""
    if answered is None:
        return [_needs_request(column, read)]
    found = list(_state_reasons(column, answered, read, others))
    found += _default_reasons(column, answered)
    found += _age_reasons(column, answered, read)
    return found


def _needs_request(column: AnyColumn, read: Read) -> Reason:
    fields = ", ".join(f"{name} ({kind})" for name, kind in read.request_fields.items())
    own = f"it reads {fields} of the request" if fields else "a feature that it reads needs data of the request"
    return Reason(
        "REQUEST_DATA_NEEDED",
        f"{column.reference} is computed on demand, and {own}, which was not sent: send it to see the value",
    )


def _state_reasons(column: AnyColumn, answered: Answered, read: Read, others: Sequence[str]) -> Iterator[Reason]:
    if not isinstance(column, SelectedColumn):
        yield _computed(column, answered, read)
        return
    transform = column.view.definition.features[column.place].transform
    if read.place is None or read.found is None:
        yield Reason("NULL_KEY", "the entity key is null, so no row can be looked up")
        return
    if read.found.problem:
        where = f"its row lies on shard {read.place.shard}, which cannot be read"
        yield Reason("SHARD_UNAVAILABLE", f"{where}: {read.found.problem}")
        return
    if read.found.is_erased:
        yield _erased(read)
        if answered.state == MISSING:
            return
    if isinstance(transform, Latest) or answered.state in {EXPIRED, MISSING}:
        yield from _row_reasons(column, answered, read, others)
    elif isinstance(transform, Window):
        yield from _window_reasons(answered, read)
    else:
        yield _computed(column, answered, read)


def _row_reasons(column: SelectedColumn, answered: Answered, read: Read, others: Sequence[str]) -> Iterator[Reason]:
    assert read.found is not None
    view = column.view
    if read.found.row is None:
        yield Reason("NO_ROW", f"no row of this entity was ever written to {view.ref} in this store")
        if others:
            named = ", ".join(others[:OTHERS_NAMED_MAX]) + (" and more" if len(others) > OTHERS_NAMED_MAX else "")
            yield Reason("OTHER_ROWS", f"the entity is known: {named} has a row of it")
        else:
            yield Reason("UNKNOWN_ENTITY", f"no view of {view.entity.name} has a row of this entity: is the key right?")
    elif answered.state == EXPIRED:
        yield from _expired(column, answered, read)
    elif answered.state == NULL:
        yield Reason(
            "NULL_STORED", f"the row of event time {time_text(read.event_us)} holds no value for {column.feature}"
        )
    elif not read.found.is_erased:
        yield Reason(
            "STORED",
            f"the greatest row in the total order, of event time {time_text(read.event_us)}, holds this value",
        )


def _expired(column: SelectedColumn, answered: Answered, read: Read) -> Iterator[Reason]:
    ttl = column.view.definition.ttl
    assert ttl is not None, "only a time to live expires values"
    end_us = read.event_us + ttl // timedelta(microseconds=1)
    yield Reason(
        "EXPIRED",
        f"event time {time_text(read.event_us)} + time to live {format_duration(ttl)} = {time_text(end_us)}, which is "
        f"not after the read at {time_text(read.time_us)}: it expired {span_text(read.time_us - end_us)} ago",
    )
    if answered.status & WITHHELD:
        yield Reason("WITHHELD", "an expired value is withheld: a read with include_expired shows what the row holds")
    elif not answered.status & DEFAULTED:
        yield Reason("EXPIRED_VALUE", "the fallback of the view serves the expired value")


def _erased(read: Read) -> Reason:
    assert read.found is not None and read.found.header is not None
    header = read.found.header
    return Reason(
        "ERASED",
        f"the entity was erased: a tombstone written at {time_text(header.write_time_us)} stands in place of its row, "
        f"and rows before {time_text(header.event_time_us)} stay erased",
    )


def _window_reasons(answered: Answered, read: Read) -> Iterator[Reason]:
    window = read.window
    assert window is not None, "windows are read from rows that can be read"
    edges = f"({time_text(window.folded.start_us)}, {time_text(read.time_us)}]"
    count, tiles = window.event_count, len(window.folded.tiles)
    if window.loss:
        yield Reason(
            "WINDOW_LOST", f"{count} events lie in the window {edges}, and {_LOSSES[window.loss]}: so it is null"
        )
    elif not count:
        known = window.folded.newest_us
        newest = "no event of the entity is stored" if known is None else f"the newest one is of {time_text(known)}"
        empty = "null" if answered.state == NULL else "0"
        yield Reason("WINDOW_EMPTY", f"no event lies in the window {edges}, {newest}: of no events it is {empty}")
    elif answered.state == NULL:
        yield Reason("WINDOW_NULL", f"{count} events lie in the window {edges}, and none of them gives a value")
    else:
        yield Reason("WINDOW_FOLDED", f"{count} events in {tiles} tiles were folded, over the window {edges}")
    if not window.is_exact:
        yield Reason(
            "WINDOW_INEXACT",
            "the row has events after the read, so that later ones may be counted, or older tiles are gone",
        )


def _computed(column: AnyColumn, answered: Answered, read: Read) -> Reason:
    inputs = ", ".join(f"{one.column.feature} is {_word(one.answered)}" for one in read.inputs) or "data of the request"
    expression = transform_of(column)
    if answered.is_present:
        return Reason("COMPUTED", f"computed as {expression}, where {inputs}")
    return Reason(f"COMPUTED_{_word(answered)}", f"{expression} gives no value, as {inputs}")


def _word(answered: Answered | None) -> str:
    return "not computed" if answered is None else _STATES.get(answered.state, "PRESENT")


def _default_reasons(column: AnyColumn, answered: Answered) -> Iterator[Reason]:
    definition = column.view.definition
    default = definition.features[column.view.columns[column.feature]].default
    if answered.status & DEFAULTED:
        name = definition.fallback.name
        yield Reason("DEFAULTED", f"so the fallback of the view, {name}, puts the default {default!r} in its place")
    elif not answered.is_present and default is not None and definition.fallback is Fallback.NONE:
        yield Reason("DEFAULT_UNUSED", f"its default {default!r} is not served, as the fallback of the view is NONE")


def _age_reasons(column: AnyColumn, answered: Answered, read: Read) -> Iterator[Reason]:
    if not isinstance(column, SelectedColumn):
        stale = [one.column.feature for one in read.inputs if one.answered and one.answered.status & STALE]
        if answered.status & STALE:
            yield Reason("STALE", f"it is as stale as what it reads: {', '.join(stale)}")
        return
    if read.found is None or read.found.header is None or read.found.is_erased:
        return
    age_us = read.time_us - read.event_us
    limit = column.view.definition.freshness_sla
    if age_us < 0:
        yield Reason("FUTURE", f"its event time is {span_text(-age_us)} after the read, so its age counts as 0")
    if answered.status & STALE and limit is not None:
        header = read.found.header
        yield Reason(
            "STALE",
            f"its newest event is {span_text(age_us)} old, over the freshness limit of {format_duration(limit)}: no "
            f"newer one has come since {time_text(header.write_time_us)}, when this one was written",
        )


def time_text(time_us: int) -> str:
    """RFC 3339 of UTC microseconds; the number where no calendar has it."""
    try:
        return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return f"{time_us} us"


def span_text(span_us: int) -> str:
    """A span, to the second where it is longer than one."""
    span = timedelta(microseconds=span_us)
    return format_duration(span if span < timedelta(seconds=1) else timedelta(seconds=span // timedelta(seconds=1)))
