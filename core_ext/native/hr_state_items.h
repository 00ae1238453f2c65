/* Kept values with their order: MIN, MAX, FIRST, LAST and LAST_N. */
#ifndef HR_STATE_ITEMS_H
#define HR_STATE_ITEMS_H

#include <stdlib.h>

#include "hr_state_bytes.h"

typedef struct {
    hr_order order;
    hr_value value;   /* of texts, `i` is the place in the arena */
} hr_item;

typedef struct {
    hr_item *list;    /* ascending; of LAST_N the last `parameter` count */
    uint32_t count, capacity;
    uint8_t *arena, *spare;
    size_t arena_used, arena_capacity, spare_capacity;
    hr_value *answers;
    uint32_t answer_capacity;
} hr_items;

static inline void hr_items_reset(hr_items *items) { items->count = 0, items->arena_used = 0; }

static inline hr_value hr_item_value(const hr_items *items, uint8_t scalar, const hr_item *item)
{
    hr_value value = item->value;
    if (hr_scalar_is_text(scalar)) value.bytes = items->arena + item->value.i;
    return value;
}

/* By the total order; equal ones by their values, so that what is kept never depends on who came first. */
static inline int hr_item_compare(
    const hr_items *items, uint8_t scalar, const hr_item *item, const hr_order *order, const hr_value *value)
{
    hr_value held;
    int found = hr_order_fields_compare(&item->order, order);
    if (found != 0) return found;
    held = hr_item_value(items, scalar, item);
    return hr_value_compare(scalar, &held, value);
}

static inline int hr_items_room(hr_items *items, uint32_t count, uint32_t most)
{
    uint32_t capacity = items->capacity == 0 ? 2 : 2 * items->capacity;
    hr_item *list;
    if (count <= items->capacity) return HR_STATE_OK;
    if (capacity > most) capacity = most;
    if (capacity < count) capacity = count;
    list = realloc(items->list, capacity * sizeof(*list));
    if (list == NULL) return HR_STATE_NO_MEMORY;
    items->list = list;
    items->capacity = capacity;
    return HR_STATE_OK;
}

/* Room in the arena for one more text; texts that are kept move together. */
static inline int hr_items_arena(hr_items *items, size_t length)
{
    size_t live = length, wanted, used = 0;
    uint8_t *arena;
    uint32_t i;
    if (items->arena_used + length <= items->arena_capacity) return HR_STATE_OK;
    for (i = 0; i < items->count; i++) live += items->list[i].value.length;
    wanted = 2 * live + 64 > items->arena_capacity ? 2 * live + 64 : items->arena_capacity;
    if (items->spare_capacity < wanted) {
        arena = realloc(items->spare, wanted);
        if (arena == NULL) return HR_STATE_NO_MEMORY;
        items->spare = arena;
        items->spare_capacity = wanted;
    }
    for (i = 0; i < items->count; i++) {
        hr_value *value = &items->list[i].value;
        if (value->length > 0) memcpy(items->spare + used, items->arena + value->i, value->length);
        value->i = (int64_t)used;
        used += value->length;
    }
    arena = items->arena, items->arena = items->spare, items->spare = arena;
    wanted = items->arena_capacity, items->arena_capacity = items->spare_capacity, items->spare_capacity = wanted;
    items->arena_used = used;
    return HR_STATE_OK;
}

/* Fills a place of the list; the arena has room. */
static inline void hr_items_put(
    hr_items *items, uint8_t scalar, uint32_t at, const hr_value *value, const hr_order *order)
{
    hr_item *item = &items->list[at];
    item->order = *order;
    item->value = *value;
    if (hr_scalar_is_text(scalar)) {
        if (value->length > 0) memcpy(items->arena + items->arena_used, value->bytes, value->length);
        item->value.i = (int64_t)items->arena_used;
        items->arena_used += value->length;
    } else if (hr_scalar_is_float(scalar) && value->f != value->f) {
        item->value.f = hr_float_of(HR_NAN_BITS);
    }
}

/* MIN, MAX, FIRST, LAST. */
static inline int hr_items_take_one(
    hr_items *items, uint8_t kind, uint8_t scalar, const hr_value *value, const hr_order *order)
{
    static const hr_order none = {0, 0, 0, 0, 0};
    int found, by_value = kind == HR_KIND_MIN || kind == HR_KIND_MAX;
    if (items->count > 0) {
        hr_value held = hr_item_value(items, scalar, &items->list[0]);
        found = by_value ? hr_value_compare(scalar, &held, value)
                         : hr_item_compare(items, scalar, &items->list[0], order, value);
        if (kind == HR_KIND_MIN || kind == HR_KIND_FIRST ? found <= 0 : found >= 0) return HR_STATE_OK;
    } else if (hr_items_room(items, 1, 1) != HR_STATE_OK) {
        return HR_STATE_NO_MEMORY;
    }
    items->count = 0, items->arena_used = 0;
    if (hr_scalar_is_text(scalar) && hr_items_arena(items, value->length) != HR_STATE_OK) return HR_STATE_NO_MEMORY;
    hr_items_put(items, scalar, 0, value, by_value ? &none : order);
    items->count = 1;
    return HR_STATE_OK;
}

