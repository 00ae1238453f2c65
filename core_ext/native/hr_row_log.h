/* Records of a row log: what one write committed, whole or not at all.
 *
 *   0  u32  magic "HRR1"          16  i64  epoch of the shard
 *   4  u32  size, all bytes       24  i64  offset of the first row
 *   8  u32  CRC32C of [12, size)  32  i64  first offset behind the record
 *  12  u32  row count             40  per row: u16 key length, u16 zero, u32 row length, storage key, row
 *
 * A record without rows moves the position alone. docs/decisions/0019 gives the reasons. */
#ifndef HR_ROW_LOG_H
#define HR_ROW_LOG_H

#include "hr_hash.h"
#include "hr_layout.h"

enum {
    HR_LOG_MAGIC = 0x31525248,
    HR_LOG_SIZE = 4,
    HR_LOG_CRC = 8,
    HR_LOG_ROW_COUNT = 12,
    HR_LOG_EPOCH = 16,
    HR_LOG_FIRST = 24,
    HR_LOG_NEXT = 32,
    HR_LOG_HEAD_BYTES = 40,
    HR_LOG_ENTRY_BYTES = 8,
    HR_LOG_STORAGE_KEY_MIN = HR_ENTITY_ID_BYTES + 4 + HR_VIEW_ID_BYTES,
    HR_LOG_RECORD_BYTES_MAX = 128 << 20
};

enum { HR_LOG_OK = 0, HR_LOG_TORN, HR_LOG_BAD_MAGIC, HR_LOG_BAD_SIZE, HR_LOG_BAD_CHECKSUM, HR_LOG_BAD_ENTRY };

static inline const char *hr_log_fault(int status)
{
    switch (status) {
    case HR_LOG_OK: return "record is whole";
    case HR_LOG_TORN: return "record is cut off";
    case HR_LOG_BAD_MAGIC: return "no record begins here";
    case HR_LOG_BAD_SIZE: return "record has an impossible size";
    case HR_LOG_BAD_CHECKSUM: return "checksum of the record differs";
    default: return "a row of the record does not fit into it";
    }
}

/* Size of the whole record at `at`, 0 with a status where there is none. */
static inline int64_t hr_log_record(const uint8_t *data, int64_t length, int64_t at, int *status)
{
    int64_t size;
    *status = HR_LOG_TORN;
    if (length - at < HR_LOG_HEAD_BYTES) return 0;
    *status = HR_LOG_BAD_MAGIC;
    if (hr_load_u32(data + at) != HR_LOG_MAGIC) return 0;
    size = hr_load_u32(data + at + HR_LOG_SIZE);
    *status = HR_LOG_BAD_SIZE;
    if (size < HR_LOG_HEAD_BYTES || size > HR_LOG_RECORD_BYTES_MAX) return 0;
    *status = HR_LOG_TORN;
    if (size > length - at) return 0;
    *status = HR_LOG_BAD_CHECKSUM;
    if (hr_crc32c(0, data + at + HR_LOG_ROW_COUNT, (size_t)(size - HR_LOG_ROW_COUNT)) !=
        hr_load_u32(data + at + HR_LOG_CRC))
        return 0;
    *status = HR_LOG_OK;
    return size;
}

/* Entries of a whole record of `size` bytes: places from the start of `data`. Arrays hold row count elements. */
static inline int hr_log_entries(
    const uint8_t *data, int64_t at, int64_t size, int64_t *key_starts, int64_t *row_starts, int64_t *row_ends)
{
    int64_t end = at + size, place = at + HR_LOG_HEAD_BYTES, i, count = hr_load_u32(data + at + HR_LOG_ROW_COUNT);
    for (i = 0; i < count; i++) {
        int64_t key_bytes, row_bytes;
        if (end - place < HR_LOG_ENTRY_BYTES) return HR_LOG_BAD_ENTRY;
        key_bytes = hr_load_u16(data + place);
        row_bytes = hr_load_u32(data + place + 4);
        place += HR_LOG_ENTRY_BYTES;
        if (key_bytes < HR_LOG_STORAGE_KEY_MIN || key_bytes > end - place) return HR_LOG_BAD_ENTRY;
        if (row_bytes > end - place - key_bytes) return HR_LOG_BAD_ENTRY;
        key_starts[i] = place;
        row_starts[i] = place + key_bytes;
        row_ends[i] = place += key_bytes + row_bytes;
    }
    return place == end ? HR_LOG_OK : HR_LOG_BAD_ENTRY;
}

#endif
