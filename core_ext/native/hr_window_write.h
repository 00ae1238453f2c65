/* Writes tile maps: tiles are gathered section by section, and put together once the newest event is known. */
#ifndef HR_WINDOW_WRITE_H
#define HR_WINDOW_WRITE_H

#include "hr_window_map.h"

typedef struct {
    uint8_t *at;
    size_t length, capacity;
} hr_window_bytes;

static inline int hr_bytes_reserve(hr_window_bytes *bytes, size_t more)
{
    size_t capacity = bytes->capacity;
    uint8_t *grown;
    if (more <= capacity - bytes->length) return HR_WINDOW_OK;
    if (more > SIZE_MAX / 4 - bytes->length) return HR_WINDOW_TOO_LARGE;
    while (capacity - bytes->length < more) capacity = capacity < 1024 ? 1024 : 2 * capacity;
    grown = realloc(bytes->at, capacity);
    if (grown == NULL) return HR_WINDOW_NO_MEMORY;
    bytes->at = grown, bytes->capacity = capacity;
    return HR_WINDOW_OK;
}

/* A section as it grows; offsets into the two buffers, as these move. */
typedef struct {
    size_t entries, heap;
    uint32_t count, heap_bytes;
} hr_window_part;

/* Everything that one thread needs to make maps of one plan. */
typedef struct {
    const hr_window_plan *plan;
    hr_state *states;               /* one working state per state of the plan */
    hr_window_bytes entries, heap;
    hr_window_part *parts;          /* one per section */
    hr_window_map base, other;      /* views of what is merged */
    uint32_t section;               /* the one being filled */
} hr_window_writer;

static inline void hr_writer_close(hr_window_writer *writer)
{
    uint32_t i;
    for (i = 0; writer->states != NULL && i < writer->plan->state_count; i++) hr_state_free(&writer->states[i]);
    free(writer->states);
    free(writer->parts);
    free(writer->entries.at);
    free(writer->heap.at);
    free(writer->base.sections);
    free(writer->other.sections);
    memset(writer, 0, sizeof(*writer));
}

/* The caller closes it, also after a failure. */
static inline int hr_writer_open(hr_window_writer *writer, const hr_window_plan *plan)
{
    uint32_t i;
    memset(writer, 0, sizeof(*writer));
    writer->plan = plan;
    writer->states = calloc((size_t)plan->state_count + 1, sizeof(hr_state));
    writer->parts = calloc((size_t)plan->section_count + 1, sizeof(hr_window_part));
    writer->base.sections = calloc((size_t)plan->section_count + 1, sizeof(hr_window_section));
    writer->other.sections = calloc((size_t)plan->section_count + 1, sizeof(hr_window_section));
    if (writer->states == NULL || writer->parts == NULL || writer->base.sections == NULL ||
        writer->other.sections == NULL)
        return HR_WINDOW_NO_MEMORY;
    for (i = 0; i < plan->state_count; i++)
        if (hr_state_init(&writer->states[i], &plan->states[i].spec) != HR_STATE_OK) return HR_WINDOW_NO_MEMORY;
    return HR_WINDOW_OK;
}

static inline void hr_writer_start(hr_window_writer *writer) { writer->entries.length = writer->heap.length = 0; }

static inline void hr_writer_section(hr_window_writer *writer, uint32_t section)
{
    writer->section = section;
    writer->parts[section] = (hr_window_part){writer->entries.length, writer->heap.length, 0, 0};
}

/* The tiles written so far of a section; the view ends with the next tile that is written. */
static inline hr_window_section hr_writer_view(
    const hr_window_writer *writer, const hr_window_ladder *ladder, uint32_t section)
{
    const hr_window_part *part = &writer->parts[section];
    return (hr_window_section){
        writer->entries.at + part->entries, writer->heap.at + part->heap, part->count, part->heap_bytes,
        ladder->entry_bytes, ladder->state_count};
}

static inline uint32_t hr_events_sum(uint32_t a, uint32_t b)
{
    uint64_t sum = (uint64_t)(a & HR_TILE_EVENTS_MAX) + (b & HR_TILE_EVENTS_MAX);
    return sum > HR_TILE_EVENTS_MAX ? HR_TILE_EVENTS_MAX : (uint32_t)sum;
}

