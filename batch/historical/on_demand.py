"""On-demand features of a join: the programs that servers run, over features that were looked up and spine columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.arrays import whole
from batch.historical.checks import cast, names_of
from batch.historical.gathered import Gathered, Looked
from batch.historical.inputs import FeatureColumn, HistoryInput
from batch.historical.output import features_of
from core_ext import rules
from core_ext.arrow import arrow_column
from core_ext.expressions import Program
from headrace.arrays import array_of
from headrace.errors import ResourceExhausted
from headrace.on_demand import From
from headrace.types import ValueType

_CAUSES = np.uint8(rules.CAUSE_MASK)


@dataclass(frozen=True, slots=True)
class HistoryProgram:
    """One on-demand feature; each source is a place among the inputs, the fields or the programs before it."""

    program: Program
    sources: tuple[tuple[From, int], ...]
    column: FeatureColumn
    fallback: int


@dataclass(frozen=True, slots=True)
class OnDemandJoin:
    """What is computed after the views. `inputs` are outputs of the views, `fields` columns of the spine.

    `outputs` are the features of the result in their order: outputs of views or of programs. Others are left out.
    """

    inputs: tuple[str, ...]
    fields: tuple[tuple[str, ValueType], ...]
    programs: tuple[HistoryProgram, ...]
    outputs: tuple[str, ...]

    def computed(self, spine: pa.Table, features: pa.Table) -> pa.Table:
        """The features of the result for the rows of both tables, which stand side by side."""
        found: dict[From, list[Looked]] = {
            From.FEATURE: [_looked(features, name) for name in self.inputs],
            From.REQUEST: [_field(spine, name, kind) for name, kind in self.fields],
            From.PROGRAM: [],
        }
        for one in self.programs:
            columns = [found[where][place] for where, place in one.sources]
            found[From.PROGRAM].append(_result(one, columns, spine.num_rows))
        outputs = [one.column.output for one in self.programs]
        by_name = dict(zip(outputs, found[From.PROGRAM], strict=True))
        arrays: list[pa.Array | pa.ChunkedArray] = []
        for output in self.outputs:
            value, status = names_of(output)
            if output in by_name:
                arrays += [by_name[output].values, pa.array(by_name[output].statuses)]
            else:
                arrays += [features.column(value), features.column(status)]
        kinds = {one.column.output: one.column.type.arrow for one in self.programs}
        fields = []
        for output in self.outputs:
            value, status = names_of(output)
            kind = kinds[output] if output in kinds else features.schema.field(value).type
            fields += [pa.field(value, kind), pa.field(status, pa.uint8(), nullable=False)]
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def result_columns(views: Sequence[HistoryInput], on_demand: OnDemandJoin | None) -> list[tuple[str, ValueType]]:
    """Features of the result in their order."""
    given = features_of(views)
    if on_demand is None:
        return given
    kinds = dict(given) | {one.column.output: one.column.type for one in on_demand.programs if one.column.output}
    return [(name, kinds[name]) for name in on_demand.outputs]


def _looked(features: pa.Table, name: str) -> Looked:
    value, status = names_of(name)
    return Looked(whole(features.column(value)), np.asarray(whole(features.column(status))))


def _field(spine: pa.Table, name: str, kind: ValueType) -> Looked:
    values = cast(whole(spine.column(name)), kind)
    is_null = np.asarray(values.is_null())
    return Looked(values, np.where(is_null, np.uint8(rules.NULL), np.uint8(rules.PRESENT)))


def _result(one: HistoryProgram, columns: Sequence[Looked], row_count: int) -> Looked:
    try:
        found = one.program.evaluate([arrow_column(column.values) for column in columns], row_count).column
    except OverflowError as error:
        raise ResourceExhausted(f"{error}; join fewer entity rows at once", reason="RESULT_TOO_LARGE") from error
    values = array_of(found, one.column.type.arrow)
    places = np.arange(row_count)
    gathered = Gathered([one.column], np.ones(row_count, np.bool_))
    gathered.put(0, values, places, places)
    statuses = _statuses(columns, np.asarray(values.is_null()), row_count)
    return gathered.settled(0, statuses, one.fallback)


def _statuses(columns: Sequence[Looked], is_null: NDArray[np.bool_], row_count: int) -> NDArray[np.uint8]:
    """Statuses before the feature's own default, as hr_on_demand_status has them; history has no UNAVAILABLE."""
    found = np.full(row_count, rules.PRESENT, np.uint8)
    stale = np.zeros(row_count, np.uint8)
    for column in columns:
        states = column.statuses & np.uint8(rules.STATE_MASK)
        stale |= column.statuses & np.uint8(rules.STALE)
        empty = np.asarray(column.values.is_null()) & is_null
        missing = empty & (states == rules.MISSING) & (found == rules.PRESENT)
        found[missing] = rules.MISSING | (column.statuses[missing] & _CAUSES)
        found[empty & (states == rules.EXPIRED)] = rules.EXPIRED
    return found | stale
