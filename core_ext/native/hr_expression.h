/* Compiled expressions: the layout of their programs, and every check that makes one safe to run.
 * core_ext/twin/expressions.py is the oracle; docs/decisions/0016-expressions.md gives the reasons. */
#ifndef HR_EXPRESSION_H
#define HR_EXPRESSION_H

#include <math.h>
#include <stddef.h>

#include "hr_hash.h"
#include "hr_layout.h"
#include "hr_utf8.h"

/* Program, layout 1:
 *   0  u32  magic "HRXP"          12  u16  input count           20  u16  result, an instruction
 *   4  u16  layout 1              14  u16  instruction count     22  u16  reserved, 0
 *   6  u16  reserved, 0           16  u32  heap bytes            24  u8 per input: its type; zeros up to 8 bytes
 *   8  u32  length, all bytes
 *      instructions of 16 bytes: u16 op, u8 result type, u8 reserved 0, u16 a, u16 b, u16 c, u16 guard, u32 operand
 *      heap: constants (8 bytes; text: u32 length, bytes) and zones, addressed by operands
 *   length-4  u32 CRC32C of bytes [0, length-4)
 * Instruction i fills register i from registers before it; arguments not used hold HR_NO_REGISTER. Where the guard
 * register is false a fault is not counted: that branch was not taken. The zeros make the heap start at 8 bytes.
 * Zone: u32 count of 1 or more, u32 reserved 0, i64 end, count x i64 start (UTC, us; ascending, the first is the least
 * i64), count x i64 offset (us); times from `end` on are outside the table. */
enum {
    HR_PROGRAM_MAGIC = 0x50585248,
    HR_PROGRAM_LAYOUT = 1,
    HR_PROGRAM_HEAD = 24,
    HR_INSTRUCTION_BYTES = 16,
    HR_INPUTS_MAX = 256,
    HR_INSTRUCTIONS_MAX = 1024,
    HR_TEXT_MAKERS_MAX = 32,         /* instructions that make new text: bounds the memory of a block */
    HR_PROGRAM_BYTES_MAX = 1 << 20,
    HR_TEXT_BYTES_MAX = 65536,       /* of one computed text; as a default in headrace/definitions/values.py */
    HR_ZONE_STARTS_MAX = 4096,
    HR_NUMBER_TEXT_MAX = 400,        /* characters of a text that casts to a number */
    HR_NO_REGISTER = 0xFFFF,
    HR_EXPRESSION_ROWS = 256,             /* registers of a common program stay in the L1 or L2 cache */
    HR_TEXT_BLOCK_ROWS = 32          /* 32 rows x 32 makers x 64 KiB = 64 MiB at most */
};
#define HR_ZONE_OFFSET_MAX_US (86400LL * 1000000)

enum {
    HR_OP_INPUT = 1, HR_OP_CONST, HR_OP_NULL, HR_OP_RETYPE, HR_OP_SELECT, HR_OP_COALESCE, HR_OP_IS_NULL, HR_OP_IS_TRUE,
    HR_OP_AND, HR_OP_OR, HR_OP_NOT,
    HR_OP_EQ_I, HR_OP_LT_I, HR_OP_LE_I, HR_OP_EQ_F, HR_OP_LT_F, HR_OP_LE_F, HR_OP_EQ_T, HR_OP_LT_T, HR_OP_LE_T,
    HR_OP_LEAST_I, HR_OP_GREATEST_I, HR_OP_LEAST_F, HR_OP_GREATEST_F,
    HR_OP_ADD_I, HR_OP_SUB_I, HR_OP_MUL_I, HR_OP_FLOORDIV_I, HR_OP_MOD_I, HR_OP_NEG_I, HR_OP_ABS_I,
    HR_OP_ADD_F, HR_OP_SUB_F, HR_OP_MUL_F, HR_OP_DIV_F, HR_OP_MOD_F, HR_OP_NEG_F, HR_OP_ABS_F,
    HR_OP_FLOOR, HR_OP_CEIL, HR_OP_ROUND, HR_OP_SQRT, HR_OP_EXP, HR_OP_LOG, HR_OP_POW,
    HR_OP_LOWER, HR_OP_UPPER, HR_OP_TRIM, HR_OP_LENGTH, HR_OP_SUBSTRING, HR_OP_CONCAT,
    HR_OP_STARTS_WITH, HR_OP_ENDS_WITH, HR_OP_CONTAINS, HR_OP_REPLACE,
    HR_OP_LOCAL, HR_OP_DATE_US, HR_OP_YEAR, HR_OP_MONTH, HR_OP_DAY, HR_OP_HOUR, HR_OP_MINUTE, HR_OP_SECOND,
    HR_OP_DAY_OF_WEEK, HR_OP_DAYS,
    HR_OP_INT_TO_I32, HR_OP_INT_TO_F64, HR_OP_INT_TO_F32, HR_OP_FLOAT_TO_I64, HR_OP_FLOAT_TO_F32,
    HR_OP_TEXT_TO_I64, HR_OP_TEXT_TO_F64, HR_OP_INT_TO_TEXT, HR_OP_BOOL_TO_TEXT, HR_OP_BYTES_TO_TEXT,
    HR_OP_COUNT
};

