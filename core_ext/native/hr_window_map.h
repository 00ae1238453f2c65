/* Plans of windows and tile maps; docs/decisions/0013-tiles.md has the reasons, core_ext/window_plan.py makes plans. */
#ifndef HR_WINDOW_MAP_H
#define HR_WINDOW_MAP_H

#include <stdlib.h>

#include "hr_hash.h"
#include "hr_state.h"

/* Tile map, layout 1. A full map is what a row stores; a delta is what some events add to it.
 *   0  u8   magic 0xD8            16  i64  newest event time, us; INT64_MIN = none
 *   1  u8   layout 1              24  i64  cut: batch owns the tiles that end at or before it; INT64_MIN = none
 *   2  u8   1 full, 2 delta       32  i64  covered offset of the batch; INT64_MIN = none
 *   3  u8   0                     40  u32  section count, ladders times their levels
 *   4  u32  length, all bytes     44  u32  reserved, 0
 *   8  u64  check of the plan     48  per section: u32 tile count, u32 state bytes
 * Then per section, ladder by ladder and level by level: its tiles by rising k, then the states of these tiles.
 * Tile: i64 k, i64 covered offset, u32 events (bit 31: of batch origin), u32 end of each state from the first state byte
 * of the section. Zeros pad the length to a multiple of 4, of which the last 4 bytes are the CRC32C of the others.
 * Tile k of size s holds the events of (k s, (k + 1) s]. */
enum {
    HR_MAP_MAGIC = 0xD8,
    HR_MAP_LAYOUT = 1,
    HR_MAP_KIND = 2,
    HR_MAP_LENGTH = 4,
    HR_MAP_CHECK = 8,
    HR_MAP_NEWEST = 16,
    HR_MAP_CUT = 24,
    HR_MAP_COVERED = 32,
    HR_MAP_SECTIONS = 40,
    HR_MAP_RESERVED = 44,
    HR_MAP_TABLE = 48,
    HR_MAP_CRC_BYTES = 4,
    HR_MAP_BYTES_MAX = 1 << 26,    /* of a delta of many events; a row caps what is stored */
    HR_TILE_COVERED = 8,
    HR_TILE_EVENTS = 16,
    HR_TILE_ENDS = 20,
    HR_WINDOW_LEVELS_MAX = 32,
    HR_COLUMN_EVENT_TIME = -2      /* of a state: the times of the events themselves */
};
enum { HR_MAP_FULL = 1, HR_MAP_DELTA = 2 };

#define HR_TILE_BATCH 0x80000000U
#define HR_TILE_EVENTS_MAX 0x7FFFFFFFU
#define HR_TIME_NONE INT64_MIN
#define HR_TIME_MAX_US ((int64_t)1 << 60)

typedef enum {
    HR_WINDOW_OK = 0,
    HR_WINDOW_NO_MEMORY,
    HR_WINDOW_BAD_SIZE,
    HR_WINDOW_BAD_MAGIC,
    HR_WINDOW_BAD_LAYOUT,
    HR_WINDOW_BAD_LENGTH,
    HR_WINDOW_OTHER_PLAN,
    HR_WINDOW_BAD_CHECKSUM,
    HR_WINDOW_BAD_KIND,
    HR_WINDOW_BAD_SECTIONS,
    HR_WINDOW_BAD_TILES,
    HR_WINDOW_BAD_STATE,
    HR_WINDOW_BAD_HEAD,
    HR_WINDOW_BAD_TIME,     /* an event or read beyond HR_TIME_MAX_US */
    HR_WINDOW_TOO_LARGE
} hr_window_status;

typedef struct {
    hr_state_spec spec;
    int32_t column, column2;  /* of the inputs, -1 for none, HR_COLUMN_EVENT_TIME */
} hr_window_state;

typedef struct {
    uint32_t level_count, first_state, state_count, first_section, entry_bytes;
    int64_t sizes[HR_WINDOW_LEVELS_MAX], keeps[HR_WINDOW_LEVELS_MAX];
} hr_window_ladder;

/* One window over one ladder; its features stand in uses[first_use, first_use + use_count), equal states together.
 * With a gap it is a session, whose ladder ends with the times of first and last event: hr_window_session.h. */
typedef struct {
    uint32_t ladder, level, first_use, use_count;
    int64_t window_us, hop_us, gap_us;
} hr_window_span;

typedef struct {
    int aggregate;
    int64_t parameter;
    uint32_t state, span;
    uint8_t scalar;           /* of the result's elements */
    uint8_t is_list;
} hr_window_feature;

typedef struct {
    uint64_t check;
    uint32_t state_count, ladder_count, span_count, feature_count, section_count;
    hr_window_state *states;
    hr_window_ladder *ladders;
    hr_window_span *spans;
    hr_window_feature *features;
    uint32_t *uses;
} hr_window_plan;

/* ---- times and tiles ---- */

static inline int64_t hr_later(int64_t a, int64_t b) { return a > b ? a : b; }

