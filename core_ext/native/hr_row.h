/* Checks that a row makes before anything else reads it. After both, no read of a value can leave the row. */
#ifndef HR_ROW_H
#define HR_ROW_H

#include "hr_hash.h"

enum {
    HR_ROW_OK = 0,
    HR_ROW_BAD_SIZE,
    HR_ROW_BAD_MAGIC,
    HR_ROW_BAD_LAYOUT,
    HR_ROW_BAD_LENGTH,
    HR_ROW_BAD_CHECKSUM,
    HR_ROW_BAD_FLAGS,
    HR_ROW_BAD_RESERVED,
    HR_ROW_BAD_HEAP,
    HR_ROW_BAD_TILES,
    HR_ROW_BAD_TOMBSTONE,
    HR_ROW_BAD_SCHEMA,
    HR_ROW_BAD_FIXED_PART,
    HR_ROW_BAD_NULLS,
    HR_ROW_BAD_VALUE,
    HR_ROW_BAD_LIST
};

static inline const char *hr_row_fault(int status)
{
    switch (status) {
    case HR_ROW_OK: return "row is whole";
    case HR_ROW_BAD_SIZE: return "size is below a header and checksum, above 1 MiB or no multiple of 4";
    case HR_ROW_BAD_MAGIC: return "first byte is not the row magic 0xD7";
    case HR_ROW_BAD_LAYOUT: return "layout is unknown: written by a newer version";
    case HR_ROW_BAD_LENGTH: return "length field differs from the size";
    case HR_ROW_BAD_CHECKSUM: return "checksum differs";
    case HR_ROW_BAD_FLAGS: return "unknown flags";
    case HR_ROW_BAD_RESERVED: return "reserved field is not 0";
    case HR_ROW_BAD_HEAP: return "heap start lies outside the row";
    case HR_ROW_BAD_TILES: return "tile map start lies outside the row or disagrees with the flags";
    case HR_ROW_BAD_TOMBSTONE: return "tombstone carries more than a header";
    case HR_ROW_BAD_SCHEMA: return "schema id differs";
    case HR_ROW_BAD_FIXED_PART: return "heap does not start behind the columns of the schema";
    case HR_ROW_BAD_NULLS: return "null bitmap disagrees with the flags or the column count";
    case HR_ROW_BAD_VALUE: return "a variable value lies outside the heap";
    case HR_ROW_BAD_LIST: return "a list of strings or bytes is malformed";
    default: return "unknown fault";
    }
}

/* Whether a column holds no value; the row has columns. */
static inline int hr_is_null(const uint8_t *row, uint32_t index)
{
    return row[HR_ROW_BITMAP + (index >> 3)] >> (index & 7) & 1;
}

/* End of the heap: the tile map where there is one, else the checksum. */
static inline uint32_t hr_row_heap_end(const uint8_t *row)
{
    uint32_t tiles = hr_load_u32(row + HR_ROW_TILES);
    return tiles != 0 ? tiles : hr_load_u32(row + HR_ROW_LENGTH) - HR_ROW_CRC_BYTES;
}

/* Header and checksum of `length` bytes. HR_ROW_OK or the first check that failed. */
static inline int hr_row_check(const uint8_t *row, size_t length)
{
    uint32_t heap, tiles, end;
    uint16_t flags;
    if (length < HR_ROW_BYTES_MIN || length > HR_ROW_BYTES_MAX || length % 4 != 0) return HR_ROW_BAD_SIZE;
    if (row[0] != HR_ROW_MAGIC) return HR_ROW_BAD_MAGIC;
    if (row[1] != HR_ROW_LAYOUT) return HR_ROW_BAD_LAYOUT;
    if (hr_load_u32(row + HR_ROW_LENGTH) != length) return HR_ROW_BAD_LENGTH;
    end = (uint32_t)length - HR_ROW_CRC_BYTES;
    if (hr_crc32c(0, row, end) != hr_load_u32(row + end)) return HR_ROW_BAD_CHECKSUM;
    flags = hr_load_u16(row + HR_ROW_FLAGS);
    if (flags & ~HR_FLAGS_KNOWN) return HR_ROW_BAD_FLAGS;
    if (hr_load_u32(row + HR_ROW_RESERVED) != 0) return HR_ROW_BAD_RESERVED;
    heap = hr_load_u32(row + HR_ROW_HEAP);
    if (heap < HR_ROW_BITMAP || heap > end) return HR_ROW_BAD_HEAP;
    tiles = hr_load_u32(row + HR_ROW_TILES);
    if ((tiles != 0) != ((flags & HR_FLAG_HAS_TILES) != 0)) return HR_ROW_BAD_TILES;
    if (tiles != 0 && (tiles < heap || tiles > end)) return HR_ROW_BAD_TILES;
    if ((flags & HR_FLAG_TOMBSTONE) && (flags != HR_FLAG_TOMBSTONE || length != HR_ROW_BYTES_MIN))
        return HR_ROW_BAD_TOMBSTONE;
    return HR_ROW_OK;
}

