/* What each instruction does to the rows of a block. */
#ifndef HR_EXPRESSION_OPS_H
#define HR_EXPRESSION_OPS_H

#include "hr_expression_math.h"
#include "hr_expression_scratch.h"
#include "hr_expression_time.h"

/* A block as one instruction sees it. */
typedef struct {
    hr_scratch *scratch;
    const hr_register *a, *b, *c;
    hr_register *to;
    const uint8_t *taken;  /* register of the guard, NULL where every row is taken */
    const uint8_t *zone;
    uint32_t n;
    uint16_t op;
    uint8_t type, argument_type;
} hr_block;

static inline void hr_fault(hr_block *block, uint32_t i, int fault)
{
    const int64_t *taken = (const int64_t *)(const void *)block->taken;
    block->to->nulls[i] = 1;
    hr_clear_value(block->to, block->type, i);
    if (taken == NULL || taken[i]) block->scratch->faults[fault]++;
}

/* A null argument makes a null result; the value is computed for the others alone. */
#define HR_EACH_1(BODY) \
    for (i = 0; i < n; i++) { \
        if ((to->nulls[i] = a->nulls[i])) { hr_clear_value(to, block->type, i); continue; } \
        BODY; \
    }
#define HR_EACH_2(BODY) \
    for (i = 0; i < n; i++) { \
        if ((to->nulls[i] = a->nulls[i] | b->nulls[i])) { hr_clear_value(to, block->type, i); continue; } \
        BODY; \
    }
#define HR_INTS int64_t x = a->at.ints[i], y = b->at.ints[i]; int64_t *r = &to->at.ints[i]
#define HR_FLOATS double x = a->at.floats[i], y = b->at.floats[i]

static inline void hr_run_choice(hr_block *block)
{
    const hr_register *a = block->a, *b = block->b, *c = block->c;
    hr_register *to = block->to;
    size_t width = hr_is_text(block->type) ? sizeof(hr_text) : 8;
    uint32_t i;
    for (i = 0; i < block->n; i++) {
        const hr_register *from = a;
        if (block->op == HR_OP_SELECT) from = !a->nulls[i] && a->at.ints[i] ? b : c;
        else if (block->op == HR_OP_COALESCE) from = a->nulls[i] ? b : a;
        to->nulls[i] = from->nulls[i];
        memcpy(to->at.bytes + width * i, from->at.bytes + width * i, width);
    }
}

/* Three-valued: false and null is false, true or null is true. */
static inline void hr_run_bool(hr_block *block)
{
    const hr_register *a = block->a, *b = block->b;
    hr_register *to = block->to;
    uint32_t i, n = block->n;
    switch (block->op) {
    case HR_OP_IS_NULL: for (i = 0; i < n; i++) to->nulls[i] = 0, to->at.ints[i] = a->nulls[i]; break;
    case HR_OP_IS_TRUE:
        for (i = 0; i < n; i++) to->nulls[i] = 0, to->at.ints[i] = (!a->nulls[i]) & a->at.ints[i];
        break;
    case HR_OP_NOT:
        for (i = 0; i < n; i++) to->nulls[i] = a->nulls[i], to->at.ints[i] = (!a->nulls[i]) & (!a->at.ints[i]);
        break;
    default:
        for (i = 0; i < n; i++) {
            int64_t decides = block->op == HR_OP_OR;  /* the value that wins over null */
            int known = (!a->nulls[i] && a->at.ints[i] == decides) || (!b->nulls[i] && b->at.ints[i] == decides);
            to->nulls[i] = !known && (a->nulls[i] | b->nulls[i]);
            to->at.ints[i] = to->nulls[i] ? 0 : known ? decides : !decides;
        }
    }
}

