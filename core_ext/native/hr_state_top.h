/* Exact counts of different values: TOP. */
#ifndef HR_STATE_TOP_H
#define HR_STATE_TOP_H

#include <stdlib.h>

#include "hr_state_hll.h"

typedef struct {
    hr_value value;   /* of texts, `i` is the place in the arena; places ascend along the list */
    uint64_t hash;
    int64_t count;    /* 0 once all were taken back */
} hr_top_entry;

typedef struct {
    hr_top_entry *list;
    uint32_t count, live, capacity;   /* entries, those with a count above 0 */
    size_t text_bytes;                /* of the live ones */
    uint32_t *slots;                  /* entry + 1 by hash; 0 is free */
    uint32_t slot_mask, slot_capacity;
    uint8_t *arena;
    size_t arena_used, arena_capacity;
    uint32_t *sorted;                 /* twice the capacity: places of live entries, and room to sort them */
    hr_value *answers;
    uint32_t answer_capacity;
    uint8_t is_over;                  /* a cap was passed; nothing else is known then */
} hr_top;

enum { HR_TOP_SLOTS_MIN = 16, HR_TOP_NONE = 0 };

static inline void hr_top_clear_slots(hr_top *top, uint32_t slots)
{
    if (top->slots != NULL) memset(top->slots, 0, slots * sizeof(uint32_t));
    top->slot_mask = slots - 1;
}

static inline void hr_top_reset(hr_top *top)
{
    if (top->count > 0) hr_top_clear_slots(top, HR_TOP_SLOTS_MIN);
    top->count = 0, top->live = 0, top->text_bytes = 0, top->arena_used = 0, top->is_over = 0;
}

static inline void hr_top_exceed(hr_top *top)
{
    hr_top_reset(top);
    top->is_over = 1;
}

static inline hr_value hr_top_value(const hr_top *top, uint8_t scalar, const hr_top_entry *entry)
{
    hr_value value = entry->value;
    if (hr_scalar_is_text(scalar)) value.bytes = top->arena + entry->value.i;
    return value;
}

static inline int hr_top_holds(
    const hr_top *top, uint8_t scalar, const hr_top_entry *entry, uint64_t hash, const hr_value *value)
{
    if (entry->hash != hash) return 0;
    if (!hr_scalar_is_text(scalar)) return entry->value.i == value->i;
    return entry->value.length == value->length &&
           (value->length == 0 || memcmp(top->arena + entry->value.i, value->bytes, value->length) == 0);
}

/* The entry of a value, or NULL; *slot is where it is or would go. */
static inline hr_top_entry *hr_top_find(
    const hr_top *top, uint8_t scalar, uint64_t hash, const hr_value *value, uint32_t *slot)
{
    uint32_t at = (uint32_t)hash & top->slot_mask;
    if (top->slots == NULL) return NULL;
    for (; top->slots[at] != HR_TOP_NONE; at = (at + 1) & top->slot_mask) {
        hr_top_entry *entry = &top->list[top->slots[at] - 1];
        if (hr_top_holds(top, scalar, entry, hash, value)) {
            *slot = at;
            return entry;
        }
    }
    *slot = at;
    return NULL;
}

/* Drops dead entries and makes the slots anew, at least twice as many as entries. */
static inline int hr_top_rebuild(hr_top *top, uint8_t scalar, uint32_t slots)
{
    uint32_t i, kept = 0, at, *list;
    size_t used = 0;
    if (slots > top->slot_capacity) {
        list = realloc(top->slots, slots * sizeof(*list));
        if (list == NULL) return HR_STATE_NO_MEMORY;
        top->slots = list;
        top->slot_capacity = slots;
    }
    hr_top_clear_slots(top, slots);
    for (i = 0; i < top->count; i++) {
        hr_top_entry *entry = &top->list[kept];
        if (top->list[i].count == 0) continue;
        *entry = top->list[i];
        if (hr_scalar_is_text(scalar)) {
            if (entry->value.length > 0) memmove(top->arena + used, top->arena + entry->value.i, entry->value.length);
            entry->value.i = (int64_t)used;
            used += entry->value.length;
        }
        at = (uint32_t)entry->hash & top->slot_mask;
        while (top->slots[at] != HR_TOP_NONE) at = (at + 1) & top->slot_mask;
        top->slots[at] = ++kept;
    }
    top->count = kept;
    top->arena_used = used;
    return HR_STATE_OK;
}

