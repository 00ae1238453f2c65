/* Registers of a program, one column of a block each, and the memory that they and computed texts lie in. */
#ifndef HR_EXPRESSION_SCRATCH_H
#define HR_EXPRESSION_SCRATCH_H

#include "hr_expression.h"
#include "hr_expression_text.h"

enum {  /* why a value became NULL, and its counter */
    HR_FAULT_OVERFLOW = 0, HR_FAULT_ZERO_DIVISION, HR_FAULT_CAST, HR_FAULT_DOMAIN, HR_FAULT_TIME, HR_FAULT_TOO_LONG,
    HR_FAULT_COUNT
};

typedef struct {
    union { int64_t *ints; double *floats; hr_text *texts; uint8_t *bytes; } at;
    uint8_t *nulls;  /* 1 = null; the value is then 0, 0.0 or empty */
} hr_register;

typedef struct {
    const hr_expression *program;
    hr_register *registers;
    uint8_t *memory;
    uint32_t rows;
    hr_text_arena arena;
    locale_t c_locale;
    uint64_t faults[HR_FAULT_COUNT];
} hr_scratch;

/* One value outside a block. Text points into what its owner keeps. */
typedef struct {
    union { int64_t integer; double number; hr_text text; } value;
    uint8_t is_null;
} hr_cell;

static inline void hr_scratch_close(hr_scratch *scratch)
{
    hr_text_arena_free(&scratch->arena);
    free(scratch->memory);
    free(scratch->registers);
    if (scratch->c_locale != (locale_t)0) freelocale(scratch->c_locale);
    memset(scratch, 0, sizeof *scratch);
}

static inline void hr_fill_constant(const hr_expression *program, const hr_instruction *at, hr_register *to,
                                    uint32_t rows)
{
    const uint8_t *value = program->heap + at->operand;
    uint32_t i;
    memset(to->nulls, at->op == HR_OP_NULL, rows);
    if (at->op == HR_OP_NULL) return;
    for (i = 0; i < rows; i++) {
        if (hr_is_text(at->type)) to->at.texts[i].at = value + 4, to->at.texts[i].length = hr_load_u32(value);
        else memcpy(to->at.bytes + 8 * (size_t)i, value, 8);
    }
}

/* Registers for up to `rows` rows, constants filled in. 0 where there is no memory; closing is right in any case. */
static inline int hr_scratch_open(hr_scratch *scratch, const hr_expression *program, uint32_t rows)
{
    size_t total = 0, stride = ((size_t)rows + 7) / 8 * 8;
    uint32_t i;
    memset(scratch, 0, sizeof *scratch);
    scratch->program = program, scratch->rows = rows;
    scratch->c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    scratch->registers = (hr_register *)calloc(program->instruction_count, sizeof(hr_register));
    for (i = 0; i < program->instruction_count; i++)
        total += stride * (hr_is_text(hr_type_at(program, i)) ? sizeof(hr_text) + 1 : 9);
    scratch->memory = (uint8_t *)calloc(total, 1);
    if (scratch->registers == NULL || scratch->memory == NULL || scratch->c_locale == (locale_t)0) return 0;
    for (total = 0, i = 0; i < program->instruction_count; i++) {
        hr_instruction at = hr_instruction_at(program, i);
        hr_register *to = &scratch->registers[i];
        to->at.bytes = scratch->memory + total;
        total += stride * (hr_is_text(at.type) ? sizeof(hr_text) : 8);
        to->nulls = scratch->memory + total;
        total += stride;
        if (at.op == HR_OP_CONST || at.op == HR_OP_NULL) hr_fill_constant(program, &at, to, rows);
    }
    return 1;
}

static inline void hr_clear_value(hr_register *to, uint8_t type, uint32_t i)
{
    if (hr_is_text(type)) to->at.texts[i].at = (const uint8_t *)"", to->at.texts[i].length = 0;
    else to->at.ints[i] = 0;
}

#endif
