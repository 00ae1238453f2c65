"""Compiled expressions over Arrow columns; programs as native/hr_expression.h draws them."""

from typing import NamedTuple

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from core_ext.arrow cimport ArrowBuffers, hr_arrow, hr_arrow_fault, refusal

from core_ext.arrow import ArrowColumn


cdef extern from "hr_layout.h" nogil:
    enum:
        HR_I32
        HR_I64
        HR_F32
        HR_F64
        HR_BYTES
        HR_TIMESTAMP_US
        HR_DATE
    ctypedef struct hr_column:
        uint8_t scalar
        uint8_t shape
        uint8_t element_bytes
        uint8_t is_variable


cdef extern from "hr_arrow.h" nogil:
    int hr_arrow_check(const hr_arrow *array, const hr_column *column, int64_t row_count, int64_t *row)


cdef enum:
    RELEASED_VALUES_MIN = 1 << 15  # about 100 us of work; for less, a contended lock costs more than it frees
    OUT_OK = 0
    OUT_NO_MEMORY = 1
    OUT_TOO_LONG = 2

cdef list STATUSES = [
    "is sound", "is too short or too long", "has another magic", "has an unknown layout", "has a wrong length",
    "fails its checksum", "has too many or too few parts", "has an unknown input type", "has an unknown instruction",
    "reads a register that is not filled", "mixes types", "has a wrong operand", "has no such result",
]


class CorruptProgramError(ValueError):
    """Bytes that are no program: the message says which check failed."""


class Faults(NamedTuple):
    """How many values became NULL, by cause."""

    overflow: int
    zero_division: int
    cast: int
    domain: int
    time: int
    too_long: int


class Evaluation(NamedTuple):
    """The result column, its nulls and the faults."""

    column: ArrowColumn
    null_count: int
    faults: Faults


cdef uint8_t element_bytes(uint8_t scalar) noexcept nogil:
    if scalar == HR_BOOL:
        return 1
    if scalar == HR_STRING or scalar == HR_BYTES:
        return 0
    return 4 if scalar in (HR_I32, HR_F32, HR_DATE) else 8


cdef object faults_of(const hr_scratch *scratch):
    return Faults._make([scratch.faults[i] for i in range(HR_FAULT_COUNT)])


@cython.final
cdef class Program:
    def __cinit__(self, bytes source not None):
        self.source = source
        cdef int status = hr_expression_open(&self.program, <const uint8_t *>PyBytes_AS_STRING(source), len(source))
        if status != HR_PROGRAM_OK:
            raise CorruptProgramError(f"the program {STATUSES[status]}")
        self.result_type = self.program.result_type
        self.input_types = tuple([self.program.inputs[i] for i in range(self.program.input_count)])

    def evaluate(self, columns not None, int64_t row_count):
        """Result for `row_count` rows; columns in the order of the inputs."""
        if len(columns) != self.program.input_count:
            raise ValueError(f"{len(columns)} columns are given for the {self.program.input_count} inputs")
        if not 0 <= row_count <= INT32_MAX:
            raise ValueError(f"row count {row_count} is not from 0 to {INT32_MAX}")
        cdef ArrowBuffers buffers = ArrowBuffers(columns)
        cdef hr_arrow_fault fault = check_columns(&self.program, buffers.arrays, row_count)
        if fault.status != HR_ARROW_OK:
            raise refusal(fault)
        cdef hr_scratch scratch
        cdef hr_output output
        cdef int status = OUT_NO_MEMORY
        memset(&output, 0, sizeof(output))
        memset(&scratch, 0, sizeof(scratch))
        try:
            if hr_scratch_open(&scratch, &self.program, min(<int64_t>self.program.block_rows, max(row_count, 1))):
                if row_count * self.program.instruction_count < RELEASED_VALUES_MIN:
                    status = evaluate_blocks(&self.program, &scratch, buffers.arrays, row_count, &output)
                else:
                    with nogil:
                        status = evaluate_blocks(&self.program, &scratch, buffers.arrays, row_count, &output)
            if status == OUT_NO_MEMORY:
                raise MemoryError
            if status == OUT_TOO_LONG:
                raise OverflowError("the texts of the result exceed 2 GiB: evaluate fewer rows at a time")
            column = column_of(&output, self.program.result_type, row_count)
            return Evaluation(column, output.null_count, faults_of(&scratch))
        finally:
            hr_scratch_close(&scratch)
            free(output.validity)
            free(output.values)
            free(output.offsets)

    def evaluate_row(self, values not None):
        """Result for one row of plain values."""
        if len(values) != self.program.input_count:
            raise ValueError(f"{len(values)} values are given for the {self.program.input_count} inputs")
        cdef hr_scratch scratch
        cdef hr_cell result
        cdef Py_ssize_t i
        cdef list kept = []
        cdef hr_cell *cells = <hr_cell *>calloc(len(values) + 1, sizeof(hr_cell))
        memset(&scratch, 0, sizeof(scratch))
        try:
            if cells == NULL or not hr_scratch_open(&scratch, &self.program, 1):
                raise MemoryError
            for i in range(self.program.input_count):
                fill_cell(&cells[i], self.program.inputs[i], values[i], kept)
            if not hr_expression_eval_row(&scratch, cells, &result):
                raise MemoryError
            return value_of(&result, self.program.result_type), faults_of(&scratch)
        finally:
            hr_scratch_close(&scratch)
            free(cells)


