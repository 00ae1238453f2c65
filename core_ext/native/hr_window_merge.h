/* Merges tile maps tile by tile: deltas add once, batch replaces what ends before its cut. */
#ifndef HR_WINDOW_MERGE_H
#define HR_WINDOW_MERGE_H

#include "hr_window_write.h"

/* What a merge left out. */
typedef struct {
    uint64_t late_events;      /* too old for any tile that is kept */
    uint64_t replayed_tiles;   /* of the delta, that were covered already */
    uint64_t overtaken_tiles;  /* of the stream, replaced by a batch that had not seen all of their events */
    uint64_t split_tiles;      /* across the cut, whose children are no longer kept: not put together anew */
} hr_window_left;

/* The part of a merge that is the same for each tile of a section. */
typedef struct {
    hr_window_writer *writer;
    const hr_window_ladder *ladder;
    const hr_window_section *base, *other;
    uint32_t level;
    int64_t size, cut;         /* the cut rounded down to the finest tile; HR_TIME_NONE = none */
    int64_t newest, offset;    /* offset: of the delta */
    int takes_other;           /* whose tiles stand before the cut, of two full maps */
    hr_window_left *left;
} hr_window_step;

static inline int64_t hr_ladder_cut(const hr_window_ladder *ladder, int64_t cut)
{
    return cut == HR_TIME_NONE ? HR_TIME_NONE : hr_floor_to(cut, ladder->sizes[0]);
}

/* A coarse tile across the cut is put together from its children, where these are all kept. */
static inline int hr_step_is_split(const hr_window_step *step, int64_t k)
{
    return step->cut != HR_TIME_NONE && k * step->size < step->cut && (k + 1) * step->size > step->cut;
}

static inline int hr_step_has_children(const hr_window_step *step, int64_t k)
{
    return step->level > 0 && k * step->size >= hr_kept_from(step->ladder, step->level - 1, step->newest);
}

static inline int hr_step_from_children(const hr_window_step *step, int64_t k)
{
    uint32_t below = step->ladder->first_section + step->level - 1;
    int64_t ratio = step->size / step->ladder->sizes[step->level - 1];
    hr_window_section section = hr_writer_view(step->writer, step->ladder, below);
    uint32_t first = hr_window_lower_bound(&section, k * ratio), end = hr_window_lower_bound(&section, (k + 1) * ratio);
    return first == end ? HR_WINDOW_OK
                        : hr_writer_parent(step->writer, step->ladder, below, k, first, end - first);
}

/* One tile of the states of both. */
static inline int hr_step_add(const hr_window_step *step, const hr_window_tile *base, const hr_window_tile *delta)
{
    const hr_window_ladder *ladder = step->ladder;
    uint32_t n, events = hr_events_sum(base->events, delta->events) | (base->events & HR_TILE_BATCH);
    int status = hr_writer_tile(step->writer, ladder, base->k, step->offset, events);
    for (n = 0; n < ladder->state_count && status == HR_WINDOW_OK; n++) {
        const uint8_t *a = step->base->heap + hr_tile_begin(base, n), *b = step->other->heap + hr_tile_begin(delta, n);
        size_t a_bytes = hr_tile_end(base, n) - hr_tile_begin(base, n);
        size_t b_bytes = hr_tile_end(delta, n) - hr_tile_begin(delta, n);
        hr_state *state = &step->writer->states[ladder->first_state + n];
        if (a_bytes == 0 || b_bytes == 0) {
            status = hr_writer_copy(step->writer, a_bytes == 0 ? b : a, a_bytes + b_bytes);
            continue;
        }
        hr_state_reset(state);
        status = hr_merged(hr_state_merge_bytes(state, a, a_bytes));
        if (status == HR_WINDOW_OK) status = hr_merged(hr_state_merge_bytes(state, b, b_bytes));
        if (status == HR_WINDOW_OK) status = hr_writer_state(step->writer, state);
    }
    return status;
}

