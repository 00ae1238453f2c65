"""Compiles the text of an expression for columns of known types."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.expressions.calls import lower_call
from headrace.expressions.canonical import canonical_text
from headrace.expressions.lowering import Lowering
from headrace.expressions.nodes import ColumnName, walk
from headrace.expressions.parsing import parse
from headrace.expressions.problems import problem
from headrace.expressions.program import INPUTS_MAX, NO_REGISTER, Assembler, ProgramTooLargeError
from headrace.types import Scalar, ValueType


@dataclass(frozen=True, slots=True)
class CompiledExpression:
    """What an expression gives and how: its program reads `columns` in this order.

    `canonical` is the same for texts that differ in spaces, parentheses that change nothing, and comments.
    """

    type: ValueType
    canonical: str
    columns: tuple[str, ...]
    program: bytes
    uses_time_zones: bool


def compile_expression(text: str, columns: Mapping[str, ValueType]) -> CompiledExpression:
    """Checked and compiled expression. Raises InvalidArgument that points at the character."""
    node = parse(text)
    used = sorted({part.name for part in walk(node) if isinstance(part, ColumnName)})
    known = [name for name in used if name in columns]
    if len(known) > INPUTS_MAX:
        raise problem(
            text, 0, f"the expression reads {len(known)} columns; at most {INPUTS_MAX} are allowed", "TOO_MANY"
        )
    assembler = Assembler([columns[name].scalar for name in known])
    lowering = Lowering(text, columns, known, assembler, lower_call)
    try:
        result = lowering.lower(node, NO_REGISTER)
        scalar = lowering.common([result], node, "the result")
        program = assembler.finish(lowering.settle(result, scalar))
    except ProgramTooLargeError as error:
        raise problem(text, node.position, str(error), "TOO_LONG") from error
    assert isinstance(scalar, Scalar)
    return CompiledExpression(ValueType(scalar), canonical_text(node), tuple(known), program, lowering.uses_time_zones)
