"""On-demand features of a service as a job computes them: plain values that a manifest can keep."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from batch.historical.inputs import FeatureColumn
from batch.historical.on_demand import HistoryProgram, OnDemandJoin
from core_ext.expressions import Program
from headrace.definitions.transform import KERNEL_SEMANTICS_VERSION
from headrace.definitions.values import value_document, value_from_document
from headrace.errors import FailedPrecondition
from headrace.expressions import compile_expression
from headrace.on_demand import From, OnDemandProgram
from headrace.types import parse_type

HIDDEN_PREFIX: Final = "__input_"  # of features that are read and not answered; no feature's name begins like this


@dataclass(frozen=True, slots=True)
class WantedProgram:
    """One on-demand feature. `output` is empty where others read it alone; columns are (name, type, from, place)."""

    ref: str
    feature: str
    transform_digest: str
    output: str
    type: str
    default: Any  # JSON values
    fallback: int
    expression: str
    columns: tuple[tuple[str, str, int, int], ...]
    program_digest: str

    def program(self, place: int) -> HistoryProgram:
        """Compiled. Raises FailedPrecondition where this installation compiles another program."""
        compiled = compile_expression(self.expression, {name: parse_type(kind) for name, kind, _, _ in self.columns})
        if _program_digest(compiled.program) != self.program_digest:
            raise FailedPrecondition(
                f"{self.ref}:{self.feature} was joined with another kernel or other time-zone data than are installed "
                "here: install those, or join it anew",
                reason="TRANSFORM_CHANGED",
                field="feature_view",
                metadata={"feature_view": self.ref},
            )
        kind = parse_type(self.type)
        default = None if self.default is None else value_from_document(self.default, kind)
        sources = tuple((From(where), at) for _, _, where, at in self.columns)
        output = self.output or f"{HIDDEN_PREFIX}program_{place}"
        column = FeatureColumn(self.feature, kind, default, output)
        return HistoryProgram(Program(compiled.program), sources, column, self.fallback)


@dataclass(frozen=True, slots=True)
class WantedOnDemand:
    """What is computed after the views, and the features of the result in their order."""

    inputs: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    programs: tuple[WantedProgram, ...]
    outputs: tuple[str, ...]

    def join(self) -> OnDemandJoin:
        """As the join takes it."""
        return OnDemandJoin(
            self.inputs,
            tuple((name, parse_type(kind)) for name, kind in self.fields),
            tuple(one.program(place) for place, one in enumerate(self.programs)),
            self.outputs,
        )

    def document(self) -> dict[str, Any]:  # Any: JSON values
        """JSON form."""
        programs = [asdict(one) | {"columns": [list(column) for column in one.columns]} for one in self.programs]
        fields = [list(field) for field in self.fields]
        return {"inputs": list(self.inputs), "fields": fields, "programs": programs, "outputs": list(self.outputs)}


def on_demand_from_document(fields: Mapping[str, Any]) -> WantedOnDemand:  # Any: JSON values
    """Of its JSON form."""
    programs = [
        WantedProgram(**{**one, "columns": tuple((name, kind, where, at) for name, kind, where, at in one["columns"])})
        for one in fields["programs"]
    ]
    pairs = tuple((name, kind) for name, kind in fields["fields"])
    return WantedOnDemand(tuple(fields["inputs"]), pairs, tuple(programs), tuple(fields["outputs"]))


def wanted_program(one: OnDemandProgram, digest: bytes, output: str, types: Sequence[str]) -> WantedProgram:
    """A program of a selection; `types` are those of its columns."""
    columns = zip(one.expression.columns, types, one.sources, strict=True)
    default = one.feature.default
    return WantedProgram(
        ref=str(one.view),
        feature=one.feature.name,
        transform_digest=digest.hex(),
        output=output,
        type=str(one.feature.type),
        default=None if default is None else value_document(default),
        fallback=one.fallback,
        expression=one.expression.canonical,
        columns=tuple((name, kind, int(where), at) for name, kind, (where, at) in columns),
        program_digest=_program_digest(one.expression.program),
    )


def _program_digest(program: bytes) -> str:
    return hashlib.sha256(f"{KERNEL_SEMANTICS_VERSION} ".encode() + program).hexdigest()