/* Room for one more entry and its text. */
static inline int hr_top_room(hr_top *top, uint8_t scalar, size_t length)
{
    uint32_t slots = top->slots == NULL ? HR_TOP_SLOTS_MIN : top->slot_mask + 1, capacity;
    if (top->count > 16 && (top->live < top->count / 2 || top->arena_used > 2 * top->text_bytes + HR_TOP_BYTES_MAX)) {
        if (hr_top_rebuild(top, scalar, slots) != HR_STATE_OK) return HR_STATE_NO_MEMORY;
    }
    if (top->slots == NULL || 2 * (top->count + 1) > slots) {
        if (hr_top_rebuild(top, scalar, top->slots == NULL ? slots : 2 * slots) != HR_STATE_OK)
            return HR_STATE_NO_MEMORY;
    }
    if (top->count == top->capacity) {
        hr_top_entry *list;
        uint32_t *sorted;
        capacity = top->capacity == 0 ? 8 : 2 * top->capacity;
        list = realloc(top->list, capacity * sizeof(*list));
        if (list == NULL) return HR_STATE_NO_MEMORY;
        top->list = list;
        sorted = realloc(top->sorted, 2 * (size_t)capacity * sizeof(*sorted));
        if (sorted == NULL) return HR_STATE_NO_MEMORY;
        top->sorted = sorted;
        top->capacity = capacity;
    }
    if (top->arena_used + length > top->arena_capacity) {
        size_t wanted = 2 * (top->arena_used + length) + 64;
        uint8_t *arena = realloc(top->arena, wanted);
        if (arena == NULL) return HR_STATE_NO_MEMORY;
        top->arena = arena;
        top->arena_capacity = wanted;
    }
    return HR_STATE_OK;
}

static inline int hr_top_add(hr_top *top, uint8_t scalar, const hr_value *value, int64_t count)
{
    size_t length = hr_scalar_is_text(scalar) ? value->length : 0;
    uint64_t hash;
    uint32_t slot = 0;
    hr_top_entry *entry;
    if (top->is_over) return HR_STATE_OK;
    if (length > HR_TOP_BYTES_MAX) {
        hr_top_exceed(top);
        return HR_STATE_OK;
    }
    hash = hr_value_hash(scalar, value);
    entry = hr_top_find(top, scalar, hash, value, &slot);
    if (entry == NULL) {
        if (hr_top_room(top, scalar, length) != HR_STATE_OK) return HR_STATE_NO_MEMORY;
        hr_top_find(top, scalar, hash, value, &slot);
        entry = &top->list[top->count++];
        entry->value = *value;
        entry->value.length = (uint32_t)length;
        entry->hash = hash;
        entry->count = 0;
        if (hr_scalar_is_text(scalar)) {
            if (length > 0) memcpy(top->arena + top->arena_used, value->bytes, length);
            entry->value.i = (int64_t)top->arena_used;
            top->arena_used += length;
        }
        top->slots[slot] = top->count;
    }
    if (count > INT64_MAX - entry->count) return HR_STATE_TOO_LARGE;
    if (entry->count == 0) top->live++, top->text_bytes += length;
    entry->count += count;
    if (top->live > HR_TOP_VALUES_MAX || top->text_bytes > HR_TOP_BYTES_MAX) hr_top_exceed(top);
    return HR_STATE_OK;
}

/* Takes `count` of a value back; with `is_trial` it only says whether that is possible. */
static inline int hr_top_retract(hr_top *top, uint8_t scalar, const hr_value *value, int64_t count, int is_trial)
{
    uint32_t slot;
    hr_top_entry *entry;
    if (top->is_over || top->live == 0) return HR_STATE_NOT_RETRACTABLE;
    entry = hr_top_find(top, scalar, hr_value_hash(scalar, value), value, &slot);
    if (entry == NULL || entry->count < count) return HR_STATE_NOT_RETRACTABLE;
    if (is_trial) return HR_STATE_OK;
    entry->count -= count;
    if (entry->count == 0) top->live--, top->text_bytes -= entry->value.length;
    return HR_STATE_OK;
}

static inline int hr_top_before(const hr_top *top, uint8_t scalar, int by_count, uint32_t a, uint32_t b)
{
    hr_value x, y;
    if (by_count && top->list[a].count != top->list[b].count) return top->list[a].count > top->list[b].count;
    x = hr_top_value(top, scalar, &top->list[a]), y = hr_top_value(top, scalar, &top->list[b]);
    return hr_value_compare(scalar, &x, &y) < 0;
}