/* Writes tile k of a stored map and a delta; either may be NULL. */
static inline int hr_step_apply(
    const hr_window_step *step, int64_t k, const hr_window_tile *base, const hr_window_tile *delta)
{
    int64_t covered = base != NULL ? base->covered : INT64_MIN;
    int is_batched = base == NULL && step->cut != HR_TIME_NONE && (k + 1) * step->size <= step->cut;
    if (step->level > 0 && hr_step_is_split(step, k) && hr_step_has_children(step, k))
        return hr_step_from_children(step, k);
    if (is_batched) covered = step->writer->base.covered;
    if (delta != NULL && step->offset <= covered) {
        step->left->replayed_tiles++;
        delta = NULL;
    }
    if (delta == NULL)
        return base == NULL ? HR_WINDOW_OK
                            : hr_writer_copy_tile(
                                  step->writer, step->ladder, step->base, base, base->covered, base->events);
    if (base == NULL)
        return hr_writer_copy_tile(step->writer, step->ladder, step->other, delta, step->offset, delta->events);
    return hr_step_add(step, base, delta);
}

/* Writes tile k of two full maps; either tile may be NULL. */
static inline int hr_step_choose(
    const hr_window_step *step, int64_t k, const hr_window_tile *base, const hr_window_tile *other)
{
    int takes_other = base == NULL || (other != NULL && other->covered > base->covered);
    const hr_window_tile *taken, *passed;
    if (hr_step_is_split(step, k)) {
        if (hr_step_has_children(step, k)) return hr_step_from_children(step, k);
        step->left->split_tiles++;
    } else if (step->cut != HR_TIME_NONE && (k + 1) * step->size <= step->cut) {
        int64_t covered = step->takes_other ? step->writer->other.covered : step->writer->base.covered;
        takes_other = step->takes_other;
        passed = takes_other ? base : other;
        if (passed != NULL && passed->covered > covered) step->left->overtaken_tiles++;
    }
    taken = takes_other ? other : base;
    if (taken == NULL) return HR_WINDOW_OK;
    return hr_writer_copy_tile(
        step->writer, step->ladder, takes_other ? step->other : step->base, taken, taken->covered, taken->events);
}

typedef int (*hr_step_write)(
    const hr_window_step *step, int64_t k, const hr_window_tile *base, const hr_window_tile *other);

/* Walks the tiles of both sections in order. */
static inline int hr_step_section(const hr_window_step *step, hr_step_write write)
{
    hr_window_tile base, other;
    uint32_t i = 0, j = 0;
    int64_t k, last = INT64_MIN;
    int status = HR_WINDOW_OK;
    while ((i < step->base->count || j < step->other->count) && status == HR_WINDOW_OK) {
        int64_t a = i < step->base->count ? hr_window_k(step->base, i) : INT64_MAX;
        int64_t b = j < step->other->count ? hr_window_k(step->other, j) : INT64_MAX;
        k = a < b ? a : b;
        if (k <= last || k < hr_tile_of(-HR_TIME_MAX_US, step->size) || k > hr_tile_of(HR_TIME_MAX_US, step->size))
            return HR_WINDOW_BAD_TILES;
        last = k;
        if (a == k) status = hr_window_tile_at(step->base, i++, &base);
        if (b == k && status == HR_WINDOW_OK) status = hr_window_tile_at(step->other, j++, &other);
        if (status == HR_WINDOW_OK) status = write(step, k, a == k ? &base : NULL, b == k ? &other : NULL);
    }
    return status;
}

static inline int hr_merge_sections(hr_window_writer *writer, hr_window_step *step, int64_t cut, hr_step_write write)
{
    const hr_window_plan *plan = writer->plan;
    uint32_t l, s = 0;
    int status = HR_WINDOW_OK;
    hr_writer_start(writer);
    step->writer = writer;
    for (l = 0; l < plan->ladder_count; l++) {
        step->ladder = &plan->ladders[l];
        step->cut = hr_ladder_cut(step->ladder, cut);
        for (step->level = 0; step->level < step->ladder->level_count && status == HR_WINDOW_OK; step->level++, s++) {
            step->size = step->ladder->sizes[step->level];
            step->base = &writer->base.sections[s], step->other = &writer->other.sections[s];
            hr_writer_section(writer, s);
            status = hr_step_section(step, write);
        }
        if (status != HR_WINDOW_OK) return status;
    }
    return HR_WINDOW_OK;
}