cdef int fill_cell(hr_cell *cell, uint8_t type, object value, list kept) except -1:
    cdef bytes text
    cell.is_null = value is None
    if value is None:
        return 0
    if hr_is_text(type):
        text = (<str?>value).encode() if type == HR_STRING else <bytes?>value
        kept.append(text)
        cell.value.text.at = <const uint8_t *>PyBytes_AS_STRING(text)
        cell.value.text.length = len(text)
    elif hr_is_float(type):
        cell.value.number = value
    elif type == HR_I32 or type == HR_DATE:
        cell.value.integer = <int32_t?>value
    else:
        cell.value.integer = <bint>value if type == HR_BOOL else <int64_t?>value
    return 0


cdef object value_of(const hr_cell *cell, uint8_t type):
    if cell.is_null:
        return None
    if hr_is_text(type):
        text = PyBytes_FromStringAndSize(<const char *>cell.value.text.at, <Py_ssize_t>cell.value.text.length)
        return text.decode() if type == HR_STRING else text
    if hr_is_float(type):
        return cell.value.number
    return cell.value.integer != 0 if type == HR_BOOL else cell.value.integer


cdef hr_arrow_fault check_columns(const hr_expression *program, const hr_arrow *arrays, int64_t row_count) noexcept:
    cdef hr_arrow_fault fault
    cdef hr_column column
    cdef uint32_t i
    memset(&fault, 0, sizeof(fault))
    memset(&column, 0, sizeof(column))
    fault.status = HR_ARROW_OK
    for i in range(program.input_count):
        column.scalar = program.inputs[i]
        column.shape = HR_SINGLE
        column.element_bytes = element_bytes(column.scalar)
        column.is_variable = column.element_bytes == 0
        fault.column = i
        fault.status = hr_arrow_check(&arrays[i], &column, row_count, &fault.row)
        if fault.status != HR_ARROW_OK:
            break
    return fault


cdef int evaluate_blocks(
    const hr_expression *program, hr_scratch *scratch, const hr_arrow *arrays, int64_t row_count, hr_output *output
) noexcept nogil:
    cdef int64_t row = 0
    cdef uint32_t n
    cdef int status
    cdef uint8_t width = element_bytes(program.result_type)
    output.validity = <uint8_t *>calloc(row_count // 8 + 8, 1)
    if width == 0:
        output.offsets = <uint8_t *>calloc(row_count + 1, 4)
    else:
        output.values = <uint8_t *>calloc(row_count + 8, width)
    if output.validity == NULL or (output.offsets == NULL if width == 0 else output.values == NULL):
        return OUT_NO_MEMORY
    while row < row_count:
        n = <uint32_t>min(row_count - row, <int64_t>program.block_rows)
        if not hr_expression_eval_block(scratch, arrays, row, n):
            return OUT_NO_MEMORY
        status = store_block(&scratch.registers[program.result], program.result_type, row, n, output)
        if status != OUT_OK:
            return status
        row += n
    return OUT_OK


cdef int store_block(
    const hr_register *found, uint8_t type, int64_t row, uint32_t n, hr_output *output
) noexcept nogil:
    cdef uint32_t i
    cdef int status
    for i in range(n):
        if found.nulls[i]:
            output.null_count += 1
        else:
            output.validity[(row + i) >> 3] |= 1 << ((row + i) & 7)
        if hr_is_text(type):
            status = store_text(found.at.texts[i], row + i, output)
            if status != OUT_OK:
                return status
        else:
            store_value(found, type, i, row + i, output)
    return OUT_OK


cdef void store_value(
    const hr_register *found, uint8_t type, uint32_t i, int64_t row, hr_output *output
) noexcept nogil:
    cdef float single
    cdef int32_t narrow
    if type == HR_BOOL:
        output.values[row >> 3] |= <uint8_t>(found.at.ints[i] << (row & 7))
    elif type == HR_F32:
        single = <float>found.at.floats[i]
        memcpy(output.values + 4 * row, &single, 4)
    elif type == HR_I32 or type == HR_DATE:
        narrow = <int32_t>found.at.ints[i]
        memcpy(output.values + 4 * row, &narrow, 4)
    else:
        memcpy(output.values + 8 * row, &found.at.ints[i], 8)


cdef int store_text(hr_text text, int64_t row, hr_output *output) noexcept nogil:
    cdef uint64_t end = output.value_bytes + text.length
    cdef uint8_t *grown
    cdef int32_t stored = <int32_t>end
    if end > <uint64_t>INT32_MAX:
        return OUT_TOO_LONG
    if end > output.value_room:
        output.value_room = max(2 * output.value_room, end + 1024)
        grown = <uint8_t *>realloc(output.values, output.value_room)
        if grown == NULL:
            return OUT_NO_MEMORY
        output.values = grown
    if text.length > 0:
        memcpy(output.values + output.value_bytes, text.at, text.length)
    output.value_bytes = end
    memcpy(output.offsets + 4 * (row + 1), &stored, 4)
    return OUT_OK


cdef object column_of(const hr_output *output, uint8_t type, int64_t row_count):
    cdef Py_ssize_t bits = (row_count + 7) // 8
    validity = PyBytes_FromStringAndSize(<const char *>output.validity, bits) if output.null_count else None
    if output.offsets != NULL:
        values = PyBytes_FromStringAndSize(<const char *>output.values, <Py_ssize_t>output.value_bytes)
        offsets = PyBytes_FromStringAndSize(<const char *>output.offsets, 4 * (row_count + 1))
        return ArrowColumn(row_count, 0, validity, values, offsets, None)
    cdef Py_ssize_t size = bits if type == HR_BOOL else row_count * element_bytes(type)
    values = PyBytes_FromStringAndSize(<const char *>output.values, size)
    return ArrowColumn(row_count, 0, validity, values, None, None)