/* Arguments: b bool, i whole number or time, n either, f float, s string, t string or bytes, * any type,
 * x the type of the result. Result: a type, or 0 where the instruction names it. */
typedef struct {
    char arguments[4];
    uint8_t result;
} hr_signature;

static const hr_signature HR_SIGNATURES[HR_OP_COUNT] = {
    {"", 0}, {"", 0}, {"", 0}, {"", 0}, {"*", 0}, {"bxx", 0}, {"xx", 0}, {"*", HR_BOOL}, {"b", HR_BOOL},
    {"bb", HR_BOOL}, {"bb", HR_BOOL}, {"b", HR_BOOL},
    {"nn", HR_BOOL}, {"nn", HR_BOOL}, {"nn", HR_BOOL}, {"ff", HR_BOOL}, {"ff", HR_BOOL}, {"ff", HR_BOOL},
    {"tt", HR_BOOL}, {"tt", HR_BOOL}, {"tt", HR_BOOL},
    {"xx", 0}, {"xx", 0}, {"xx", 0}, {"xx", 0},
    {"ii", HR_I64}, {"ii", HR_I64}, {"ii", HR_I64}, {"ii", HR_I64}, {"ii", HR_I64}, {"i", HR_I64}, {"i", HR_I64},
    {"ff", HR_F64}, {"ff", HR_F64}, {"ff", HR_F64}, {"ff", HR_F64}, {"ff", HR_F64}, {"f", HR_F64}, {"f", HR_F64},
    {"f", HR_F64}, {"f", HR_F64}, {"f", HR_F64}, {"f", HR_F64}, {"f", HR_F64}, {"f", HR_F64}, {"ff", HR_F64},
    {"s", HR_STRING}, {"s", HR_STRING}, {"s", HR_STRING}, {"s", HR_I64}, {"sii", HR_STRING}, {"ss", HR_STRING},
    {"ss", HR_BOOL}, {"ss", HR_BOOL}, {"ss", HR_BOOL}, {"sss", HR_STRING},
    {"i", HR_I64}, {"i", HR_I64}, {"i", HR_I64}, {"i", HR_I64}, {"i", HR_I64}, {"i", HR_I64}, {"i", HR_I64},
    {"i", HR_I64}, {"i", HR_I64}, {"i", HR_DATE},
    {"i", HR_I32}, {"i", HR_F64}, {"i", HR_F32}, {"f", HR_I64}, {"f", HR_F32},
    {"s", HR_I64}, {"s", HR_F64}, {"i", HR_STRING}, {"b", HR_STRING}, {"t", HR_STRING},
};

