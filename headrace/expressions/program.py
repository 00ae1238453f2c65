"""Assembles programs as core_ext/native/hr_expression.h draws them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from core_ext.hashing import crc32c
from headrace.types import Scalar

INPUTS_MAX: Final = 256
INSTRUCTIONS_MAX: Final = 1_024
TEXT_MAKERS_MAX: Final = 32
PROGRAM_BYTES_MAX: Final = 1 << 20
NO_REGISTER: Final = 0xFFFF
_HEAD: Final = struct.Struct("<IHHIHHIHH")
_INSTRUCTION: Final = struct.Struct("<HBBHHHHI")
_MAGIC: Final = 0x50585248

Op = IntEnum(
    "Op",
    "INPUT CONST NULL RETYPE SELECT COALESCE IS_NULL IS_TRUE AND OR NOT "
    "EQ_I LT_I LE_I EQ_F LT_F LE_F EQ_T LT_T LE_T LEAST_I GREATEST_I LEAST_F GREATEST_F "
    "ADD_I SUB_I MUL_I FLOORDIV_I MOD_I NEG_I ABS_I ADD_F SUB_F MUL_F DIV_F MOD_F NEG_F ABS_F "
    "FLOOR CEIL ROUND SQRT EXP LOG POW LOWER UPPER TRIM LENGTH SUBSTRING CONCAT STARTS_WITH ENDS_WITH CONTAINS "
    "REPLACE LOCAL DATE_US YEAR MONTH DAY HOUR MINUTE SECOND DAY_OF_WEEK DAYS "
    "INT_TO_I32 INT_TO_F64 INT_TO_F32 FLOAT_TO_I64 FLOAT_TO_F32 TEXT_TO_I64 TEXT_TO_F64 INT_TO_TEXT BOOL_TO_TEXT "
    "BYTES_TO_TEXT",
)
_TEXT_MAKERS: Final = frozenset({Op.LOWER, Op.UPPER, Op.CONCAT, Op.REPLACE, Op.INT_TO_TEXT})


class ProgramTooLargeError(ValueError):
    """A bound of programs is met; the message names it."""


@dataclass
class Assembler:
    """Instructions and their constants; an equal instruction is kept once."""

    inputs: Sequence[Scalar]
    code: list[tuple[int, int, int, int, int, int, int, int]] = field(default_factory=list)
    heap: bytearray = field(default_factory=bytearray)
    _known: dict[object, int] = field(default_factory=dict)

    def emit(self, op: Op, scalar: Scalar, *arguments: int, guard: int = NO_REGISTER, operand: int = 0) -> int:
        """Register that holds the result."""
        a, b, c = (*arguments, *[NO_REGISTER] * (3 - len(arguments)))
        instruction = (int(op), int(scalar), 0, a, b, c, guard, operand)
        found = self._known.get(instruction)
        if found is None:
            found = self._known[instruction] = len(self.code)
            self.code.append(instruction)
            if len(self.code) > INSTRUCTIONS_MAX:
                raise ProgramTooLargeError(f"the expression compiles to over {INSTRUCTIONS_MAX} instructions: split it")
        return found

    def store(self, value: bytes) -> int:
        """Place of a constant or zone in the heap."""
        place = self._known.get(value)
        if place is None:
            place = self._known[value] = len(self.heap)
            self.heap += value + bytes(-len(value) % 8)
        return place

    def finish(self, result: int) -> bytes:
        """The program."""
        makers = sum(instruction[0] in _TEXT_MAKERS for instruction in self.code)
        if makers > TEXT_MAKERS_MAX:
            raise ProgramTooLargeError(
                f"the expression makes text {makers} times a row; at most {TEXT_MAKERS_MAX} are allowed: split it"
            )
        inputs = bytes(self.inputs) + bytes(-len(self.inputs) % 8)
        code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in self.code)
        length = _HEAD.size + len(inputs) + len(code) + len(self.heap) + 4
        if length > PROGRAM_BYTES_MAX:
            raise ProgramTooLargeError(f"the expression compiles to over {PROGRAM_BYTES_MAX} bytes: split it")
        head = _HEAD.pack(_MAGIC, 1, 0, length, len(self.inputs), len(self.code), len(self.heap), result, 0)
        body = head + inputs + code + bytes(self.heap)
        return body + struct.pack("<I", crc32c(body))
