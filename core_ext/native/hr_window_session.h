/* Sessions: of the events of a window those since the last pause that is longer than the gap, up to the read time.
 *
 * A finest tile is at most a gap long, so that it holds no pause: sessions begin and end between tiles, and the times of
 * the first and last event of each, which the last two states of the ladder keep, say between which. */
#ifndef HR_WINDOW_SESSION_H
#define HR_WINDOW_SESSION_H

#include "hr_window_map.h"

/* Times of the first and last event of a tile, which lie in it. */
static inline int hr_session_edges(
    const hr_window_section *section, const hr_window_tile *tile, int64_t size, int64_t *first_us, int64_t *last_us)
{
    uint32_t n = section->state_count - 2, begin = hr_tile_begin(tile, n), middle = hr_tile_end(tile, n);
    hr_state_source first = {section->heap + begin, section->heap + middle, 0};
    hr_state_source last = {section->heap + middle, section->heap + tile->end, 0};
    *first_us = hr_take_signed(&first), *last_us = hr_take_signed(&last);
    if (first.is_bad || last.is_bad || first.at != first.end || last.at != last.end) return HR_WINDOW_BAD_STATE;
    return tile->k * size < *first_us && *first_us <= *last_us && *last_us <= (tile->k + 1) * size ? HR_WINDOW_OK
                                                                                                  : HR_WINDOW_BAD_STATE;
}

/* Start of the tile that the session at `read_us` begins in, at or after the start of the window; the read time itself
 * where no session is open. Clears *is_exact where the event before it may no longer be kept. */
static inline int hr_session_start(
    const hr_window_map *map, const hr_window_ladder *ladder, const hr_window_span *span, int64_t read_us,
    int64_t *start, int *is_exact)
{
    const hr_window_section *section = &map->sections[ladder->first_section];
    int64_t size = ladder->sizes[0], earliest = hr_window_start(span, read_us), kept;
    int64_t first_k = hr_floor_div(earliest, size), end_k = hr_tile_of(read_us, size) + 1;
    int64_t since = read_us, first_us, last_us;  /* since: of the earliest event of the session that is known */
    uint32_t i = hr_window_lower_bound(section, end_k);
    *start = read_us;
    while (i-- > 0) {
        hr_window_tile tile;
        if (hr_window_tile_at(section, i, &tile) != HR_WINDOW_OK || tile.k >= end_k) return HR_WINDOW_BAD_TILES;
        if (tile.k < first_k) return HR_WINDOW_OK;
        if (hr_session_edges(section, &tile, size, &first_us, &last_us) != HR_WINDOW_OK) return HR_WINDOW_BAD_STATE;
        if (since - last_us > span->gap_us) return HR_WINDOW_OK;
        since = first_us, end_k = tile.k;
        *start = tile.k * size;
    }
    kept = hr_kept_from(ladder, 0, map->newest);
    if (map->newest > read_us && earliest < kept && since - kept <= span->gap_us) *is_exact = 0;
    return HR_WINDOW_OK;
}

#endif
