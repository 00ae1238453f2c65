/* Runs checked expressions over blocks of rows: registers are columns of a block, one row is a block of one.
 *
 * Registers hold whole numbers, times, dates and bools as i64, floats as double and text as a view, so that widening
 * costs nothing. A scratch belongs to one thread at a time; programs may be shared. */
#ifndef HR_EXPRESSION_RUN_H
#define HR_EXPRESSION_RUN_H

#include "hr_arrow.h"
#include "hr_expression_ops.h"

/* Everything but inputs and constants, for the first n rows of the registers. 0 where memory ran out. */
static inline int hr_expression_compute(hr_scratch *scratch, uint32_t n)
{
    uint32_t i;
    for (i = 0; i < scratch->program->instruction_count; i++) {
        hr_instruction at = hr_instruction_at(scratch->program, i);
        if (at.op > HR_OP_NULL) hr_run_instruction(scratch, &at, i, n);
    }
    return !scratch->arena.failed;
}

static inline void hr_load_value(const hr_arrow *array, uint8_t type, int64_t row, hr_register *to, uint32_t i)
{
    const uint8_t *at = array->values;
    int64_t place = array->offset + row;
    float single;
    switch (type) {
    case HR_BOOL: to->at.ints[i] = hr_bit(at, place); break;
    case HR_I32: case HR_DATE: to->at.ints[i] = hr_load_i32(at + 4 * place); break;
    case HR_F32: memcpy(&single, at + 4 * place, 4); to->at.floats[i] = hr_one_nan(single); break;
    case HR_F64: to->at.floats[i] = hr_one_nan(hr_load_f64(at + 8 * place)); break;
    case HR_STRING: case HR_BYTES:
        to->at.texts[i].at = array->values + hr_arrow_start(array, row);
        to->at.texts[i].length = (uint64_t)(hr_arrow_start(array, row + 1) - hr_arrow_start(array, row));
        if (to->at.texts[i].length == 0) to->at.texts[i].at = (const uint8_t *)"";
        break;
    default: to->at.ints[i] = hr_load_i64(at + 8 * place);
    }
}

/* Arrow columns must have passed hr_arrow_check for the types of the inputs. */
static inline int hr_expression_eval_block(hr_scratch *scratch, const hr_arrow *arrays, int64_t row, uint32_t n)
{
    uint32_t i, k;
    hr_text_arena_empty(&scratch->arena);
    for (i = 0; i < scratch->program->instruction_count; i++) {
        hr_instruction at = hr_instruction_at(scratch->program, i);
        hr_register *to = &scratch->registers[i];
        if (at.op != HR_OP_INPUT) continue;
        for (k = 0; k < n; k++) {
            to->nulls[k] = (uint8_t)hr_arrow_is_null(&arrays[at.operand], row + k);
            if (to->nulls[k]) hr_clear_value(to, at.type, k);
            else hr_load_value(&arrays[at.operand], at.type, row + k, to, k);
        }
    }
    return hr_expression_compute(scratch, n);
}

/* One row from cells, one per input, of the inputs' types and valid UTF-8 where STRING. The result's text lives until
 * the next evaluation with this scratch. 0 where memory ran out. */
static inline int hr_expression_eval_row(hr_scratch *scratch, const hr_cell *inputs, hr_cell *result)
{
    const hr_register *found = &scratch->registers[scratch->program->result];
    uint32_t i;
    hr_text_arena_empty(&scratch->arena);
    for (i = 0; i < scratch->program->instruction_count; i++) {
        hr_instruction at = hr_instruction_at(scratch->program, i);
        hr_register *to = &scratch->registers[i];
        const hr_cell *from;
        if (at.op != HR_OP_INPUT) continue;
        from = &inputs[at.operand];
        to->nulls[0] = from->is_null != 0;
        if (from->is_null) hr_clear_value(to, at.type, 0);
        else if (hr_is_text(at.type)) to->at.texts[0] = from->value.text;
        else if (hr_is_float(at.type)) to->at.floats[0] = hr_one_nan(from->value.number);
        else to->at.ints[0] = from->value.integer;
    }
    if (!hr_expression_compute(scratch, 1)) return 0;
    result->is_null = found->nulls[0];
    if (hr_is_text(scratch->program->result_type)) result->value.text = found->at.texts[0];
    else result->value.integer = found->at.ints[0];
    return 1;
}

#endif
