cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from core_ext.arrow cimport hr_arrow


cdef extern from "hr_expression_run.h" nogil:
    enum:
        HR_PROGRAM_OK
        HR_FAULT_COUNT
        HR_ARROW_OK
        HR_EXPRESSION_ROWS
        HR_BOOL
        HR_STRING
        HR_SINGLE

    ctypedef struct hr_expression:
        const uint8_t *inputs
        uint32_t block_rows
        uint16_t input_count
        uint16_t instruction_count
        uint16_t result
        uint8_t result_type

    ctypedef struct hr_text:
        const uint8_t *at
        uint64_t length

    ctypedef union hr_slots "union { int64_t *ints; double *floats; hr_text *texts; uint8_t *bytes; }":
        int64_t *ints
        double *floats
        hr_text *texts

    ctypedef struct hr_register:
        hr_slots at
        uint8_t *nulls

    ctypedef struct hr_scratch:
        hr_register *registers
        uint64_t *faults

    ctypedef union hr_cell_value "union { int64_t integer; double number; hr_text text; }":
        int64_t integer
        double number
        hr_text text

    ctypedef struct hr_cell:
        hr_cell_value value
        uint8_t is_null

    int hr_expression_open(hr_expression *program, const uint8_t *bytes, size_t length)
    int hr_scratch_open(hr_scratch *scratch, const hr_expression *program, uint32_t rows)
    void hr_scratch_close(hr_scratch *scratch)
    int hr_expression_eval_block(hr_scratch *scratch, const hr_arrow *arrays, int64_t row, uint32_t n)
    int hr_expression_eval_row(hr_scratch *scratch, const hr_cell *inputs, hr_cell *result)
    int hr_is_text(uint8_t type)
    int hr_is_float(uint8_t type)


# Output of an evaluation while it grows.
cdef struct hr_output:
    uint8_t *validity
    uint8_t *values
    uint8_t *offsets
    uint64_t value_bytes
    uint64_t value_room
    int64_t null_count


@cython.final
cdef class Program:
    cdef hr_expression program  # points into source
    cdef readonly bytes source
    cdef readonly int result_type
    cdef readonly tuple input_types