/* Starts a tile; its states follow in order, each by hr_writer_state or hr_writer_copy. */
static inline int hr_writer_tile(
    hr_window_writer *writer, const hr_window_ladder *ladder, int64_t k, int64_t covered, uint32_t events)
{
    uint8_t *entry;
    int status = hr_bytes_reserve(&writer->entries, ladder->entry_bytes);
    if (status != HR_WINDOW_OK) return status;
    entry = writer->entries.at + writer->entries.length;
    hr_store_u64(entry, (uint64_t)k);
    hr_store_u64(entry + HR_TILE_COVERED, (uint64_t)covered);
    hr_store_u32(entry + HR_TILE_EVENTS, events);
    writer->entries.length += HR_TILE_ENDS;
    writer->parts[writer->section].count++;
    return HR_WINDOW_OK;
}

static inline int hr_writer_end(hr_window_writer *writer, size_t length)
{
    hr_window_part *part = &writer->parts[writer->section];
    if (length > HR_MAP_BYTES_MAX - part->heap_bytes) return HR_WINDOW_TOO_LARGE;
    part->heap_bytes += (uint32_t)length;
    writer->heap.length += length;
    hr_store_u32(writer->entries.at + writer->entries.length, part->heap_bytes);  /* reserved with the tile */
    writer->entries.length += 4;
    return HR_WINDOW_OK;
}

static inline int hr_writer_state(hr_window_writer *writer, hr_state *state)
{
    size_t room, length = 0;
    int status = HR_STATE_TOO_LARGE;
    for (room = 64; status == HR_STATE_TOO_LARGE && room <= HR_MAP_BYTES_MAX; room *= 4) {
        if (writer->heap.capacity - writer->heap.length > room) room = writer->heap.capacity - writer->heap.length;
        if (hr_bytes_reserve(&writer->heap, room) != HR_WINDOW_OK) return HR_WINDOW_NO_MEMORY;
        status = hr_state_encode(state, writer->heap.at + writer->heap.length, room, &length);
    }
    if (status != HR_STATE_OK) return status == HR_STATE_NO_MEMORY ? HR_WINDOW_NO_MEMORY : HR_WINDOW_TOO_LARGE;
    return hr_writer_end(writer, length);
}

/* `bytes` lie outside the writer. */
static inline int hr_writer_copy(hr_window_writer *writer, const uint8_t *bytes, size_t length)
{
    int status = hr_bytes_reserve(&writer->heap, length);
    if (status != HR_WINDOW_OK) return status;
    if (length > 0) memcpy(writer->heap.at + writer->heap.length, bytes, length);
    return hr_writer_end(writer, length);
}

/* A tile of another map, whole; `events` and `covered` may differ from its own. */
static inline int hr_writer_copy_tile(
    hr_window_writer *writer, const hr_window_ladder *ladder, const hr_window_section *from,
    const hr_window_tile *tile, int64_t covered, uint32_t events)
{
    uint32_t n, before = writer->parts[writer->section].heap_bytes;
    size_t length = tile->end - tile->start;
    int status = hr_writer_tile(writer, ladder, tile->k, covered, events);
    if (status == HR_WINDOW_OK) status = hr_bytes_reserve(&writer->heap, length);
    if (status != HR_WINDOW_OK) return status;
    if (length > HR_MAP_BYTES_MAX - before) return HR_WINDOW_TOO_LARGE;
    if (length > 0) memcpy(writer->heap.at + writer->heap.length, from->heap + tile->start, length);
    writer->heap.length += length;
    writer->parts[writer->section].heap_bytes += (uint32_t)length;
    for (n = 0; n < ladder->state_count; n++, writer->entries.length += 4)
        hr_store_u32(writer->entries.at + writer->entries.length, before + hr_tile_end(tile, n) - tile->start);
    return HR_WINDOW_OK;
}