/* Places of the live entries, by value or by falling count and value: a merge sort from the bottom. */
static inline const uint32_t *hr_top_sorted(hr_top *top, uint8_t scalar, int by_count)
{
    uint32_t *from = top->sorted, *to = top->sorted + top->capacity, *other, count = 0, width, start;
    for (start = 0; start < top->count; start++)
        if (top->list[start].count > 0) from[count++] = start;
    for (width = 1; width < count; width *= 2) {
        for (start = 0; start < count; start += 2 * width) {
            uint32_t middle = start + width < count ? start + width : count, a = start, b = middle, k = start;
            uint32_t end = start + 2 * width < count ? start + 2 * width : count;
            while (k < end)
                to[k++] = b < end && (a == middle || hr_top_before(top, scalar, by_count, from[b], from[a])) ? from[b++]
                                                                                                        : from[a++];
        }
        other = from, from = to, to = other;
    }
    return from;
}

/* ---- encoding: 0 where a cap was passed, else how many values, and each with its count, by value ---- */

static inline void hr_top_encode(hr_top *top, uint8_t scalar, hr_sink *sink)
{
    const uint32_t *sorted;
    uint32_t i;
    hr_put_number(sink, top->live);
    if (top->live == 0) return;
    sorted = hr_top_sorted(top, scalar, 0);
    for (i = 0; i < top->live; i++) {
        hr_value value = hr_top_value(top, scalar, &top->list[sorted[i]]);
        hr_put_value(sink, scalar, &value);
        hr_put_number(sink, (uint64_t)top->list[sorted[i]].count);
    }
}

enum { HR_TOP_CHECK, HR_TOP_MERGE, HR_TOP_TRY, HR_TOP_TAKE_BACK };

static inline int hr_top_walk(hr_top *top, uint8_t scalar, const uint8_t *bytes, size_t length, int act)
{
    hr_source source = {bytes, bytes + length, 0};
    uint64_t i, values = hr_take_number(&source), text_bytes = 0;
    hr_value value, last = hr_value_null();
    int status = HR_STATE_OK;
    if (source.is_bad || values > HR_TOP_VALUES_MAX) return HR_STATE_CORRUPT;
    if (values == 0) {
        if (source.at != source.end) return HR_STATE_CORRUPT;
        if (act == HR_TOP_MERGE) hr_top_exceed(top);
        return act == HR_TOP_TRY ? HR_STATE_NOT_RETRACTABLE : HR_STATE_OK;
    }
    for (i = 0; i < values && status == HR_STATE_OK; i++) {
        int64_t count;
        value = hr_take_value(&source, scalar);
        count = hr_take_count(&source);
        text_bytes += hr_scalar_is_text(scalar) ? value.length : 0;
        if (source.is_bad || count == 0 || text_bytes > HR_TOP_BYTES_MAX) return HR_STATE_CORRUPT;
        if (i > 0 && hr_value_compare(scalar, &last, &value) >= 0) return HR_STATE_CORRUPT;
        last = value;
        if (act == HR_TOP_MERGE) status = hr_top_add(top, scalar, &value, count);
        else if (act != HR_TOP_CHECK) status = hr_top_retract(top, scalar, &value, count, act == HR_TOP_TRY);
    }
    if (status != HR_STATE_OK) return status;
    return source.at == source.end ? HR_STATE_OK : HR_STATE_CORRUPT;
}

static inline int hr_top_retract_bytes(hr_top *top, uint8_t scalar, const uint8_t *bytes, size_t length)
{
    int status = hr_top_walk(top, scalar, bytes, length, HR_TOP_TRY);
    return status == HR_STATE_OK ? hr_top_walk(top, scalar, bytes, length, HR_TOP_TAKE_BACK) : status;
}

/* The most frequent values, ties by value, or NULL without memory. */
static inline const hr_value *hr_top_greatest(hr_top *top, uint8_t scalar, uint32_t most, uint32_t *count)
{
    const uint32_t *sorted;
    uint32_t i;
    *count = top->live < most ? top->live : most;
    if (top->answer_capacity < *count) {
        hr_value *answers = realloc(top->answers, *count * sizeof(*answers));
        if (answers == NULL) return NULL;
        top->answers = answers;
        top->answer_capacity = *count;
    }
    sorted = hr_top_sorted(top, scalar, 1);
    for (i = 0; i < *count; i++) top->answers[i] = hr_top_value(top, scalar, &top->list[sorted[i]]);
    return top->answers;
}

#endif