static inline void hr_run_compare(hr_block *block)
{
    const hr_register *a = block->a, *b = block->b;
    hr_register *to = block->to;
    int64_t *r = to->at.ints;
    uint32_t i, n = block->n;
    switch (block->op) {
    case HR_OP_EQ_I: HR_EACH_2(r[i] = a->at.ints[i] == b->at.ints[i]) break;
    case HR_OP_LT_I: HR_EACH_2(r[i] = a->at.ints[i] < b->at.ints[i]) break;
    case HR_OP_LE_I: HR_EACH_2(r[i] = a->at.ints[i] <= b->at.ints[i]) break;
    case HR_OP_EQ_F: HR_EACH_2(r[i] = hr_float_equal(a->at.floats[i], b->at.floats[i])) break;
    case HR_OP_LT_F: HR_EACH_2(r[i] = hr_float_less(a->at.floats[i], b->at.floats[i])) break;
    case HR_OP_LE_F: HR_EACH_2(r[i] = !hr_float_less(b->at.floats[i], a->at.floats[i])) break;
    case HR_OP_EQ_T: HR_EACH_2(r[i] = hr_text_equal(a->at.texts[i], b->at.texts[i])) break;
    case HR_OP_LT_T: HR_EACH_2(r[i] = hr_text_compare(a->at.texts[i], b->at.texts[i]) < 0) break;
    case HR_OP_LE_T: HR_EACH_2(r[i] = hr_text_compare(a->at.texts[i], b->at.texts[i]) <= 0) break;
    case HR_OP_LEAST_I: HR_EACH_2(HR_INTS; *r = y < x ? y : x) break;
    case HR_OP_GREATEST_I: HR_EACH_2(HR_INTS; *r = y > x ? y : x) break;
    case HR_OP_LEAST_F: HR_EACH_2(HR_FLOATS; to->at.floats[i] = hr_float_less(y, x) ? y : x) break;
    case HR_OP_GREATEST_F: HR_EACH_2(HR_FLOATS; to->at.floats[i] = hr_float_less(x, y) ? y : x) break;
    default: break;
    }
}

static inline void hr_run_divide(hr_block *block)
{
    const hr_register *a = block->a, *b = block->b;
    hr_register *to = block->to;
    uint32_t i, n = block->n;
    HR_EACH_2(
        HR_INTS;
        if (y == 0) hr_fault(block, i, HR_FAULT_ZERO_DIVISION);
        else if (y == -1 && block->op == HR_OP_MOD_I) *r = 0;
        else if (y == -1 && x == INT64_MIN) hr_fault(block, i, HR_FAULT_OVERFLOW);
        else *r = block->op == HR_OP_MOD_I ? hr_floor_mod(x, y) : hr_floor_quotient(x, y))
}

static inline void hr_run_int(hr_block *block)
{
    const hr_register *a = block->a, *b = block->b;
    hr_register *to = block->to;
    uint32_t i, n = block->n;
    switch (block->op) {
    case HR_OP_ADD_I:
        HR_EACH_2(HR_INTS; if (__builtin_add_overflow(x, y, r)) hr_fault(block, i, HR_FAULT_OVERFLOW)) break;
    case HR_OP_SUB_I:
        HR_EACH_2(HR_INTS; if (__builtin_sub_overflow(x, y, r)) hr_fault(block, i, HR_FAULT_OVERFLOW)) break;
    case HR_OP_MUL_I:
        HR_EACH_2(HR_INTS; if (__builtin_mul_overflow(x, y, r)) hr_fault(block, i, HR_FAULT_OVERFLOW)) break;
    case HR_OP_FLOORDIV_I: case HR_OP_MOD_I: hr_run_divide(block); break;
    default:
        HR_EACH_1(
            int64_t x = a->at.ints[i];
            if (block->op == HR_OP_ABS_I && x >= 0) to->at.ints[i] = x;
            else if (__builtin_sub_overflow((int64_t)0, x, &to->at.ints[i])) hr_fault(block, i, HR_FAULT_OVERFLOW))
    }
}

static inline void hr_run_float_pair(hr_block *block)
{
    const hr_register *a = block->a, *b = block->b;
    hr_register *to = block->to;
    double *r = to->at.floats;
    uint32_t i, n = block->n;
    switch (block->op) {
    case HR_OP_ADD_F: HR_EACH_2(HR_FLOATS; r[i] = hr_one_nan(x + y)) break;
    case HR_OP_SUB_F: HR_EACH_2(HR_FLOATS; r[i] = hr_one_nan(x - y)) break;
    case HR_OP_MUL_F: HR_EACH_2(HR_FLOATS; r[i] = hr_one_nan(x * y)) break;
    case HR_OP_DIV_F:
        HR_EACH_2(HR_FLOATS; if (y == 0) hr_fault(block, i, HR_FAULT_ZERO_DIVISION); else r[i] = hr_one_nan(x / y)) break;
    case HR_OP_MOD_F:
        HR_EACH_2(HR_FLOATS; if (y == 0) hr_fault(block, i, HR_FAULT_ZERO_DIVISION); else r[i] = hr_float_mod(x, y)) break;
    default:
        HR_EACH_2(HR_FLOATS; if (hr_pow_fails(x, y)) hr_fault(block, i, HR_FAULT_DOMAIN); else r[i] = hr_pow(x, y))
    }
}

