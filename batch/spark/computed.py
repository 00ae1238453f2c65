"""Computed views on their way to workers: kernels hold native memory, so their plans travel and are opened there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from batch.historical.computation import Computation, From
from batch.historical.inputs import HistoryInput
from core_ext.expressions import Program
from core_ext.window_plan import WindowPlan
from core_ext.windows import Windows
from headrace.computed import EventProgram
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


def _carried(programs: tuple[EventProgram, ...]) -> Programs:
    return tuple((one.program.source, one.columns) for one in programs)


def _opened(programs: Programs) -> tuple[EventProgram, ...]:
    return tuple(EventProgram(Program(source), columns) for source, columns in programs)
