"""Functions and casts of expressions: one table of what each takes and gives."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

from headrace.expressions.lowering import FLOATS, NUMBERS, ORDERED_WHOLE, WHOLE, Lowering, Operand, type_name
from headrace.expressions.nodes import Call, Cast, Literal, Node
from headrace.expressions.program import NO_REGISTER, Op
from headrace.expressions.zones import UnknownZoneError, zone_table
from headrace.types import Scalar, Shape, parse_type

_S, _I, _F, _B = Scalar.STRING, Scalar.I64, Scalar.F64, Scalar.BOOL
SUBSTRING_TO_END: Final = 2**63 - 1


class Function(NamedTuple):
    """A function with fixed types."""

    op: Op
    arguments: tuple[Scalar, ...]
    result: Scalar


FUNCTIONS: Final[Mapping[str, Function]] = {
    "lower": Function(Op.LOWER, (_S,), _S),
    "upper": Function(Op.UPPER, (_S,), _S),
    "trim": Function(Op.TRIM, (_S,), _S),
    "length": Function(Op.LENGTH, (_S,), _I),
    "starts_with": Function(Op.STARTS_WITH, (_S, _S), _B),
    "ends_with": Function(Op.ENDS_WITH, (_S, _S), _B),
    "contains": Function(Op.CONTAINS, (_S, _S), _B),
    "replace": Function(Op.REPLACE, (_S, _S, _S), _S),
    "floor": Function(Op.FLOOR, (_F,), _F),
    "ceil": Function(Op.CEIL, (_F,), _F),
    "round": Function(Op.ROUND, (_F,), _F),
    "sqrt": Function(Op.SQRT, (_F,), _F),
    "exp": Function(Op.EXP, (_F,), _F),
    "log": Function(Op.LOG, (_F,), _F),
    "pow": Function(Op.POW, (_F, _F), _F),
}
TIME_PARTS: Final = {
    "year": Op.YEAR,
    "month": Op.MONTH,
    "day": Op.DAY,
    "hour": Op.HOUR,
    "minute": Op.MINUTE,
    "second": Op.SECOND,
    "day_of_week": Op.DAY_OF_WEEK,
    "date": Op.DAYS,
}
_OF_DATES: Final = frozenset({"year", "month", "day", "day_of_week"})

# Steps of each cast; those with the same values in a register only change the type.
_CASTS: Final[Mapping[tuple[Scalar, Scalar], tuple[tuple[Op, Scalar], ...]]] = {
    (Scalar.BOOL, Scalar.I32): ((Op.RETYPE, Scalar.I32),),
    (Scalar.BOOL, Scalar.I64): ((Op.RETYPE, Scalar.I64),),
    (Scalar.BOOL, Scalar.STRING): ((Op.BOOL_TO_TEXT, Scalar.STRING),),
    (Scalar.I32, Scalar.I64): ((Op.RETYPE, Scalar.I64),),
    (Scalar.I32, Scalar.DATE): ((Op.RETYPE, Scalar.DATE),),
    (Scalar.I32, Scalar.TIMESTAMP_US): ((Op.RETYPE, Scalar.I64), (Op.RETYPE, Scalar.TIMESTAMP_US)),
    (Scalar.I64, Scalar.I32): ((Op.INT_TO_I32, Scalar.I32),),
    (Scalar.I64, Scalar.DATE): ((Op.INT_TO_I32, Scalar.I32), (Op.RETYPE, Scalar.DATE)),
    (Scalar.I64, Scalar.TIMESTAMP_US): ((Op.RETYPE, Scalar.TIMESTAMP_US),),
    (Scalar.TIMESTAMP_US, Scalar.I64): ((Op.RETYPE, Scalar.I64),),
    (Scalar.DATE, Scalar.I32): ((Op.RETYPE, Scalar.I32),),
    (Scalar.DATE, Scalar.I64): ((Op.RETYPE, Scalar.I32), (Op.RETYPE, Scalar.I64)),
    (Scalar.F32, Scalar.F64): ((Op.RETYPE, Scalar.F64),),
    (Scalar.F64, Scalar.F32): ((Op.FLOAT_TO_F32, Scalar.F32),),
    (Scalar.STRING, Scalar.BYTES): ((Op.RETYPE, Scalar.BYTES),),
    (Scalar.BYTES, Scalar.STRING): ((Op.BYTES_TO_TEXT, Scalar.STRING),),
    (Scalar.STRING, Scalar.I64): ((Op.TEXT_TO_I64, Scalar.I64),),
    (Scalar.STRING, Scalar.I32): ((Op.TEXT_TO_I64, Scalar.I64), (Op.INT_TO_I32, Scalar.I32)),
    (Scalar.STRING, Scalar.F64): ((Op.TEXT_TO_F64, Scalar.F64),),
    (Scalar.STRING, Scalar.F32): ((Op.TEXT_TO_F64, Scalar.F64), (Op.FLOAT_TO_F32, Scalar.F32)),
    **{(whole, Scalar.F64): ((Op.INT_TO_F64, Scalar.F64),) for whole in WHOLE},
    **{(whole, Scalar.F32): ((Op.INT_TO_F32, Scalar.F32),) for whole in WHOLE},
    **{(whole, Scalar.STRING): ((Op.INT_TO_TEXT, Scalar.STRING),) for whole in WHOLE},
    **{(number, Scalar.I64): ((Op.FLOAT_TO_I64, Scalar.I64),) for number in FLOATS},
    **{(number, Scalar.I32): ((Op.FLOAT_TO_I64, Scalar.I64), (Op.INT_TO_I32, Scalar.I32)) for number in FLOATS},
}


def lower_call(lowering: Lowering, node: Call | Cast, guard: int) -> Operand:
    """Checked operand of a call or a cast."""
    return cast(lowering, node, guard) if isinstance(node, Cast) else call(lowering, node, guard)


def call(lowering: Lowering, node: Call, guard: int) -> Operand:
    """A call of any function."""
    if node.function in TIME_PARTS:
        return _time_part(lowering, node, guard)
    if node.function in _SPECIAL:
        least, most, make = _SPECIAL[node.function]
        _check_count(lowering, node, least, most)
        return make(lowering, node, guard)
    function = FUNCTIONS.get(node.function)
    if function is None:
        near = get_close_matches(node.function, FUNCTION_NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        lowering.fail(node, f"function {node.function!r} is unknown{hint}", "UNKNOWN_FUNCTION", name=node.function)
    _check_count(lowering, node, len(function.arguments), len(function.arguments))
    operands = [lowering.lower(part, guard) for part in node.parts]
    what = f"{node.function}()"
    registers = [lowering.argument(one, scalar, what) for one, scalar in zip(operands, function.arguments, strict=True)]
    return Operand(node, function.result, lowering.emit(function.op, function.result, *registers, guard=guard))


def cast(lowering: Lowering, node: Cast, guard: int) -> Operand:
    """An explicit cast; one that fails on a value gives NULL and counts."""
    target = _type_of(lowering, node)
    operand = lowering.lower(node.part, guard)
    if operand.scalar is None:
        return Operand(node, target, lowering.settle(operand, target))
    register = lowering.settle(operand, operand.scalar)
    if operand.scalar is target:
        return Operand(node, target, register)
    steps = _CASTS.get((operand.scalar, target))
    if steps is None:
        allowed = sorted(type_name(to) for source, to in _CASTS if source is operand.scalar)
        message = f"{type_name(operand.scalar)} does not cast to {type_name(target)}; it casts to {', '.join(allowed)}"
        lowering.fail(node, message, type=type_name(target))
    for op, scalar in steps:
        register = lowering.emit(op, scalar, register, guard=guard)
    return Operand(node, target, register)


def _type_of(lowering: Lowering, node: Cast) -> Scalar:
    try:
        found = parse_type(node.type_name)
    except ValueError:
        found = None
    if found is None or found.shape is not Shape.SINGLE:
        names = ", ".join(scalar.name.lower() for scalar in Scalar)
        at = Literal(node.type_position, None)
        lowering.fail(at, f"{node.type_name!r} is no type; known: {names}", "UNKNOWN_TYPE", type=node.type_name)
    return found.scalar


def _check_count(lowering: Lowering, node: Call, least: int, most: int | None) -> None:
    count = len(node.parts)
    if count >= least and (most is None or count <= most):
        return
    wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
    message = f"{node.function}() takes {wanted} argument{'s' if wanted != '1' else ''}, not {count}"
    lowering.fail(node, message, "WRONG_ARGUMENTS", count=count)


def _time_part(lowering: Lowering, node: Call, guard: int) -> Operand:
    _check_count(lowering, node, 1, 2)
    operand = lowering.lower(node.parts[0], guard)
    result = Scalar.DATE if node.function == "date" else Scalar.I64
    if operand.scalar is Scalar.DATE and node.function in _OF_DATES:
        if len(node.parts) > 1:
            lowering.fail(node.parts[1], "a date has no time zone; leave the zone out", "WRONG_ARGUMENTS")
        local = lowering.emit(Op.DATE_US, Scalar.I64, operand.register, guard=guard)
        return Operand(node, result, lowering.emit(TIME_PARTS[node.function], result, local))
    register = lowering.argument(operand, Scalar.TIMESTAMP_US, f"{node.function}()")
    example = f"write {node.function}(…, 'America/New_York')"
    if len(node.parts) == 1:
        lowering.fail(node, f"{node.function}() of a timestamp needs its time zone; {example}", "WRONG_ARGUMENTS")
    name = node.parts[1]
    if not isinstance(name, Literal) or not isinstance(name.value, str):
        lowering.fail(name, f"the time zone must be a text literal; {example}", "WRONG_ARGUMENTS")
    try:
        place = lowering.assembler.store(zone_table(name.value))
    except UnknownZoneError as error:
        lowering.fail(name, str(error), "UNKNOWN_ZONE", zone=name.value)
    lowering.uses_time_zones = True
    local = lowering.emit(Op.LOCAL, Scalar.I64, register, guard=guard, operand=place)
    return Operand(node, result, lowering.emit(TIME_PARTS[node.function], result, local))


def _epoch_us(lowering: Lowering, node: Call, guard: int) -> Operand:
    register = lowering.argument(lowering.lower(node.parts[0], guard), Scalar.TIMESTAMP_US, "epoch_us()")
    return Operand(node, Scalar.I64, lowering.emit(Op.RETYPE, Scalar.I64, register))


def _if(lowering: Lowering, node: Call, guard: int) -> Operand:
    test = lowering.lower(node.parts[0], guard)
    return lowering.choose(test, node, guard, node.parts[1], node.parts[2])


def _coalesce(lowering: Lowering, node: Call, guard: int) -> Operand:
    operands: list[Operand] = []
    for part in node.parts:
        operand = lowering.lower(part, guard)
        operands.append(operand)
        if part is not node.parts[-1]:
            register = lowering.settle(operand, operand.scalar or Scalar.I64)
            guard = lowering.both(guard, lowering.emit(Op.IS_NULL, Scalar.BOOL, register))
    scalar = lowering.common(operands, node, f"{node.function}()")
    found = lowering.settle(operands[-1], scalar)
    for operand in reversed(operands[:-1]):
        found = lowering.emit(Op.COALESCE, scalar, lowering.settle(operand, scalar), found)
    return Operand(node, scalar, found)


def _is_null(lowering: Lowering, node: Call, guard: int) -> Operand:
    operand = lowering.lower(node.parts[0], guard)
    register = lowering.settle(operand, operand.scalar or Scalar.BOOL)
    return Operand(node, Scalar.BOOL, lowering.emit(Op.IS_NULL, Scalar.BOOL, register))


def _null_if(lowering: Lowering, node: Call, guard: int) -> Operand:
    first, second = (lowering.lower(part, guard) for part in node.parts)
    scalar = lowering.common([first, second], node, "null_if()")
    equal = lowering.compare("=", first, second, node)
    null = lowering.emit(Op.NULL, scalar)
    return Operand(node, scalar, lowering.emit(Op.SELECT, scalar, equal, null, lowering.settle(first, scalar)))


def _extreme(lowering: Lowering, node: Call, operands: Sequence[Operand], names: Sequence[str]) -> Operand:
    scalar = lowering.common(operands, node, f"{node.function}()")
    if scalar not in NUMBERS | ORDERED_WHOLE:
        lowering.fail(node, f"{node.function}() takes numbers, times or dates, not {type_name(scalar)}")
    suffix = "F" if scalar in FLOATS else "I"
    found = lowering.settle(operands[0], scalar)
    for name, operand in zip(names, operands[1:], strict=True):
        found = lowering.emit(Op[f"{name}_{suffix}"], scalar, found, lowering.settle(operand, scalar))
    return Operand(node, scalar, found)


def _least_or_greatest(lowering: Lowering, node: Call, guard: int) -> Operand:
    operands = [lowering.lower(part, guard) for part in node.parts]
    return _extreme(lowering, node, operands, [node.function.upper()] * (len(operands) - 1))


def _clamp(lowering: Lowering, node: Call, guard: int) -> Operand:
    return _extreme(lowering, node, [lowering.lower(part, guard) for part in node.parts], ["GREATEST", "LEAST"])


def _abs(lowering: Lowering, node: Call, guard: int) -> Operand:
    operand = lowering.lower(node.parts[0], guard)
    wide = Scalar.F64 if operand.scalar in FLOATS else Scalar.I64
    op = Op.ABS_F if wide is Scalar.F64 else Op.ABS_I
    if operand.scalar not in NUMBERS:
        lowering.fail(operand.node, f"abs() takes numbers, not {type_name(operand.scalar)}")
    register = lowering.argument(operand, wide, "abs()")
    return Operand(node, wide, lowering.emit(op, wide, register, guard=guard))


def _concat(lowering: Lowering, node: Call, guard: int) -> Operand:
    operands = [lowering.lower(part, guard) for part in node.parts]
    registers = [lowering.argument(operand, Scalar.STRING, "concat()") for operand in operands]
    found = registers[0]
    for register in registers[1:]:
        found = lowering.emit(Op.CONCAT, Scalar.STRING, found, register, guard=guard)
    return Operand(node, Scalar.STRING, found)


def _substring(lowering: Lowering, node: Call, guard: int) -> Operand:
    parts: list[Node] = [*node.parts, Literal(node.position, SUBSTRING_TO_END)][:3]
    operands = [lowering.lower(part, guard) for part in parts]
    kinds = (Scalar.STRING, Scalar.I64, Scalar.I64)
    registers = [lowering.argument(one, scalar, "substring()") for one, scalar in zip(operands, kinds, strict=True)]
    return Operand(node, Scalar.STRING, lowering.emit(Op.SUBSTRING, Scalar.STRING, *registers))


def _in(lowering: Lowering, node: Call, guard: int) -> Operand:
    operands = [lowering.lower(part, guard) for part in node.parts]
    scalar = lowering.common(operands, node, "'in'")
    wanted, *items = (Operand(one.node, scalar, lowering.settle(one, scalar)) for one in operands)
    found = NO_REGISTER
    for item in items:
        equal = lowering.compare("=", wanted, item, node)
        found = equal if found == NO_REGISTER else lowering.emit(Op.OR, Scalar.BOOL, found, equal)
    return Operand(node, Scalar.BOOL, found)


_Maker = Callable[[Lowering, Call, int], Operand]
_SPECIAL: Final[Mapping[str, tuple[int, int | None, _Maker]]] = {
    "abs": (1, 1, _abs),
    "clamp": (3, 3, _clamp),
    "coalesce": (1, None, _coalesce),
    "concat": (2, None, _concat),
    "epoch_us": (1, 1, _epoch_us),
    "greatest": (2, None, _least_or_greatest),
    "if": (3, 3, _if),
    "if_null": (2, 2, _coalesce),
    "in": (2, None, _in),
    "is_null": (1, 1, _is_null),
    "least": (2, None, _least_or_greatest),
    "null_if": (2, 2, _null_if),
    "substring": (2, 3, _substring),
}
FUNCTION_NAMES: Final = sorted({*FUNCTIONS, *TIME_PARTS, *_SPECIAL} - {"in"})