/* Appends to `out` the stored map `base` (NULL: none) with a delta that was written at log offset `offset`. */
static inline int hr_window_apply(
    hr_window_writer *writer, const uint8_t *base, size_t base_bytes, const uint8_t *delta, size_t delta_bytes,
    int64_t offset, hr_window_bytes *out, hr_window_left *left)
{
    const hr_window_plan *plan = writer->plan;
    hr_window_step step;
    hr_window_head head = {0, 0, 0, HR_MAP_FULL};
    uint64_t late, least = UINT64_MAX;
    uint32_t l;
    int status = hr_window_open(plan, base, base_bytes, &writer->base);
    memset(&step, 0, sizeof(step));
    memset(left, 0, sizeof(*left));
    if (status == HR_WINDOW_OK) status = hr_window_open(plan, delta, delta_bytes, &writer->other);
    if (status != HR_WINDOW_OK) return status;
    if (writer->base.kind != HR_MAP_FULL || writer->other.kind != HR_MAP_DELTA) return HR_WINDOW_BAD_KIND;
    head.newest = step.newest = hr_later(writer->base.newest, writer->other.newest);
    head.cut = writer->base.cut, head.covered = writer->base.covered;
    step.offset = offset, step.left = left;
    status = hr_merge_sections(writer, &step, head.cut, hr_step_apply);
    for (l = 0; l < plan->ladder_count && status == HR_WINDOW_OK; l++) {
        const hr_window_ladder *ladder = &plan->ladders[l];
        const hr_window_section *top = &writer->other.sections[ladder->first_section + ladder->level_count - 1];
        late = hr_window_old_events(top, ladder, head.newest);
        if (late < least) least = late;
    }
    left->late_events = plan->ladder_count > 0 ? least : 0;
    return status == HR_WINDOW_OK ? hr_writer_finish(writer, &head, out) : status;
}

/* Appends to `out` what two full maps of one row say together. */
static inline int hr_window_merge(
    hr_window_writer *writer, const uint8_t *base, size_t base_bytes, const uint8_t *other, size_t other_bytes,
    hr_window_bytes *out, hr_window_left *left)
{
    const hr_window_map *a = &writer->base, *b = &writer->other;
    hr_window_step step;
    hr_window_head head = {0, 0, 0, HR_MAP_FULL};
    int status = hr_window_open(writer->plan, base, base_bytes, &writer->base);
    memset(&step, 0, sizeof(step));
    memset(left, 0, sizeof(*left));
    if (status == HR_WINDOW_OK) status = hr_window_open(writer->plan, other, other_bytes, &writer->other);
    if (status != HR_WINDOW_OK) return status;
    if (a->kind != HR_MAP_FULL || b->kind != HR_MAP_FULL) return HR_WINDOW_BAD_KIND;
    step.takes_other = b->cut > a->cut || (b->cut == a->cut && b->covered > a->covered);
    step.left = left;
    head.newest = step.newest = hr_later(a->newest, b->newest);
    head.cut = step.takes_other ? b->cut : a->cut;
    head.covered = step.takes_other ? b->covered : a->covered;
    status = hr_merge_sections(writer, &step, head.cut, hr_step_choose);
    return status == HR_WINDOW_OK ? hr_writer_finish(writer, &head, out) : status;
}

static inline int hr_step_stamp(
    const hr_window_step *step, int64_t k, const hr_window_tile *base, const hr_window_tile *other)
{
    (void)k, (void)base;
    return hr_writer_copy_tile(step->writer, step->ladder, step->other, other, step->offset,
                               other->events | HR_TILE_BATCH);
}

/* Appends to `out` the full map of a batch that has computed `delta` from every event up to `cut` that lies below the
 * log offset `covered` + 1. */
static inline int hr_window_stamp(
    hr_window_writer *writer, const uint8_t *delta, size_t delta_bytes, int64_t cut, int64_t covered,
    hr_window_bytes *out)
{
    hr_window_step step;
    hr_window_left left;
    hr_window_head head = {0, cut, covered, HR_MAP_FULL};
    int status = hr_window_open(writer->plan, NULL, 0, &writer->base);
    memset(&step, 0, sizeof(step));
    if (status == HR_WINDOW_OK) status = hr_window_open(writer->plan, delta, delta_bytes, &writer->other);
    if (status != HR_WINDOW_OK) return status;
    if (writer->other.kind != HR_MAP_DELTA) return HR_WINDOW_BAD_KIND;
    if (!hr_time_fits(cut) || writer->other.newest > cut) return HR_WINDOW_BAD_TIME;
    head.newest = step.newest = writer->other.newest;
    step.offset = covered, step.left = &left;
    status = hr_merge_sections(writer, &step, HR_TIME_NONE, hr_step_stamp);
    return status == HR_WINDOW_OK ? hr_writer_finish(writer, &head, out) : status;
}

#endif