typedef enum {
    HR_PROGRAM_OK = 0,
    HR_PROGRAM_SHORT,
    HR_PROGRAM_BAD_MAGIC,
    HR_PROGRAM_BAD_LAYOUT,
    HR_PROGRAM_BAD_LENGTH,
    HR_PROGRAM_BAD_CHECKSUM,
    HR_PROGRAM_BAD_COUNT,
    HR_PROGRAM_BAD_INPUT,
    HR_PROGRAM_BAD_OP,
    HR_PROGRAM_BAD_ARGUMENT,
    HR_PROGRAM_BAD_TYPE,
    HR_PROGRAM_BAD_OPERAND,
    HR_PROGRAM_BAD_RESULT
} hr_program_status;

typedef struct {
    uint16_t op;
    uint8_t type;
    uint16_t arguments[3];
    uint16_t guard;
    uint32_t operand;
} hr_instruction;

/* A checked program; points into bytes that the owner keeps. */
typedef struct {
    const uint8_t *inputs, *code, *heap;
    uint32_t heap_bytes, block_rows;
    uint16_t input_count, instruction_count, result;
    uint8_t result_type;
} hr_expression;

static inline int hr_is_text(uint8_t type) { return type == HR_STRING || type == HR_BYTES; }
static inline int hr_is_float(uint8_t type) { return type == HR_F32 || type == HR_F64; }
static inline int hr_is_int(uint8_t type)
{
    return type == HR_I32 || type == HR_I64 || type == HR_TIMESTAMP_US || type == HR_DATE;
}

static inline hr_instruction hr_instruction_at(const hr_expression *program, uint32_t index)
{
    const uint8_t *at = program->code + (size_t)index * HR_INSTRUCTION_BYTES;
    hr_instruction found;
    found.op = hr_load_u16(at);
    found.type = at[2];
    found.arguments[0] = hr_load_u16(at + 4);
    found.arguments[1] = hr_load_u16(at + 6);
    found.arguments[2] = hr_load_u16(at + 8);
    found.guard = hr_load_u16(at + 10);
    found.operand = hr_load_u32(at + 12);
    return found;
}

static inline uint8_t hr_type_at(const hr_expression *program, uint32_t index)
{
    return program->code[(size_t)index * HR_INSTRUCTION_BYTES + 2];
}

static inline double hr_load_f64(const uint8_t *p) { double v; memcpy(&v, p, 8); return v; }

static inline int hr_fits_kind(char kind, uint8_t type, uint8_t result)
{
    switch (kind) {
    case 'b': return type == HR_BOOL;
    case 'i': return hr_is_int(type);
    case 'n': return type == HR_BOOL || hr_is_int(type);
    case 'f': return hr_is_float(type);
    case 's': return type == HR_STRING;
    case 't': return hr_is_text(type);
    case 'x': return type == result;
    default: return 1;
    }
}

/* Types that hold the same values in a register, so that a change of type copies it. */
static inline int hr_is_retype(uint8_t from, uint8_t to)
{
    switch (from) {
    case HR_BOOL: return to == HR_I32 || to == HR_I64;
    case HR_I32: return to == HR_I64 || to == HR_DATE;
    case HR_I64: return to == HR_TIMESTAMP_US;
    case HR_F32: return to == HR_F64;
    case HR_STRING: return to == HR_BYTES;
    case HR_TIMESTAMP_US: return to == HR_I64;
    case HR_DATE: return to == HR_I32;
    default: return 0;
    }
}

static inline int hr_constant_is_sound(const hr_expression *program, const hr_instruction *at)
{
    const uint8_t *value = program->heap + at->operand;
    uint32_t room = program->heap_bytes, length;
    if (at->operand > room) return 0;
    room -= at->operand;
    if (hr_is_text(at->type)) {
        if (room < 4) return 0;
        length = hr_load_u32(value);
        if (length > room - 4 || length > HR_TEXT_BYTES_MAX) return 0;
        return at->type == HR_BYTES || hr_is_utf8(value + 4, length);
    }
    if (room < 8) return 0;
    if (at->type == HR_BOOL) return hr_load_u64(value) <= 1;
    if (at->type == HR_I32 || at->type == HR_DATE)
        return hr_load_i64(value) >= INT32_MIN && hr_load_i64(value) <= INT32_MAX;
    if (hr_is_float(at->type)) {
        double number = hr_load_f64(value);
        if (isnan(number)) return hr_load_u64(value) == 0x7FF8000000000000ULL;
        if (at->type == HR_F32 && isfinite(number) && fabs(number) > 3.4028234663852886e38) return 0;
        return at->type == HR_F64 || (double)(float)number == number;
    }
    return 1;
}

