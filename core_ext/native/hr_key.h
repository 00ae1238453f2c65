/* Canonical key bytes (docs/decisions/0001): written, checked, and made from Arrow columns. */
#ifndef HR_KEY_H
#define HR_KEY_H

#include "hr_arrow.h"
#include "hr_hash.h"

enum {
    HR_KEY_I64_BYTES = 9,
    HR_KEY_PART_HEAD_BYTES = 3,  /* tag and u16 length of a STRING or BYTES part */
    HR_KEY_BYTES_MIN = 4         /* a one-byte string */
};

static inline uint8_t *hr_key_put_i64(uint8_t *to, int64_t value)
{
    to[0] = HR_KEY_I64;
    hr_store_u64_be(to + 1, (uint64_t)value ^ 1ULL << 63);
    return to + HR_KEY_I64_BYTES;
}

static inline uint8_t *hr_key_put_bytes(uint8_t *to, uint8_t tag, const uint8_t *data, uint16_t length)
{
    to[0] = tag;
    hr_store_u16(to + 1, __builtin_bswap16(length));
    memcpy(to + HR_KEY_PART_HEAD_BYTES, data, length);
    return to + HR_KEY_PART_HEAD_BYTES + length;
}

/* One part of a key; data points into the key for STRING and BYTES. */
typedef struct {
    uint8_t tag;
    uint16_t length;
    int64_t integer;
    const uint8_t *data;
} hr_key_part;

/* Reads the part at `at`. Returns the position behind it, or 0 when no whole part is there. */
static inline size_t hr_key_next(const uint8_t *key, size_t length, size_t at, hr_key_part *part)
{
    if (at >= length || length - at < HR_KEY_BYTES_MIN) return 0;
    part->tag = key[at];
    if (part->tag == HR_KEY_I64) {
        if (length - at < HR_KEY_I64_BYTES) return 0;
        part->integer = (int64_t)(__builtin_bswap64(hr_load_u64(key + at + 1)) ^ 1ULL << 63);
        return at + HR_KEY_I64_BYTES;
    }
    if (part->tag != HR_KEY_STRING && part->tag != HR_KEY_BYTES) return 0;
    part->length = __builtin_bswap16(hr_load_u16(key + at + 1));
    part->data = key + at + HR_KEY_PART_HEAD_BYTES;
    if (part->length == 0 || part->length > length - at - HR_KEY_PART_HEAD_BYTES) return 0;
    if (part->tag == HR_KEY_STRING && !hr_is_utf8(part->data, part->length)) return 0;
    return at + HR_KEY_PART_HEAD_BYTES + part->length;
}

static inline uint16_t hr_key_slot(const uint8_t *key, size_t length)
{
    return (uint16_t)(hr_xxh3_64(key, length) % HR_SLOT_COUNT);
}

/* Keys of many rows. starts has row_count + 1 entries; key i is bytes[starts[i], starts[i + 1]). */
typedef struct {
    const hr_column *columns;
    const hr_arrow *arrays;
    uint32_t part_count;
    int64_t row_count;
    uint64_t *starts;
    uint8_t *bytes;
    uint16_t *slots;
} hr_key_batch;

/* Checks the buffers of all columns. Comes before any memory is taken for what they claim to hold. */
static inline hr_arrow_fault hr_key_check(const hr_key_batch *batch)
{
    hr_arrow_fault fault = {HR_ARROW_OK, 0, -1};
    for (fault.column = 0; fault.column < batch->part_count; fault.column++) {
        const hr_column *column = &batch->columns[fault.column];
        fault.status = hr_arrow_check(&batch->arrays[fault.column], column, batch->row_count, &fault.row);
        if (fault.status != HR_ARROW_OK) return fault;
    }
    return fault;
}

/* Fills starts with each key's end, from zeros. */
static inline hr_arrow_fault hr_key_measure(hr_key_batch *batch)
{
    int64_t c, i, bytes;
    for (c = 0; c < batch->part_count; c++) {
        const hr_arrow *array = &batch->arrays[c];
        for (i = 0; i < batch->row_count; i++) {
            if (hr_arrow_is_null(array, i)) return (hr_arrow_fault){HR_ARROW_NULL_PART, c, i};
            bytes = HR_KEY_I64_BYTES;
            if (batch->columns[c].is_variable) {
                bytes = (int64_t)hr_arrow_start(array, i + 1) - hr_arrow_start(array, i);
                if (bytes == 0) return (hr_arrow_fault){HR_ARROW_EMPTY_PART, c, i};
                bytes += HR_KEY_PART_HEAD_BYTES;
            }
            if (bytes > HR_KEY_BYTES_MAX - (int64_t)batch->starts[i + 1])
                return (hr_arrow_fault){HR_ARROW_KEY_TOO_LONG, c, i};
            batch->starts[i + 1] += (uint64_t)bytes;
        }
    }
    for (i = 0; i < batch->row_count; i++) batch->starts[i + 1] += batch->starts[i];
    return (hr_arrow_fault){HR_ARROW_OK, 0, -1};
}

/* Writes measured keys and their slots. */
static inline void hr_key_write(const hr_key_batch *batch)
{
    int64_t c, i;
    for (i = 0; i < batch->row_count; i++) {
        uint8_t *key = batch->bytes + batch->starts[i], *to = key;
        for (c = 0; c < batch->part_count; c++) {
            const hr_arrow *array = &batch->arrays[c];
            if (batch->columns[c].is_variable) {
                int32_t start = hr_arrow_start(array, i), end = hr_arrow_start(array, i + 1);
                uint8_t tag = batch->columns[c].scalar == HR_STRING ? HR_KEY_STRING : HR_KEY_BYTES;
                to = hr_key_put_bytes(to, tag, array->values + start, (uint16_t)(end - start));
            } else {
                to = hr_key_put_i64(to, hr_load_i64(array->values + 8 * (array->offset + i)));
            }
        }
        batch->slots[i] = hr_key_slot(key, (size_t)(to - key));
    }
}

#endif