/* The flag HAS_NULLS and the bitmap must agree, since readers skip the bitmap without the flag. */
static inline int hr_row_check_nulls(const uint8_t *row, uint32_t column_count)
{
    uint32_t i, bitmap_bytes = (column_count + 63) / 64 * 8;
    uint64_t any = 0, word;
    for (i = 0; i < bitmap_bytes; i += 8) {
        word = hr_load_u64(row + HR_ROW_BITMAP + i);
        any |= word;
        if (i + 8 == bitmap_bytes && column_count % 64 != 0 && word >> column_count % 64 != 0) return HR_ROW_BAD_NULLS;
    }
    if ((any != 0) != ((hr_load_u16(row + HR_ROW_FLAGS) & HR_FLAG_HAS_NULLS) != 0)) return HR_ROW_BAD_NULLS;
    return HR_ROW_OK;
}

/* A stored list of STRING or BYTES: u32 count, count u32 end positions ascending, the bytes. */
static inline int hr_row_check_parts(const uint8_t *value, uint32_t length)
{
    uint32_t i, count, end, last = 0;
    if (length < 4) return HR_ROW_BAD_LIST;
    count = hr_load_u32(value);
    if (count == 0 || count > (length - 4) / 4) return HR_ROW_BAD_LIST;
    for (i = 0; i < count; i++) {
        end = hr_load_u32(value + 4 + 4 * (size_t)i);
        if (end < last) return HR_ROW_BAD_LIST;
        last = end;
    }
    return last == length - 4 - 4 * count ? HR_ROW_OK : HR_ROW_BAD_LIST;
}

/* Columns of a row that passed hr_row_check. A tombstone has none; its schema id must match all the same. */
static inline int hr_row_check_schema(
    const uint8_t *row, size_t length, const hr_column *columns, uint32_t column_count, uint32_t schema_id,
    uint32_t fixed_bytes)
{
    uint32_t i, start, bytes, heap_bytes;
    int status;
    if (hr_load_u32(row + HR_ROW_SCHEMA_ID) != schema_id) return HR_ROW_BAD_SCHEMA;
    if (hr_load_u16(row + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE) return HR_ROW_OK;
    if (hr_load_u32(row + HR_ROW_HEAP) != fixed_bytes || length < (size_t)fixed_bytes + HR_ROW_CRC_BYTES)
        return HR_ROW_BAD_FIXED_PART;
    status = hr_row_check_nulls(row, column_count);
    if (status != HR_ROW_OK) return status;
    heap_bytes = hr_row_heap_end(row) - fixed_bytes;
    for (i = 0; i < column_count; i++) {
        if (!columns[i].is_variable) continue;
        start = hr_load_u32(row + columns[i].offset);
        bytes = hr_load_u32(row + columns[i].offset + 4);
        if (bytes == 0 && start == 0) continue;
        if (bytes == 0 || start > heap_bytes || bytes > heap_bytes - start) return HR_ROW_BAD_VALUE;
        if (columns[i].shape != HR_VARIABLE) continue;
        if (columns[i].element_bytes == 0) {
            status = hr_row_check_parts(row + fixed_bytes + start, bytes);
            if (status != HR_ROW_OK) return status;
        } else if (bytes % columns[i].element_bytes != 0 || start % 8 != 0) {
            return HR_ROW_BAD_VALUE;
        }
    }
    return HR_ROW_OK;
}

#endif
