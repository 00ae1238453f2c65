/* The physical layouts that rows, keys and plans share; docs/decisions/0001 to 0004 give the reasons. */
#ifndef HR_LAYOUT_H
#define HR_LAYOUT_H

#include <stdint.h>
#include <string.h>

/* All stored and sent integers are little-endian; key bytes alone are big-endian so that they sort. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Headrace cores are written for little-endian machines"
#endif

/* Row, layout 1:
 *   0  u8   magic 0xD7            32  i64  available time, us
 *   1  u8   layout 1              40  i64  offset            (source order)
 *   2  u16  flags                 48  i32  partition         (source order)
 *   4  u32  length, all bytes     52  u32  heap start, from row start
 *   8  u32  schema id             56  u32  tile map start, from row start; 0 = none
 *  12  u32  source id             60  u32  reserved, 0
 *  16  i64  event time, us        64  null bitmap, bit i of byte i/8 = column i is null; padded to 8 bytes
 *  24  i64  write time, us            fixed-width columns, each aligned to its element, in schema order
 *                                     heap: variable-size values; then the tile map
 *  length-4   u32 CRC32C of bytes [0, length-4)
 * The length is a multiple of 4. A STRING, BYTES or variable-list column holds (u32 start from heap start,
 * u32 byte length) in its fixed slot. Null columns hold zeros. */
enum {
    HR_ROW_MAGIC = 0xD7,
    HR_ROW_LAYOUT = 1,
    HR_ROW_FLAGS = 2,
    HR_ROW_LENGTH = 4,
    HR_ROW_SCHEMA_ID = 8,
    HR_ROW_SOURCE_ID = 12,
    HR_ROW_EVENT_TIME = 16,
    HR_ROW_WRITE_TIME = 24,
    HR_ROW_AVAILABLE_TIME = 32,
    HR_ROW_OFFSET = 40,
    HR_ROW_PARTITION = 48,
    HR_ROW_HEAP = 52,
    HR_ROW_TILES = 56,
    HR_ROW_RESERVED = 60,
    HR_ROW_BITMAP = 64,
    HR_ROW_CRC_BYTES = 4,
    HR_ROW_BYTES_MIN = 68,         /* a tombstone: header and checksum */
    HR_ROW_BYTES_MAX = 1 << 20     /* checked at registration and at encode */
};

enum {
    HR_FLAG_TOMBSTONE = 1,  /* erased; no columns follow */
    HR_FLAG_HAS_NULLS = 2,  /* some bitmap bit is set: readers may skip the bitmap without it */
    HR_FLAG_HAS_TILES = 4,  /* windowed row: tile map start is set */
    HR_FLAGS_KNOWN = 7
};

/* Element types, as in headrace/types.py. */
enum {
    HR_BOOL = 1, HR_I32 = 2, HR_I64 = 3, HR_F32 = 4, HR_F64 = 5,
    HR_STRING = 6, HR_BYTES = 7, HR_TIMESTAMP_US = 8, HR_DATE = 9
};
enum { HR_SINGLE = 0, HR_FIXED = 1, HR_VARIABLE = 2 };

/* One column of a schema. */
typedef struct {
    uint8_t scalar;          /* HR_BOOL .. HR_DATE */
    uint8_t shape;           /* HR_SINGLE, HR_FIXED, HR_VARIABLE */
    uint8_t element_bytes;   /* 0 for STRING and BYTES */
    uint8_t is_variable;     /* the fixed slot holds (start, length) */
    uint32_t list_size;      /* elements of a fixed list, else 0 */
    uint32_t slot_bytes;     /* bytes in the fixed section: 8 when variable */
    uint32_t offset;         /* of the fixed slot, from row start */
} hr_column;

/* Key parts: i64 = 0x01, 8 bytes big-endian with the sign bit flipped; STRING = 0x02 and BYTES = 0x03,
 * u16 big-endian length, the bytes. Entity key = parts in join-key order.
 * Entity prefix = u32 big-endian entity id, entity key. Storage key = entity prefix, u32 big-endian view id. */
enum {
    HR_KEY_I64 = 1, HR_KEY_STRING = 2, HR_KEY_BYTES = 3,
    HR_KEY_PARTS_MAX = 8,
    HR_KEY_BYTES_MAX = 1024,       /* of an entity key; keeps storage keys inside one RocksDB block */
    HR_ENTITY_ID_BYTES = 4,
    HR_VIEW_ID_BYTES = 4,
    HR_SLOT_COUNT = 1024
};

static inline uint16_t hr_load_u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t hr_load_u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t hr_load_u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline int32_t hr_load_i32(const uint8_t *p) { int32_t v; memcpy(&v, p, 4); return v; }
static inline int64_t hr_load_i64(const uint8_t *p) { int64_t v; memcpy(&v, p, 8); return v; }
static inline void hr_store_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void hr_store_u32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void hr_store_u64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }
static inline void hr_store_u32_be(uint8_t *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void hr_store_u64_be(uint8_t *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }
static inline uint32_t hr_load_u32_be(const uint8_t *p) { return __builtin_bswap32(hr_load_u32(p)); }

#endif
