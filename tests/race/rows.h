/* Rows that tell which entity and version they are of, and the count of what readers saw wrong. */
#ifndef RACE_ROWS_H
#define RACE_ROWS_H

#include <stdio.h>

#include "hr_table.h"

enum { PREFIX_BYTES = 13, WORDS_MAX = 60 };

static uint64_t faults;   /* atomic */

typedef struct {
    uint64_t state;
    uint32_t number;
} worker;

static uint32_t draw(worker *self, uint32_t below)
{
    self->state ^= self->state << 13, self->state ^= self->state >> 7, self->state ^= self->state << 17;
    return (uint32_t)(self->state >> 11) % below;
}

static void count(uint64_t *counter, uint64_t by) { __atomic_add_fetch(counter, by, __ATOMIC_RELAXED); }

static void fault(const char *what, uint32_t entity, uint32_t view, uint32_t found, uint32_t wanted)
{
    if (__atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED) < 5)
        fprintf(stderr, "%s: entity %u view %u version %u, wanted %u\n", what, entity, view, found, wanted);
}

static void prefix_of(uint32_t entity, uint8_t *prefix)
{
    hr_store_u32_be(prefix, 1);
    prefix[4] = HR_KEY_I64;
    hr_store_u64_be(prefix + 5, entity ^ (1ULL << 63));
}

/* Rows of a version differ in every word and, from version to version, in length. */
static uint32_t make_row(uint8_t *row, uint32_t entity, uint32_t view, uint32_t version)
{
    uint32_t words = 8 + (entity + version) % (WORDS_MAX - 8), bytes = HR_ROW_BITMAP + 8 * words + 4;
    memset(row, 0, HR_ROW_BITMAP);
    row[0] = HR_ROW_MAGIC, row[1] = HR_ROW_LAYOUT;
    hr_store_u32(row + HR_ROW_LENGTH, bytes);
    hr_store_u32(row + HR_ROW_SCHEMA_ID, view);
    hr_store_u64(row + HR_ROW_EVENT_TIME, version);
    for (uint32_t i = 0; i < words; i++) hr_store_u64(row + HR_ROW_BITMAP + 8 * i, (uint64_t)entity << 32 | version);
    hr_store_u32(row + bytes - 4, hr_crc32c(0, row, bytes - 4));
    return bytes;
}

static void check_row(const uint8_t *row, uint32_t entity, uint32_t view, uint32_t least)
{
    uint32_t bytes = hr_load_u32(row + HR_ROW_LENGTH), version;
    if (bytes > HR_ROW_BITMAP + 8 * WORDS_MAX + 4 || hr_crc32c(0, row, bytes - 4) != hr_load_u32(row + bytes - 4)) {
        fault("a torn row", entity, view, bytes, least);
        return;
    }
    version = (uint32_t)hr_load_u64(row + HR_ROW_EVENT_TIME);
    if (hr_load_u64(row + HR_ROW_BITMAP) != ((uint64_t)entity << 32 | version)
        || hr_load_u32(row + HR_ROW_SCHEMA_ID) != view)
        fault("another row", entity, view, version, least);
    if (version < least) fault("an old row", entity, view, version, least);
}

#endif