static inline int hr_zone_is_sound(const hr_expression *program, uint32_t operand)
{
    const uint8_t *zone = program->heap + operand;
    uint32_t room = program->heap_bytes, count, i;
    if (operand > room || room - operand < 16) return 0;
    room -= operand;
    count = hr_load_u32(zone);
    if (count == 0 || count > HR_ZONE_STARTS_MAX || 16 + 16 * (uint64_t)count > room) return 0;
    if (hr_load_u32(zone + 4) != 0 || hr_load_i64(zone + 16) != INT64_MIN) return 0;
    for (i = 0; i < count; i++) {
        int64_t shift = hr_load_i64(zone + 16 + 8 * ((size_t)count + i));
        if (i > 0 && hr_load_i64(zone + 16 + 8 * (size_t)i) <= hr_load_i64(zone + 8 + 8 * (size_t)i)) return 0;
        if (shift < -HR_ZONE_OFFSET_MAX_US || shift > HR_ZONE_OFFSET_MAX_US) return 0;
    }
    return 1;
}

/* What belongs to one op alone. */
static inline hr_program_status hr_check_operand(const hr_expression *program, const hr_instruction *at)
{
    switch (at->op) {
    case HR_OP_INPUT:
        if (at->operand >= program->input_count) return HR_PROGRAM_BAD_OPERAND;
        return program->inputs[at->operand] == at->type ? HR_PROGRAM_OK : HR_PROGRAM_BAD_TYPE;
    case HR_OP_CONST: return hr_constant_is_sound(program, at) ? HR_PROGRAM_OK : HR_PROGRAM_BAD_OPERAND;
    case HR_OP_LOCAL: return hr_zone_is_sound(program, at->operand) ? HR_PROGRAM_OK : HR_PROGRAM_BAD_OPERAND;
    case HR_OP_RETYPE:
        if (!hr_is_retype(hr_type_at(program, at->arguments[0]), at->type)) return HR_PROGRAM_BAD_TYPE;
        break;
    case HR_OP_LEAST_I: case HR_OP_GREATEST_I:
        if (!hr_is_int(at->type)) return HR_PROGRAM_BAD_TYPE;
        break;
    case HR_OP_LEAST_F: case HR_OP_GREATEST_F:
        if (!hr_is_float(at->type)) return HR_PROGRAM_BAD_TYPE;
        break;
    default: break;
    }
    return at->operand == 0 ? HR_PROGRAM_OK : HR_PROGRAM_BAD_OPERAND;
}

static inline hr_program_status hr_check_instruction(const hr_expression *program, uint32_t index)
{
    hr_instruction at = hr_instruction_at(program, index);
    const hr_signature *signature;
    uint32_t i;
    if (at.op == 0 || at.op >= HR_OP_COUNT || program->code[(size_t)index * HR_INSTRUCTION_BYTES + 3] != 0)
        return HR_PROGRAM_BAD_OP;
    signature = &HR_SIGNATURES[at.op];
    if (at.type < HR_BOOL || at.type > HR_DATE) return HR_PROGRAM_BAD_TYPE;
    if (signature->result != 0 && signature->result != at.type) return HR_PROGRAM_BAD_TYPE;
    for (i = 0; i < 3; i++) {
        char kind = signature->arguments[i];
        if (kind == 0) {
            for (; i < 3; i++) if (at.arguments[i] != HR_NO_REGISTER) return HR_PROGRAM_BAD_ARGUMENT;
            break;
        }
        if (at.arguments[i] >= index) return HR_PROGRAM_BAD_ARGUMENT;
        if (!hr_fits_kind(kind, hr_type_at(program, at.arguments[i]), at.type)) return HR_PROGRAM_BAD_TYPE;
    }
    if (at.guard != HR_NO_REGISTER) {
        if (at.guard >= index) return HR_PROGRAM_BAD_ARGUMENT;
        if (hr_type_at(program, at.guard) != HR_BOOL) return HR_PROGRAM_BAD_TYPE;
    }
    return hr_check_operand(program, &at);
}