static inline int hr_merged(int state_status)
{
    if (state_status == HR_STATE_OK) return HR_WINDOW_OK;
    return state_status == HR_STATE_NO_MEMORY ? HR_WINDOW_NO_MEMORY
           : state_status == HR_STATE_TOO_LARGE ? HR_WINDOW_TOO_LARGE : HR_WINDOW_BAD_STATE;
}

/* Children [first, first + count) of the section below become one tile k of the section being filled. */
static inline int hr_writer_parent(
    hr_window_writer *writer, const hr_window_ladder *ladder, uint32_t below, int64_t k, uint32_t first, uint32_t count)
{
    hr_window_section section = hr_writer_view(writer, ladder, below);
    hr_window_tile tile;
    uint32_t i, n, events = 0, origin = HR_TILE_BATCH;
    int64_t covered = INT64_MIN;
    int status = HR_WINDOW_OK;
    for (i = first; i < first + count; i++) {
        if (hr_window_tile_at(&section, i, &tile) != HR_WINDOW_OK) return HR_WINDOW_BAD_TILES;
        events = hr_events_sum(events, tile.events);
        origin &= tile.events;
        if (tile.covered > covered) covered = tile.covered;
    }
    if (count == 1) {
        if (hr_bytes_reserve(&writer->heap, tile.end - tile.start) != HR_WINDOW_OK) return HR_WINDOW_NO_MEMORY;
        section.heap = writer->heap.at + writer->parts[below].heap;
        tile.k = k;
        /* The ends are read before the entries may move. */
        if (hr_bytes_reserve(&writer->entries, ladder->entry_bytes) != HR_WINDOW_OK) return HR_WINDOW_NO_MEMORY;
        tile.ends = writer->entries.at + writer->parts[below].entries + (size_t)first * ladder->entry_bytes + HR_TILE_ENDS;
        return hr_writer_copy_tile(writer, ladder, &section, &tile, covered, events | origin);
    }
    status = hr_writer_tile(writer, ladder, k, covered, events | origin);
    for (n = 0; n < ladder->state_count && status == HR_WINDOW_OK; n++) {
        hr_state *state = &writer->states[ladder->first_state + n];
        hr_state_reset(state);
        section = hr_writer_view(writer, ladder, below);
        for (i = first; i < first + count && status == HR_WINDOW_OK; i++) {
            if (hr_window_tile_at(&section, i, &tile) != HR_WINDOW_OK) return HR_WINDOW_BAD_TILES;
            if (hr_tile_end(&tile, n) > hr_tile_begin(&tile, n))
                status = hr_merged(hr_state_merge_bytes(
                    state, section.heap + hr_tile_begin(&tile, n), hr_tile_end(&tile, n) - hr_tile_begin(&tile, n)));
        }
        if (status == HR_WINDOW_OK) status = hr_writer_state(writer, state);
    }
    return status;
}

/* Fills a section from the one below it. */
static inline int hr_writer_raise(hr_window_writer *writer, const hr_window_ladder *ladder, uint32_t level)
{
    uint32_t section = ladder->first_section + level, below = section - 1, i, end, total = writer->parts[below].count;
    int64_t ratio = ladder->sizes[level] / ladder->sizes[level - 1];
    int status = HR_WINDOW_OK;
    hr_writer_section(writer, section);
    for (i = 0; i < total && status == HR_WINDOW_OK; i = end) {
        hr_window_section view = hr_writer_view(writer, ladder, below);
        int64_t k = hr_floor_div(hr_window_k(&view, i), ratio);
        for (end = i + 1; end < total && hr_window_k(&view, end) < (k + 1) * ratio; end++) continue;
        status = hr_writer_parent(writer, ladder, below, k, i, end - i);
    }
    return status;
}

/* Tiles at the start of a section that no read at or after the newest event needs. */
static inline uint32_t hr_window_old(
    const hr_window_section *section, const hr_window_ladder *ladder, uint32_t level, int64_t newest)
{
    if (newest == HR_TIME_NONE) return 0;
    return hr_window_lower_bound(section, hr_kept_from(ladder, level, newest) / ladder->sizes[level]);
}

