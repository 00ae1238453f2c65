/* HyperLogLog registers with an estimator that needs +, -, *, / and sqrt alone. */
#ifndef HR_STATE_HLL_H
#define HR_STATE_HLL_H

#include <math.h>
#include <stdlib.h>

#include "hr_hash.h"
#include "hr_state_bytes.h"

/* Of a hash, the highest HR_REGISTER_BITS choose the register; the rank is one more than the zeros that lead the next
 * HR_RANK_BITS. A register holds its greatest rank, 0 before the first. */
enum {
    HR_REGISTER_BITS = 11,
    HR_REGISTERS = 1 << HR_REGISTER_BITS,
    HR_RANK_BITS = 31,
    HR_RANK_MAX = HR_RANK_BITS + 1,
    HR_SPARSE_MAX = 512,                      /* registers in use of a list */
    HR_DENSE_BYTES = HR_REGISTERS * 6 / 8
};

typedef struct {
    uint8_t *values;  /* HR_REGISTERS */
    uint32_t used;    /* that are not 0 */
} hr_registers;

static inline void hr_registers_reset(hr_registers *registers)
{
    if (registers->used > 0) memset(registers->values, 0, HR_REGISTERS);
    registers->used = 0;
}

/* Hash of a value: texts by their bytes, floats by 8 bytes with one NaN and one 0, others by the 8 bytes of an i64. */
static inline uint64_t hr_value_hash(uint8_t scalar, const hr_value *value)
{
    uint8_t bytes[8];
    if (hr_scalar_is_text(scalar)) return hr_xxh3_64(value->bytes, value->length);
    if (!hr_scalar_is_float(scalar)) hr_store_u64(bytes, (uint64_t)value->i);
    else hr_store_u64(bytes, value->f != value->f ? HR_NAN_BITS : hr_float_bits(value->f + 0.0));
    return hr_xxh3_64(bytes, 8);
}

static inline void hr_registers_raise(hr_registers *registers, uint32_t index, uint8_t rank)
{
    uint8_t *value = &registers->values[index];
    if (rank <= *value) return;
    registers->used += *value == 0;
    *value = rank;
}

static inline void hr_registers_take(hr_registers *registers, uint64_t hash)
{
    uint64_t rest = hash << HR_REGISTER_BITS | UINT64_C(1) << (63 - HR_RANK_BITS);
    hr_registers_raise(registers, (uint32_t)(hash >> (64 - HR_REGISTER_BITS)), (uint8_t)(__builtin_clzll(rest) + 1));
}

/* ---- encoding: up to HR_SPARSE_MAX registers as u16 (index << 5 | rank - 1) by index, else all with 6 bits each, low
 * bits first; the length tells them apart ---- */

static inline void hr_registers_encode(const hr_registers *registers, hr_sink *sink)
{
    uint32_t i, k;
    if (registers->used > HR_SPARSE_MAX) {
        for (i = 0; i < HR_REGISTERS; i += 4) {
            const uint8_t *v = registers->values + i;
            uint32_t four = v[0] | (uint32_t)v[1] << 6 | (uint32_t)v[2] << 12 | (uint32_t)v[3] << 18;
            hr_put(sink, &four, 3);
        }
        return;
    }
    for (i = 0; i < HR_REGISTERS; i += 8) {
        if (hr_load_u64(registers->values + i) == 0) continue;
        for (k = i; k < i + 8; k++) {
            uint16_t entry = (uint16_t)(k << 5 | (uint32_t)(registers->values[k] - 1));
            if (registers->values[k] > 0) hr_put(sink, &entry, 2);
        }
    }
}

/* Takes in encoded registers; those of a check are NULL. */
static inline int hr_registers_merge_bytes(hr_registers *registers, const uint8_t *bytes, size_t length)
{
    uint32_t i, k, used = 0, last = 0;
    if (length == HR_DENSE_BYTES) {
        for (i = 0; i < HR_REGISTERS; i += 4) {
            const uint8_t *from = bytes + i / 4 * 3;
            uint32_t four = from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16;
            for (k = 0; k < 4; k++, four >>= 6) {
                if ((four & 63) > HR_RANK_MAX) return HR_STATE_CORRUPT;
                used += (four & 63) > 0;
                if (registers != NULL) hr_registers_raise(registers, i + k, (uint8_t)(four & 63));
            }
        }
        return used > HR_SPARSE_MAX ? HR_STATE_OK : HR_STATE_CORRUPT;
    }
    if (length % 2 != 0 || length > 2 * HR_SPARSE_MAX) return HR_STATE_CORRUPT;
    for (i = 0; i < length; i += 2) {
        uint32_t entry = hr_load_u16(bytes + i), index = entry >> 5;
        if (i > 0 && index <= last) return HR_STATE_CORRUPT;
        last = index;
        if (registers != NULL) hr_registers_raise(registers, index, (uint8_t)((entry & 31) + 1));
    }
    return HR_STATE_OK;
}

/* ---- estimate: O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6 ---- */

static inline double hr_hll_sigma(double x)
{
    double y = 1, z = x, before;
    if (x == 1) return HUGE_VAL;
    do {
        x *= x;
        before = z;
        z += x * y;
        y += y;
    } while (z != before);
    return z;
}

static inline double hr_hll_tau(double x)
{
    double y = 1, z = 1 - x, before;
    if (x == 0 || x == 1) return 0;
    do {
        x = sqrt(x);
        before = z;
        y *= 0.5;
        z -= (1 - x) * (1 - x) * y;
    } while (z != before);
    return z / 3;
}

static inline int64_t hr_registers_estimate(const hr_registers *registers)
{
    uint32_t counts[HR_RANK_MAX + 1] = {0}, i;
    double m = HR_REGISTERS, z;
    for (i = 0; i < HR_REGISTERS; i++) counts[registers->values[i]]++;
    z = m * hr_hll_tau(1 - counts[HR_RANK_MAX] / m);
    for (i = HR_RANK_BITS; i >= 1; i--) z = 0.5 * (z + counts[i]);
    z += m * hr_hll_sigma(counts[0] / m);
    /* 1 / (2 ln 2), and the nearest whole number. */
    return (int64_t)floor(0x1.71547652b82fep-1 * m * m / z + 0.5);
}

#endif