static inline void hr_run_float(hr_block *block)
{
    const hr_register *a = block->a;
    hr_register *to = block->to;
    double *r = to->at.floats;
    uint32_t i, n = block->n;
    switch (block->op) {
    case HR_OP_NEG_F: HR_EACH_1(r[i] = hr_one_nan(-a->at.floats[i])) break;
    case HR_OP_ABS_F: HR_EACH_1(r[i] = hr_one_nan(fabs(a->at.floats[i]))) break;
    case HR_OP_FLOOR: HR_EACH_1(r[i] = floor(a->at.floats[i])) break;
    case HR_OP_CEIL: HR_EACH_1(r[i] = ceil(a->at.floats[i])) break;
    case HR_OP_ROUND: HR_EACH_1(r[i] = rint(a->at.floats[i])) break;
    case HR_OP_EXP: HR_EACH_1(r[i] = hr_exp(a->at.floats[i])) break;
    default:
        HR_EACH_1(
            double x = a->at.floats[i];
            if (x < 0 || (x == 0 && block->op == HR_OP_LOG)) hr_fault(block, i, HR_FAULT_DOMAIN);
            else if (x != x) r[i] = x;
            else r[i] = block->op == HR_OP_LOG ? hr_log(x) : sqrt(x))
    }
}

static inline void hr_run_text(hr_block *block)
{
    const hr_register *a = block->a, *b = block->b, *c = block->c;
    hr_register *to = block->to;
    uint32_t i, n = block->n;
    for (i = 0; i < n; i++) {
        hr_text x = a->at.texts[i], y = {(const uint8_t *)"", 0}, *made;
        int made_it = 1;
        to->nulls[i] = a->nulls[i] | (b != NULL && b->nulls[i]) | (c != NULL && c->nulls[i]);
        if (to->nulls[i]) { hr_clear_value(to, block->type, i); continue; }
        if (b != NULL && block->op != HR_OP_SUBSTRING) y = b->at.texts[i];
        made = &to->at.texts[i];
        switch (block->op) {
        case HR_OP_LOWER: made_it = hr_text_cased(&block->scratch->arena, x, 'A', 'Z', made); break;
        case HR_OP_UPPER: made_it = hr_text_cased(&block->scratch->arena, x, 'a', 'z', made); break;
        case HR_OP_TRIM: *made = hr_text_trimmed(x); break;
        case HR_OP_LENGTH: to->at.ints[i] = hr_text_length(x); break;
        case HR_OP_SUBSTRING: *made = hr_text_part(x, b->at.ints[i], c->at.ints[i]); break;
        case HR_OP_CONCAT: made_it = hr_text_joined(&block->scratch->arena, x, y, made); break;
        case HR_OP_STARTS_WITH: to->at.ints[i] = hr_text_starts(x, y); break;
        case HR_OP_ENDS_WITH: to->at.ints[i] = hr_text_ends(x, y); break;
        case HR_OP_CONTAINS: to->at.ints[i] = y.length == 0 || hr_text_find(x, y, 0) < x.length; break;
        default: made_it = hr_text_replaced(&block->scratch->arena, x, y, c->at.texts[i], made);
        }
        if (!made_it) hr_fault(block, i, HR_FAULT_TOO_LONG);
    }
}