static inline int hr_makes_text(uint16_t op)
{
    return op == HR_OP_LOWER || op == HR_OP_UPPER || op == HR_OP_CONCAT || op == HR_OP_REPLACE
        || op == HR_OP_INT_TO_TEXT;
}

static inline hr_program_status hr_check_instructions(hr_expression *program)
{
    uint32_t i, makers = 0;
    for (i = 0; i < program->instruction_count; i++) {
        hr_program_status status = hr_check_instruction(program, i);
        if (status != HR_PROGRAM_OK) return status;
        makers += (uint32_t)hr_makes_text(hr_load_u16(program->code + (size_t)i * HR_INSTRUCTION_BYTES));
    }
    if (makers > HR_TEXT_MAKERS_MAX) return HR_PROGRAM_BAD_COUNT;
    if (program->result >= program->instruction_count) return HR_PROGRAM_BAD_RESULT;
    program->result_type = hr_type_at(program, program->result);
    program->block_rows = makers > 0 ? HR_TEXT_BLOCK_ROWS : HR_EXPRESSION_ROWS;
    return HR_PROGRAM_OK;
}

/* Checks everything that running the program relies on. */
static inline hr_program_status hr_expression_open(hr_expression *program, const uint8_t *bytes, size_t length)
{
    uint64_t inputs_bytes, expected;
    uint32_t i;
    if (length < HR_PROGRAM_HEAD + 4 || length > HR_PROGRAM_BYTES_MAX) return HR_PROGRAM_SHORT;
    if (hr_load_u32(bytes) != HR_PROGRAM_MAGIC) return HR_PROGRAM_BAD_MAGIC;
    if (hr_load_u16(bytes + 4) != HR_PROGRAM_LAYOUT || hr_load_u16(bytes + 6) != 0 || hr_load_u16(bytes + 22) != 0)
        return HR_PROGRAM_BAD_LAYOUT;
    if (hr_load_u32(bytes + 8) != length) return HR_PROGRAM_BAD_LENGTH;
    if (hr_load_u32(bytes + length - 4) != hr_crc32c(0, bytes, length - 4)) return HR_PROGRAM_BAD_CHECKSUM;
    program->input_count = hr_load_u16(bytes + 12);
    program->instruction_count = hr_load_u16(bytes + 14);
    program->heap_bytes = hr_load_u32(bytes + 16);
    program->result = hr_load_u16(bytes + 20);
    if (program->input_count > HR_INPUTS_MAX || program->instruction_count == 0
        || program->instruction_count > HR_INSTRUCTIONS_MAX)
        return HR_PROGRAM_BAD_COUNT;
    inputs_bytes = ((uint64_t)program->input_count + 7) / 8 * 8;
    expected = HR_PROGRAM_HEAD + inputs_bytes + (uint64_t)program->instruction_count * HR_INSTRUCTION_BYTES
        + program->heap_bytes + 4;
    if (expected != length) return HR_PROGRAM_BAD_LENGTH;
    program->inputs = bytes + HR_PROGRAM_HEAD;
    program->code = program->inputs + inputs_bytes;
    program->heap = program->code + (size_t)program->instruction_count * HR_INSTRUCTION_BYTES;
    for (i = 0; i < inputs_bytes; i++) {
        uint8_t type = program->inputs[i];
        if (i < program->input_count ? type < HR_BOOL || type > HR_DATE : type != 0) return HR_PROGRAM_BAD_INPUT;
    }
    return hr_check_instructions(program);
}

#endif
