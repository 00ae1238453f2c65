"""Answers of computed views under a hypothesis: each is derived from the events that it lets the read see, alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical import HistoryInput, KeyColumn
from batch.historical.checks import names_of
from batch.notebook.tables import join_tables
from batch.offline import columns as system
from batch.skew.canonical import value_bytes
from batch.skew.served import Answer, Derivation, Rule
from core_ext import rules
from headrace.types import Scalar, ValueType

READ: Final = "skew\tread"  # no column of a source has a tab
READ_TIME: Final = "skew\ttime"
MakeHistory = Callable[[pa.Table], HistoryInput]
"""The history of a view from rows of its table."""


class Asked(NamedTuple):
    """One value: the number of its read, its feature, and whether the read asked for expired values."""

    read: int
    feature: str
    shows_expired: bool


class Seen(NamedTuple):
    """The rows of a view's table that reads see, each with the number of the read, and the times of the reads."""

    rows: pa.Table
    reads: NDArray[np.int64]
    times_us: NDArray[np.int64]


def computed_answers(
    make: MakeHistory, types: Mapping[str, ValueType], seen: Seen, asked: Sequence[Asked], derivation: Derivation
) -> list[Answer]:
    """The answers in order; a feature without a type is MISSING."""
    history = _history(make, seen, derivation)
    spine = pa.table({
        READ: pa.array(np.arange(len(seen.times_us)), pa.int64()),
        READ_TIME: pa.array(seen.times_us, pa.timestamp("us", "UTC")),
    })  # fmt: skip
    outputs = {column.name: names_of(history.output_of(column)) for column in history.columns}
    answers: list[Answer] = [Answer(rules.MISSING)] * len(asked)
    for shows_expired in {one.shows_expired for one in asked}:
        joined = join_tables(spine, [replace(history, include_expired=shows_expired)], time_column=READ_TIME)
        held: dict[str, tuple[list[Any], list[int]]] = {}  # Any: values of the feature
        for at, one in enumerate(asked):
            if one.shows_expired is not shows_expired or one.feature not in types:
                continue
            if one.feature not in held:
                value, status = outputs[one.feature]
                held[one.feature] = joined[value].to_pylist(), joined[status].to_pylist()
            values, statuses = held[one.feature]
            answers[at] = _answer(values[one.read], statuses[one.read], types[one.feature])
    return answers


def _history(make: MakeHistory, seen: Seen, derivation: Derivation) -> HistoryInput:
    """The rows with every read as an entity of its own, and the rules of the hypothesis."""
    history = make(seen.rows.append_column(READ, pa.array(seen.reads, pa.int64())))
    columns = history.columns
    if derivation.defaulting is Rule.NEVER:
        columns = tuple(replace(column, default=None) for column in columns)
    return replace(
        history,
        keys=(KeyColumn(READ, READ, Scalar.I64),),
        columns=columns,
        available_time=system.EVENT_TIME,  # what is seen has been decided already
        ttl_us=0 if derivation.expiry is Rule.NEVER else history.ttl_us,
        fallback=rules.FALLBACK_DEFAULT if derivation.defaulting is Rule.ALWAYS else history.fallback,
    )


def _answer(value: Any, status: int, kind: ValueType) -> Answer:  # Any: a value of the feature
    empty = Answer(status)
    return Answer(status, value_bytes(value, kind)) if empty.has_value else empty
