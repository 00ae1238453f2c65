"""Computed views on their way to workers: kernels hold native memory, so their plans travel and are opened there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from batch.historical.computation import Computation, From
from batch.historical.inputs import FeatureColumn, HistoryInput
from batch.historical.on_demand import HistoryProgram, OnDemandJoin
from core_ext.expressions import Program
from core_ext.window_plan import WindowPlan
from core_ext.windows import Windows
from headrace.computed import EventProgram
from headrace.on_demand import From as Source
from headrace.types import ValueType

Programs = tuple[tuple[bytes, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class CarriedComputation:
    """A computation as plain values: programs as their bytes, windows as their plan."""

    columns: Mapping[str, ValueType]
    inputs: Programs
    windows: WindowPlan | None
    latest: tuple[tuple[str, ValueType], ...]
    programs: Programs
    places: Mapping[str, tuple[From, int]]
    has_windows: bool

    @classmethod
    def of(cls, computation: Computation) -> Self:
        """What of a computation travels."""
        return cls(
            columns=dict(computation.columns),
            inputs=_carried(computation.inputs),
            windows=None if computation.windows is None else computation.windows.plan,
            latest=computation.latest,
            programs=_carried(computation.programs),
            places=dict(computation.places),
            has_windows=computation.has_windows,
        )

    def open(self) -> Computation:
        """The computation with the kernels of this process."""
        return Computation(
            columns=self.columns,
            inputs=_opened(self.inputs),
            windows=None if self.windows is None else Windows(self.windows),
            latest=self.latest,
            programs=_opened(self.programs),
            places=self.places,
            has_windows=self.has_windows,
        )

    def told(self) -> str:
        """All that decides a value, for the digest of a plan."""
        columns = [(name, str(kind)) for name, kind in sorted(self.columns.items())]
        latest = [(name, str(kind)) for name, kind in self.latest]
        places = sorted((name, int(source), place) for name, (source, place) in self.places.items())
        return repr((columns, self.inputs, self.windows, latest, self.programs, places, self.has_windows))


@dataclass(frozen=True, slots=True)
class CarriedView:
    """A view as it crosses to a worker."""

    view: HistoryInput
    computation: CarriedComputation | None

    @classmethod
    def of(cls, view: HistoryInput) -> Self:
        """The view without its rows, which the plan names, and without its kernels."""
        carried = None if view.computation is None else CarriedComputation.of(view.computation)
        return cls(replace(view, rows=(), computation=None), carried)

    def open(self) -> HistoryInput:
        """The view as the kernels of this process take it."""
        if self.computation is None:
            return self.view
        return replace(self.view, computation=self.computation.open())


CarriedProgram = tuple[bytes, tuple[tuple[Source, int], ...], FeatureColumn, int]


@dataclass(frozen=True, slots=True)
class CarriedOnDemand:
    """On-demand features as plain values."""

    inputs: tuple[str, ...]
    fields: tuple[tuple[str, ValueType], ...]
    programs: tuple[CarriedProgram, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, join: OnDemandJoin) -> Self:
        """What of them travels."""
        programs = tuple((one.program.source, one.sources, one.column, one.fallback) for one in join.programs)
        return cls(join.inputs, join.fields, programs, join.outputs)

    def open(self) -> OnDemandJoin:
        """With the kernels of this process."""
        programs = tuple(HistoryProgram(Program(one[0]), *one[1:]) for one in self.programs)
        return OnDemandJoin(self.inputs, self.fields, programs, self.outputs)

    def told(self) -> str:
        """All that decides a value, for the digest of a plan."""
        fields = [(name, str(kind)) for name, kind in self.fields]
        programs = [
            (source, [(int(where), place) for where, place in sources], str(column.type), column.default, fallback)
            for source, sources, column, fallback in self.programs
        ]
        outputs = [column.output for _, _, column, _ in self.programs]
        return repr((self.inputs, fields, programs, outputs, self.outputs))


def _carried(programs: tuple[EventProgram, ...]) -> Programs:
    return tuple((one.program.source, one.columns) for one in programs)


def _opened(programs: Programs) -> tuple[EventProgram, ...]:
    return tuple(EventProgram(Program(source), columns) for source, columns in programs)