static inline int64_t hr_floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static inline int64_t hr_floor_to(int64_t a, int64_t size) { return hr_floor_div(a, size) * size; }

static inline int64_t hr_window_start(const hr_window_span *span, int64_t read_us)
{
    return hr_floor_to(read_us - span->window_us, span->hop_us);
}

static inline int64_t hr_tile_of(int64_t time_us, int64_t size) { return hr_floor_div(time_us - 1, size); }

static inline int hr_time_fits(int64_t time_us) { return time_us >= -HR_TIME_MAX_US && time_us <= HR_TIME_MAX_US; }

/* Start of the oldest tile of a level that a read can need, one finest tile before the newest event or later: reads on
 * other clocks than the events' own are then served as well. */
static inline int64_t hr_kept_from(const hr_window_ladder *ladder, uint32_t level, int64_t newest_us)
{
    uint32_t above = level + 1 < ladder->level_count ? level + 1 : level;
    if (newest_us == HR_TIME_NONE) return HR_TIME_NONE;
    return hr_floor_to(newest_us - ladder->keeps[level] - ladder->sizes[0], ladder->sizes[above]);
}

/* ---- maps seen through checks ---- */

/* The tiles of one level: `count` entries, then `heap_bytes` of states. */
typedef struct {
    const uint8_t *entries, *heap;
    uint32_t count, heap_bytes, entry_bytes, state_count;
} hr_window_section;

typedef struct {
    int64_t newest, cut, covered;
    uint8_t kind;
    hr_window_section *sections;  /* plan->section_count of them, owned by the caller */
} hr_window_map;

/* One tile; `ends` are state_count u32, which hr_window_tile_at has found rising from `start` within the heap. */
typedef struct {
    int64_t k, covered;
    uint32_t events, start, end;
    const uint8_t *ends;
} hr_window_tile;

/* Opens a map without reading its tiles; NULL bytes are the empty full map. */
static inline int hr_window_open(
    const hr_window_plan *plan, const uint8_t *bytes, size_t length, hr_window_map *map)
{
    uint32_t l, level, s = 0;
    uint64_t at = HR_MAP_TABLE + 8 * (uint64_t)plan->section_count, limit;
    if (bytes == NULL) {
        memset(map->sections, 0, plan->section_count * sizeof(*map->sections));
        map->newest = map->cut = map->covered = HR_TIME_NONE, map->kind = HR_MAP_FULL;
        return HR_WINDOW_OK;
    }
    if (length < at + HR_MAP_CRC_BYTES || length > HR_MAP_BYTES_MAX || length % 4 != 0) return HR_WINDOW_BAD_SIZE;
    if (bytes[0] != HR_MAP_MAGIC) return HR_WINDOW_BAD_MAGIC;
    if (bytes[1] != HR_MAP_LAYOUT) return HR_WINDOW_BAD_LAYOUT;
    if (hr_load_u32(bytes + HR_MAP_LENGTH) != length) return HR_WINDOW_BAD_LENGTH;
    if (hr_load_u64(bytes + HR_MAP_CHECK) != plan->check) return HR_WINDOW_OTHER_PLAN;
    map->kind = bytes[HR_MAP_KIND];
    if ((map->kind != HR_MAP_FULL && map->kind != HR_MAP_DELTA) || bytes[3] != 0) return HR_WINDOW_BAD_KIND;
    if (hr_load_u32(bytes + HR_MAP_SECTIONS) != plan->section_count || hr_load_u32(bytes + HR_MAP_RESERVED) != 0)
        return HR_WINDOW_BAD_SECTIONS;
    map->newest = hr_load_i64(bytes + HR_MAP_NEWEST);
    map->cut = hr_load_i64(bytes + HR_MAP_CUT);
    map->covered = hr_load_i64(bytes + HR_MAP_COVERED);
    if (map->newest != HR_TIME_NONE && !hr_time_fits(map->newest)) return HR_WINDOW_BAD_HEAD;
    if (map->cut != HR_TIME_NONE && !hr_time_fits(map->cut)) return HR_WINDOW_BAD_HEAD;
    limit = length - HR_MAP_CRC_BYTES;
    for (l = 0; l < plan->ladder_count; l++) {
        for (level = 0; level < plan->ladders[l].level_count; level++, s++) {
            hr_window_section *section = &map->sections[s];
            section->count = hr_load_u32(bytes + HR_MAP_TABLE + 8 * (size_t)s);
            section->heap_bytes = hr_load_u32(bytes + HR_MAP_TABLE + 8 * (size_t)s + 4);
            section->entry_bytes = plan->ladders[l].entry_bytes;
            section->state_count = plan->ladders[l].state_count;
            section->entries = bytes + at;
            at += (uint64_t)section->count * section->entry_bytes;
            if (at > limit) return HR_WINDOW_BAD_SECTIONS;
            section->heap = bytes + at;
            at += section->heap_bytes;
            if (at > limit) return HR_WINDOW_BAD_SECTIONS;
        }
    }
    return limit - at < 4 ? HR_WINDOW_OK : HR_WINDOW_BAD_SECTIONS;
}

