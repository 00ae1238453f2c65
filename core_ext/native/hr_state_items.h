/* Kept values with their order or their count: MIN, MAX, FIRST, LAST, LAST_N, TOP. */
#ifndef HR_STATE_ITEMS_H
#define HR_STATE_ITEMS_H

#include "hr_state_value.h"

typedef struct {
    hr_order order;   /* FIRST, LAST, LAST_N */
    int64_t count;    /* TOP */
    hr_value value;   /* texts: bytes is an offset into the arena */
} hr_item;

typedef struct {
    hr_item *list, *spare;
    uint32_t count, capacity;
    uint8_t *arena, *spare_arena;
    size_t arena_used, arena_capacity;
    hr_value *answers;        /* of the last list result */
    uint8_t is_over;          /* TOP: a cap was passed; nothing else is known then */
} hr_items;

#endif