/* Events of the coarsest tiles of a ladder that are too old to be kept. */
static inline uint64_t hr_window_old_events(
    const hr_window_section *section, const hr_window_ladder *ladder, int64_t newest)
{
    uint64_t events = 0;
    uint32_t i, old = hr_window_old(section, ladder, ladder->level_count - 1, newest);
    for (i = 0; i < old; i++)
        events += hr_load_u32(section->entries + (size_t)i * section->entry_bytes + HR_TILE_EVENTS) & HR_TILE_EVENTS_MAX;
    return events;
}

/* One section at its place in the map, without its `old` first tiles. Returns the byte after it. */
static inline uint8_t *hr_writer_put(const hr_window_section *section, uint32_t old, uint8_t *table, uint8_t *to)
{
    uint32_t i, n, dropped, count = section->count - old;
    size_t bytes = (size_t)count * section->entry_bytes;
    const uint8_t *from = section->entries + (size_t)old * section->entry_bytes;
    dropped = old == 0 ? 0 : hr_load_u32(from - 4);
    hr_store_u32(table, count);
    hr_store_u32(table + 4, section->heap_bytes - dropped);
    if (bytes > 0) memcpy(to, from, bytes);
    if (dropped > 0) {
        for (i = 0; i < count; i++) {
            uint8_t *ends = to + (size_t)i * section->entry_bytes + HR_TILE_ENDS;
            for (n = 0; n < section->state_count; n++) hr_store_u32(ends + 4 * n, hr_load_u32(ends + 4 * n) - dropped);
        }
    }
    to += bytes;
    if (section->heap_bytes > dropped) memcpy(to, section->heap + dropped, section->heap_bytes - dropped);
    return to + (section->heap_bytes - dropped);
}

typedef struct {
    int64_t newest, cut, covered;
    uint8_t kind;
} hr_window_head;

/* Appends the finished map to `out`, without the tiles that are too old. */
static inline int hr_writer_finish(hr_window_writer *writer, const hr_window_head *head, hr_window_bytes *out)
{
    const hr_window_plan *plan = writer->plan;
    size_t start = out->length, table = HR_MAP_TABLE + 8 * (size_t)plan->section_count, length;
    uint32_t l, level, s = 0;
    uint8_t *to, *end;
    if (writer->entries.length + writer->heap.length > HR_MAP_BYTES_MAX - table - 8) return HR_WINDOW_TOO_LARGE;
    if (hr_bytes_reserve(out, table + writer->entries.length + writer->heap.length + 8) != HR_WINDOW_OK)
        return HR_WINDOW_NO_MEMORY;
    to = out->at + start;
    memset(to, 0, HR_MAP_TABLE);
    end = to + table;
    for (l = 0; l < plan->ladder_count; l++) {
        const hr_window_ladder *ladder = &plan->ladders[l];
        for (level = 0; level < ladder->level_count; level++, s++) {
            hr_window_section section = hr_writer_view(writer, ladder, s);
            uint32_t old = hr_window_old(&section, ladder, level, head->newest);
            end = hr_writer_put(&section, old, to + HR_MAP_TABLE + 8 * (size_t)s, end);
        }
    }
    length = ((size_t)(end - to) + 3) / 4 * 4 + HR_MAP_CRC_BYTES;
    memset(end, 0, (size_t)(to + length - end));
    to[0] = HR_MAP_MAGIC, to[1] = HR_MAP_LAYOUT, to[HR_MAP_KIND] = head->kind;
    hr_store_u32(to + HR_MAP_LENGTH, (uint32_t)length);
    hr_store_u64(to + HR_MAP_CHECK, plan->check);
    hr_store_u64(to + HR_MAP_NEWEST, (uint64_t)head->newest);
    hr_store_u64(to + HR_MAP_CUT, (uint64_t)head->cut);
    hr_store_u64(to + HR_MAP_COVERED, (uint64_t)head->covered);
    hr_store_u32(to + HR_MAP_SECTIONS, plan->section_count);
    hr_store_u32(to + length - HR_MAP_CRC_BYTES, hr_crc32c(0, to, length - HR_MAP_CRC_BYTES));
    out->length = start + length;
    return HR_WINDOW_OK;
}

#endif