static inline int64_t hr_window_k(const hr_window_section *section, uint32_t i)
{
    return hr_load_i64(section->entries + (size_t)i * section->entry_bytes);
}

static inline uint32_t hr_tile_end(const hr_window_tile *tile, uint32_t state)
{
    return hr_load_u32(tile->ends + 4 * (size_t)state);
}

static inline uint32_t hr_tile_begin(const hr_window_tile *tile, uint32_t state)
{
    return state == 0 ? tile->start : hr_tile_end(tile, state - 1);
}

/* Tile i < count, its bounds checked. */
static inline int hr_window_tile_at(const hr_window_section *section, uint32_t i, hr_window_tile *tile)
{
    const uint8_t *entry = section->entries + (size_t)i * section->entry_bytes;
    uint32_t n, at, end;
    tile->k = hr_load_i64(entry);
    tile->covered = hr_load_i64(entry + HR_TILE_COVERED);
    tile->events = hr_load_u32(entry + HR_TILE_EVENTS);
    tile->ends = entry + HR_TILE_ENDS;
    tile->start = i == 0 ? 0 : hr_load_u32(entry - 4);
    for (at = tile->start, n = 0; n < section->state_count; n++, at = end) {
        end = hr_load_u32(tile->ends + 4 * (size_t)n);
        if (end < at || end > section->heap_bytes) return HR_WINDOW_BAD_TILES;
    }
    tile->end = at;
    return HR_WINDOW_OK;
}

/* First tile with a number of at least k, or count. */
static inline uint32_t hr_window_lower_bound(const hr_window_section *section, int64_t k)
{
    uint32_t first = 0, count = section->count;
    while (count > 0) {
        uint32_t half = count / 2;
        if (hr_window_k(section, first + half) < k) first += half + 1, count -= half + 1;
        else count = half;
    }
    return first;
}

/* The checks that a stored map passes once: checksum, tiles in order and within time, every state, the padding. */
static inline int hr_window_check_section(
    const hr_window_section *section, const hr_window_state *states, int64_t size)
{
    hr_window_tile tile;
    uint32_t i, n;
    int64_t last = INT64_MIN;
    tile.end = 0;
    for (i = 0; i < section->count; i++) {
        if (hr_window_tile_at(section, i, &tile) != HR_WINDOW_OK) return HR_WINDOW_BAD_TILES;
        if (tile.k <= last || tile.k < hr_tile_of(-HR_TIME_MAX_US, size) || tile.k > hr_tile_of(HR_TIME_MAX_US, size))
            return HR_WINDOW_BAD_TILES;
        if ((tile.events & HR_TILE_EVENTS_MAX) == 0) return HR_WINDOW_BAD_TILES;
        last = tile.k;
        for (n = 0; n < section->state_count; n++) {
            uint32_t at = hr_tile_begin(&tile, n);
            if (hr_state_check(&states[n].spec, section->heap + at, hr_tile_end(&tile, n) - at) != HR_STATE_OK)
                return HR_WINDOW_BAD_STATE;
        }
    }
    return tile.end == section->heap_bytes ? HR_WINDOW_OK : HR_WINDOW_BAD_TILES;
}

static inline int hr_window_check(const hr_window_plan *plan, const uint8_t *bytes, size_t length, hr_window_map *map)
{
    uint32_t l, level, s = 0;
    const uint8_t *end;
    int status = hr_window_open(plan, bytes, length, map);
    if (status != HR_WINDOW_OK || bytes == NULL) return status;
    if (hr_crc32c(0, bytes, length - HR_MAP_CRC_BYTES) != hr_load_u32(bytes + length - HR_MAP_CRC_BYTES))
        return HR_WINDOW_BAD_CHECKSUM;
    for (l = 0; l < plan->ladder_count; l++) {
        const hr_window_ladder *ladder = &plan->ladders[l];
        for (level = 0; level < ladder->level_count; level++, s++) {
            status = hr_window_check_section(
                &map->sections[s], plan->states + ladder->first_state, ladder->sizes[level]);
            if (status != HR_WINDOW_OK) return status;
        }
    }
    if (plan->section_count > 0) {
        for (end = map->sections[s - 1].heap + map->sections[s - 1].heap_bytes; end < bytes + length - 4; end++)
            if (*end != 0) return HR_WINDOW_BAD_SECTIONS;
    }
    return HR_WINDOW_OK;
}

static const char *const hr_window_faults[] = {
    "is sound", "found no memory", "is too short, too long or not a multiple of 4", "has another magic",
    "has an unknown layout", "has a wrong length", "was made by another plan", "fails its checksum",
    "has an unknown kind", "has sections that do not fit it", "has tiles out of order or out of bounds",
    "holds a state that no events lead to", "has a newest event or cut beyond 2^60 us", "has a time beyond 2^60 us",
    "exceeds its size limit",
};

#endif
