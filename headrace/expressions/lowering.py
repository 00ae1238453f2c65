"""Type check of a syntax tree while it is turned into instructions."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from typing import Final, NoReturn, TypeAlias

from headrace.expressions.nodes import Call, Case, Cast, ColumnName, Literal, Node, Operation
from headrace.expressions.problems import problem
from headrace.expressions.program import NO_REGISTER, Assembler, Op
from headrace.types import Scalar, Shape, ValueType

WHOLE: Final = frozenset({Scalar.I32, Scalar.I64})
FLOATS: Final = frozenset({Scalar.F32, Scalar.F64})
NUMBERS: Final = WHOLE | FLOATS
ORDERED_WHOLE: Final = WHOLE | {Scalar.TIMESTAMP_US, Scalar.DATE}
TEXTS: Final = frozenset({Scalar.STRING, Scalar.BYTES})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_QUIET: Final = frozenset(
    {
        *(Op.INPUT, Op.CONST, Op.NULL, Op.RETYPE, Op.SELECT, Op.COALESCE, Op.IS_NULL, Op.IS_TRUE, Op.AND, Op.OR),
        *(Op.NOT, Op.EQ_I, Op.LT_I, Op.LE_I, Op.EQ_F, Op.LT_F, Op.LE_F, Op.EQ_T, Op.LT_T, Op.LE_T, Op.LEAST_I),
        *(Op.GREATEST_I, Op.LEAST_F, Op.GREATEST_F, Op.ADD_F, Op.SUB_F, Op.MUL_F, Op.NEG_F, Op.ABS_F, Op.FLOOR),
        *(Op.CEIL, Op.ROUND, Op.EXP, Op.TRIM, Op.LENGTH, Op.SUBSTRING, Op.STARTS_WITH, Op.ENDS_WITH, Op.CONTAINS),
        *(Op.YEAR, Op.MONTH, Op.DAY, Op.HOUR, Op.MINUTE, Op.SECOND, Op.DAY_OF_WEEK, Op.DAYS, Op.INT_TO_F64),
        *(Op.INT_TO_F32, Op.INT_TO_TEXT, Op.BOOL_TO_TEXT),
    }
)
"""Operations that never fault: for them it does not matter whether a branch was taken."""

_ARITHMETIC: Final = {"+": "ADD", "-": "SUB", "*": "MUL", "%": "MOD"}
_COMPARISONS: Final = {"=": "EQ", "!=": "EQ", "<": "LT", ">": "LT", "<=": "LE", ">=": "LE"}


@dataclass(frozen=True, slots=True)
class Operand:
    """A checked part. `register` is none for a whole-number literal and for null, which take the type of the others."""

    node: Node
    scalar: Scalar | None
    register: int = NO_REGISTER

    @property
    def is_pending(self) -> bool:
        """Whether its type is still open."""
        return self.register == NO_REGISTER


class Lowering:
    """Lowers one tree; `guard` is the register that says for which rows a part is computed at all.

    `lower_call` lowers calls and casts, of which there are too many kinds for one module: headrace.expressions.calls.
    """

    def __init__(
        self,
        text: str,
        columns: Mapping[str, ValueType],
        inputs: Sequence[str],
        assembler: Assembler,
        lower_call: "LowerCall",
    ) -> None:
        self._lower_call = lower_call
        self.text = text
        self.columns = columns
        self.inputs = {name: index for index, name in enumerate(inputs)}
        self.assembler = assembler
        self.uses_time_zones = False

    def fail(self, node: Node, message: str, reason: str = "TYPE_MISMATCH", **metadata: object) -> NoReturn:
        """Raises an error that points at a node."""
        raise problem(self.text, node.position, message, reason, **metadata)

    def emit(self, op: Op, scalar: Scalar, *arguments: int, guard: int = NO_REGISTER, operand: int = 0) -> int:
        """Register of an instruction; the guard is dropped where nothing can go wrong."""
        kept = NO_REGISTER if op in _QUIET else guard
        return self.assembler.emit(op, scalar, *arguments, guard=kept, operand=operand)

    def lower(self, node: Node, guard: int) -> Operand:
        """Checked operand of any node."""
        if isinstance(node, Literal):
            return self._literal(node)
        if isinstance(node, ColumnName):
            return self._column(node)
        if isinstance(node, Operation):
            return self._operation(node, guard)
        if isinstance(node, Case):
            return self._case(node, guard)
        assert isinstance(node, Call | Cast)
        return self._lower_call(self, node, guard)

    def settle(self, operand: Operand, scalar: Scalar) -> int:
        """Register of exactly a type: literals take it, i32 and f32 widen; nothing else is converted."""
        if operand.scalar is scalar and not operand.is_pending:
            return operand.register
        if operand.scalar is None:
            return self.emit(Op.NULL, scalar)
        if operand.is_pending:
            return self._whole_constant(operand, scalar)
        if (operand.scalar, scalar) in ((Scalar.I32, Scalar.I64), (Scalar.F32, Scalar.F64)):
            return self.emit(Op.RETYPE, scalar, operand.register)
        return self.fail(operand.node, f"{type_name(scalar)} is needed here, not {type_name(operand.scalar)}")

    def argument(self, operand: Operand, scalar: Scalar, what: str) -> int:
        """Register for an argument that takes a type or what widens to it; `what` says whose argument it is."""
        accepted = {Scalar.I64: WHOLE, Scalar.F64: FLOATS}.get(scalar, frozenset({scalar}))
        if operand.is_pending or operand.scalar not in accepted:
            if operand.is_pending and (operand.scalar is None or scalar in NUMBERS):
                return self.settle(operand, scalar)
            found = type_name(operand.scalar)
            remedy = (
                f"; write cast(… as {type_name(scalar)})" if scalar in NUMBERS and operand.scalar in NUMBERS else ""
            )
            return self.fail(operand.node, f"{what} takes {type_name(scalar)}, not {found}{remedy}", type=found)
        return operand.register

    def common(self, operands: Sequence[Operand], node: Node, what: str) -> Scalar:
        """The one type of several operands."""
        known = {operand.scalar for operand in operands if not operand.is_pending and operand.scalar is not None}
        if not known:
            if all(operand.scalar is None for operand in operands):
                self.fail(node, "the type of null is not known here; write cast(null as f64), or another type")
            return Scalar.I64
        for pair, wide in ((WHOLE, Scalar.I64), (FLOATS, Scalar.F64)):
            if known == pair:
                return wide
        if known == {Scalar.I32} and not all(_fits_i32(one.node) for one in operands if one.is_pending):
            return Scalar.I64
        if len(known) > 1:
            names = " and ".join(sorted(map(type_name, known)))
            remedy = "; write cast(… as f64) around the whole number" if known <= NUMBERS else ""
            self.fail(node, f"{what} mixes {names}{remedy}", types=names)
        (scalar,) = known
        return scalar

    def both(self, first: int, second: int) -> int:
        """Guard that holds where two do; NO_REGISTER holds everywhere."""
        if first == NO_REGISTER:
            return second
        return first if second == NO_REGISTER else self.emit(Op.AND, Scalar.BOOL, first, second)

    def choose(self, test: Operand, node: Node, guard: int, yes: Node, no: Node | None) -> Operand:
        """The value of `yes` where the test is true, else that of `no`, else null."""
        condition = self.argument(test, Scalar.BOOL, "a condition")
        taken = self.emit(Op.IS_TRUE, Scalar.BOOL, condition)
        first = self.lower(yes, self.both(guard, taken))
        left = self.both(guard, self.emit(Op.NOT, Scalar.BOOL, taken))
        second = Operand(node, None) if no is None else self.lower(no, left)
        scalar = self.common([first, second], node, "the choice")
        chosen = (self.settle(first, scalar), self.settle(second, scalar))
        return Operand(node, scalar, self.emit(Op.SELECT, scalar, condition, *chosen))

    def compare(self, operator: str, left: Operand, right: Operand, node: Node) -> int:
        """Register of a comparison; NaN equals NaN and is above every number."""
        scalar = self.common([left, right], node, f"{operator!r}")
        if scalar is Scalar.BOOL and operator not in ("=", "!="):
            self.fail(node, f"{operator!r} does not order bool values")
        a, b = self.settle(left, scalar), self.settle(right, scalar)
        if operator in (">", ">="):
            a, b = b, a
        suffix = "F" if scalar in FLOATS else "T" if scalar in TEXTS else "I"
        found = self.emit(Op[f"{_COMPARISONS[operator]}_{suffix}"], Scalar.BOOL, a, b)
        return self.emit(Op.NOT, Scalar.BOOL, found) if operator == "!=" else found

    def _literal(self, node: Literal) -> Operand:
        value = node.value
        if value is None:
            return Operand(node, None)
        if isinstance(value, bool):
            return self._constant(node, Scalar.BOOL, struct.pack("<q", value))
        if isinstance(value, int):
            return Operand(node, Scalar.I64)
        if isinstance(value, float):
            return self._constant(node, Scalar.F64, struct.pack("<d", value))
        if isinstance(value, datetime):
            micros = (value - _EPOCH) // timedelta(microseconds=1)
            return self._constant(node, Scalar.TIMESTAMP_US, struct.pack("<q", micros))
        if isinstance(value, date):
            return self._constant(node, Scalar.DATE, struct.pack("<q", value.toordinal() - _EPOCH.toordinal()))
        encoded = value.encode()
        return self._constant(node, Scalar.STRING, struct.pack("<I", len(encoded)) + encoded)

    def _constant(self, node: Node, scalar: Scalar, stored: bytes) -> Operand:
        return Operand(node, scalar, self.emit(Op.CONST, scalar, operand=self.assembler.store(stored)))

    def _whole_constant(self, operand: Operand, scalar: Scalar) -> int:
        assert isinstance(operand.node, Literal) and isinstance(operand.node.value, int)
        value = operand.node.value
        if scalar not in NUMBERS:
            self.fail(operand.node, f"{type_name(scalar)} is needed here, not a number")
        if scalar in WHOLE:
            bound = 2 ** (31 if scalar is Scalar.I32 else 63)
            if not -bound <= value < bound:
                self.fail(operand.node, f"{value} is beyond {type_name(scalar)}", "OUT_OF_RANGE")
            return self._constant(operand.node, scalar, struct.pack("<q", value)).register
        if not _is_exact(value, scalar):
            message = f"{value} is not exact as {type_name(scalar)}; write it as a float literal to have it rounded"
            self.fail(operand.node, message, "OUT_OF_RANGE")
        return self._constant(operand.node, scalar, struct.pack("<d", float(value))).register

    def _column(self, node: ColumnName) -> Operand:
        found = self.columns.get(node.name)
        if found is None:
            near = get_close_matches(node.name, list(self.columns), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self.fail(node, f"column {node.name!r} is unknown{hint}", "UNKNOWN_COLUMN", name=node.name)
        if found.shape is not Shape.SINGLE:
            self.fail(node, f"column {node.name!r} is {found}; expressions take single values", name=node.name)
        return Operand(node, found.scalar, self.emit(Op.INPUT, found.scalar, operand=self.inputs[node.name]))

    def _operation(self, node: Operation, guard: int) -> Operand:
        operands = [self.lower(part, guard) for part in node.parts]
        if node.operator in _COMPARISONS:
            return Operand(node, Scalar.BOOL, self.compare(node.operator, operands[0], operands[1], node))
        if node.operator in ("and", "or", "not"):
            registers = [self.argument(operand, Scalar.BOOL, f"{node.operator!r}") for operand in operands]
            return Operand(node, Scalar.BOOL, self.emit(Op[node.operator.upper()], Scalar.BOOL, *registers))
        return self._arithmetic(node, operands, guard)

    def _arithmetic(self, node: Operation, operands: Sequence[Operand], guard: int) -> Operand:
        scalar = self.common(operands, node, f"{node.operator!r}")
        if node.operator == "-" and scalar is Scalar.TIMESTAMP_US:  # microseconds between two times
            pair = [self.settle(operand, scalar) for operand in operands]
            return Operand(node, Scalar.I64, self.emit(Op.SUB_I, Scalar.I64, *pair, guard=guard))
        if scalar not in NUMBERS:
            self.fail(node, f"{_shown(node)} takes numbers, not {type_name(scalar)}", type=type_name(scalar))
        wide = Scalar.I64 if scalar in WHOLE else Scalar.F64
        if node.operator == "/" and wide is Scalar.I64:
            self.fail(node, "'/' divides floats; write // for whole numbers, or cast(… as f64)")
        if node.operator == "//" and wide is Scalar.F64:
            self.fail(node, "'//' divides whole numbers; write floor(a / b) for floats")
        name = {"neg": "NEG", "/": "DIV", "//": "FLOORDIV"}.get(node.operator) or _ARITHMETIC[node.operator]
        registers = [self.argument(operand, wide, _shown(node)) for operand in operands]
        op = Op[f"{name}_{'I' if wide is Scalar.I64 else 'F'}"]
        return Operand(node, wide, self.emit(op, wide, *registers, guard=guard))

    def _case(self, node: Case, guard: int) -> Operand:
        test, value = node.branches[0]
        rest: Node | None = node.otherwise
        if len(node.branches) > 1:
            rest = Case(node.branches[1][0].position, node.branches[1:], node.otherwise)
        return self.choose(self.lower(test, guard), node, guard, value, rest)


LowerCall: TypeAlias = Callable[[Lowering, Call | Cast, int], Operand]


def type_name(scalar: Scalar | None) -> str:
    """Name of a type, `null` for that of the literal."""
    return "null" if scalar is None else scalar.name.lower()


def _shown(node: Operation) -> str:
    return "'-'" if node.operator == "neg" else f"{node.operator!r}"


def _fits_i32(node: Node) -> bool:
    return not isinstance(node, Literal) or not isinstance(node.value, int) or -(2**31) <= node.value < 2**31


def _is_exact(value: int, scalar: Scalar) -> bool:
    try:
        number = float(value)
        if scalar is Scalar.F32:
            (number,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        return False
    return int(number) == value