static inline void hr_run_time(hr_block *block)
{
    const hr_register *a = block->a;
    hr_register *to = block->to;
    uint32_t i, n = block->n;
    HR_EACH_1(
        int64_t x = a->at.ints[i];
        int64_t *r = &to->at.ints[i];
        if (block->op == HR_OP_LOCAL) { if (!hr_local_time(block->zone, x, r)) hr_fault(block, i, HR_FAULT_TIME); }
        else if (block->op == HR_OP_DATE_US) {
            if (__builtin_mul_overflow(x, HR_DAY_US, r)) hr_fault(block, i, HR_FAULT_TIME);
        } else *r = hr_time_part(block->op, x))
}

static inline int hr_cast_value(hr_block *block, uint32_t i)
{
    const hr_register *a = block->a;
    hr_register *to = block->to;
    int64_t whole = hr_is_text(block->argument_type) ? 0 : a->at.ints[i];
    double number = hr_is_float(block->argument_type) ? a->at.floats[i] : 0;
    hr_text *text = &to->at.texts[i];
    switch (block->op) {
    case HR_OP_INT_TO_I32: to->at.ints[i] = whole; return whole >= INT32_MIN && whole <= INT32_MAX;
    case HR_OP_INT_TO_F64: to->at.floats[i] = (double)whole; return 1;
    case HR_OP_INT_TO_F32: to->at.floats[i] = (double)(float)whole; return 1;
    case HR_OP_FLOAT_TO_I64:
        if (!(number >= -9223372036854775808.0 && number < 9223372036854775808.0)) return 0;
        to->at.ints[i] = (int64_t)number;
        return 1;
    case HR_OP_FLOAT_TO_F32:
        if (isfinite(number) && fabs(number) >= 3.4028235677973366e38) return 0;
        to->at.floats[i] = hr_one_nan((double)(float)number);
        return 1;
    case HR_OP_TEXT_TO_I64: return hr_text_to_int(a->at.texts[i], &to->at.ints[i]);
    case HR_OP_TEXT_TO_F64: return hr_text_to_float(a->at.texts[i], block->scratch->c_locale, &to->at.floats[i]);
    case HR_OP_INT_TO_TEXT: return hr_text_of_int(&block->scratch->arena, whole, text);
    case HR_OP_BOOL_TO_TEXT:
        text->at = (const uint8_t *)(whole ? "true" : "false"), text->length = whole ? 4 : 5;
        return 1;
    default: *text = a->at.texts[i]; return hr_is_utf8(text->at, text->length);
    }
}

static inline void hr_run_cast(hr_block *block)
{
    const hr_register *a = block->a;
    hr_register *to = block->to;
    uint32_t i, n = block->n;
    HR_EACH_1(if (!hr_cast_value(block, i)) hr_fault(block, i, HR_FAULT_CAST))
}

static inline const hr_register *hr_argument(const hr_scratch *scratch, uint16_t index)
{
    return index == HR_NO_REGISTER ? NULL : &scratch->registers[index];
}

static inline void hr_run_instruction(hr_scratch *scratch, const hr_instruction *at, uint32_t index, uint32_t n)
{
    const hr_register *guard = hr_argument(scratch, at->guard);
    hr_block block = {
        .scratch = scratch, .a = hr_argument(scratch, at->arguments[0]), .b = hr_argument(scratch, at->arguments[1]),
        .c = hr_argument(scratch, at->arguments[2]), .to = &scratch->registers[index],
        .taken = guard == NULL ? NULL : guard->at.bytes, .zone = scratch->program->heap + at->operand,
        .n = n, .op = at->op, .type = at->type, .argument_type = hr_type_at(scratch->program, at->arguments[0])};
    if (at->op <= HR_OP_COALESCE) hr_run_choice(&block);
    else if (at->op <= HR_OP_NOT) hr_run_bool(&block);
    else if (at->op <= HR_OP_GREATEST_F) hr_run_compare(&block);
    else if (at->op <= HR_OP_ABS_I) hr_run_int(&block);
    else if (at->op <= HR_OP_MOD_F || at->op == HR_OP_POW) hr_run_float_pair(&block);
    else if (at->op <= HR_OP_LOG) hr_run_float(&block);
    else if (at->op <= HR_OP_REPLACE) hr_run_text(&block);
    else if (at->op <= HR_OP_DAYS) hr_run_time(&block);
    else hr_run_cast(&block);
}

#undef HR_EACH_1
#undef HR_EACH_2
#undef HR_INTS
#undef HR_FLOATS

#endif