/* How many items are not after (order, value). */
static inline uint32_t hr_items_find(
    const hr_items *items, uint8_t scalar, const hr_value *value, const hr_order *order)
{
    uint32_t low = 0, high = items->count;
    if (high > 0 && hr_item_compare(items, scalar, &items->list[high - 1], order, value) <= 0) return high;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (hr_item_compare(items, scalar, &items->list[middle], order, value) <= 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* LAST_N keeps up to twice as many as it needs, so that arrivals in order cost no moves. */
static inline int hr_items_take_last(
    hr_items *items, uint8_t scalar, uint32_t most, const hr_value *value, const hr_order *order)
{
    uint32_t at = hr_items_find(items, scalar, value, order);
    if (items->count >= most && at <= items->count - most) return HR_STATE_OK;
    if (items->count == 2 * most) {
        memmove(items->list, items->list + most, most * sizeof(hr_item));
        items->count = most;
        at -= most;
    }
    if (hr_items_room(items, items->count + 1, 2 * most) != HR_STATE_OK) return HR_STATE_NO_MEMORY;
    if (hr_scalar_is_text(scalar) && hr_items_arena(items, value->length) != HR_STATE_OK) return HR_STATE_NO_MEMORY;
    memmove(items->list + at + 1, items->list + at, (items->count - at) * sizeof(hr_item));
    hr_items_put(items, scalar, at, value, order);
    items->count++;
    return HR_STATE_OK;
}

/* ---- encoding. MIN, MAX: the value. FIRST, LAST: the order and the value. LAST_N: how many, then orders and values,
 * ascending, an event time as its distance from the one before. An order is the event time, the write time less that,
 * the source, partition and offset. ---- */

static inline void hr_put_order(hr_sink *sink, const hr_order *order, int is_first, int64_t last_us)
{
    if (is_first) hr_put_signed(sink, order->event_us);
    else hr_put_number(sink, (uint64_t)order->event_us - (uint64_t)last_us);
    hr_put_signed(sink, (int64_t)((uint64_t)order->write_us - (uint64_t)order->event_us));
    hr_put_number(sink, order->source_id);
    hr_put_signed(sink, order->partition);
    hr_put_signed(sink, order->offset);
}

static inline hr_order hr_take_order(hr_source *source, int is_first, int64_t last_us)
{
    hr_order order;
    uint64_t distance, id;
    int64_t partition;
    if (is_first) {
        order.event_us = hr_take_signed(source);
    } else {
        distance = hr_take_number(source);
        order.event_us = (int64_t)((uint64_t)last_us + distance);
        if (order.event_us < last_us) source->is_bad = 1;
    }
    order.write_us = (int64_t)((uint64_t)hr_take_signed(source) + (uint64_t)order.event_us);
    id = hr_take_number(source);
    partition = hr_take_signed(source);
    if (id > UINT32_MAX || partition != (int32_t)partition) source->is_bad = 1;
    order.source_id = (uint32_t)id;
    order.partition = (int32_t)partition;
    order.offset = hr_take_signed(source);
    return order;
}

static inline void hr_items_encode(const hr_items *items, const hr_state_spec *spec, hr_sink *sink)
{
    uint32_t i, most = spec->kind == HR_KIND_LAST_N ? (uint32_t)spec->parameter : 1;
    uint32_t first = items->count > most ? items->count - most : 0;
    if (spec->kind == HR_KIND_LAST_N) hr_put_number(sink, items->count - first);
    for (i = first; i < items->count; i++) {
        hr_value value = hr_item_value(items, spec->scalar, &items->list[i]);
        if (spec->kind != HR_KIND_MIN && spec->kind != HR_KIND_MAX)
            hr_put_order(sink, &items->list[i].order, i == first, i == first ? 0 : items->list[i - 1].order.event_us);
        hr_put_value(sink, spec->scalar, &value);
    }
}

/* Takes in encoded items; those of a check are NULL. */
static inline int hr_items_merge_bytes(
    hr_items *items, const hr_state_spec *spec, const uint8_t *bytes, size_t length)
{
    hr_source source = {bytes, bytes + length, 0};
    hr_order order = {0, 0, 0, 0, 0}, last_order = order;
    hr_value value, last = hr_value_null();
    int is_list = spec->kind == HR_KIND_LAST_N, status = HR_STATE_OK;
    uint64_t i, count = is_list ? hr_take_number(&source) : 1;
    if (count == 0 || (is_list && count > (uint64_t)spec->parameter)) return HR_STATE_CORRUPT;
    for (i = 0; i < count && status == HR_STATE_OK; i++) {
        if (spec->kind != HR_KIND_MIN && spec->kind != HR_KIND_MAX)
            order = hr_take_order(&source, i == 0, last_order.event_us);
        value = hr_take_value(&source, spec->scalar);
        if (source.is_bad) return HR_STATE_CORRUPT;
        if (i > 0) {
            int found = hr_order_fields_compare(&last_order, &order);
            if (found > 0 || (found == 0 && hr_value_compare(spec->scalar, &last, &value) > 0)) return HR_STATE_CORRUPT;
        }
        last_order = order, last = value;
        if (items == NULL) continue;
        status = is_list ? hr_items_take_last(items, spec->scalar, (uint32_t)spec->parameter, &value, &order)
                         : hr_items_take_one(items, spec->kind, spec->scalar, &value, &order);
    }
    if (status != HR_STATE_OK) return status;
    return source.is_bad || source.at != source.end ? HR_STATE_CORRUPT : HR_STATE_OK;
}

/* The values of LAST_N, newest first, or NULL without memory. */
static inline const hr_value *hr_items_newest(hr_items *items, uint8_t scalar, uint32_t most, uint32_t *count)
{
    uint32_t i;
    *count = items->count < most ? items->count : most;
    if (items->answer_capacity < *count) {
        hr_value *answers = realloc(items->answers, *count * sizeof(*answers));
        if (answers == NULL) return NULL;
        items->answers = answers;
        items->answer_capacity = *count;
    }
    for (i = 0; i < *count; i++) items->answers[i] = hr_item_value(items, scalar, &items->list[items->count - 1 - i]);
    return items->answers;
}

#endif
