/* First half of a read: from request bytes to the row of every entity and view.
 *
 * Memory latency decides here, so that rows go in blocks through three passes: hash and fetch the index slot,
 * fetch the entry, find the rows and fetch them. */
#ifndef HR_RESOLVE_H
#define HR_RESOLVE_H

#include "hr_plan.h"
#include "hr_request.h"
#include "hr_rules.h"
#include "hr_table.h"

enum {
    HR_BLOCK_ROWS = 64,        /* rows in flight: 64 entries of about 1 KiB stay within L2 */
    HR_FETCH_LINES_MAX = 16    /* cache lines of one row to ask for ahead */
};

typedef struct {
    uint32_t group, row;
} hr_miss;

typedef struct hr_on_demand_column hr_on_demand_column;  /* hr_on_demand.h */

/* One read in progress. */
typedef struct {
    hr_request request;
    const hr_plan *plan;
    hr_table *table;
    const hr_overlay *overlay;
    int64_t read_us;
    int reader;                    /* -1 outside a read of the table */
    uint32_t row_count;
    const uint8_t **rows;          /* [group * row_count + row]; NULL: no columns to read */
    uint8_t *row_status;           /* the same places */
    uint8_t *row_plain;            /* the same places: every value of the row is PRESENT */
    uint8_t *group_plain;          /* per group: every value of all rows is */
    const uint8_t **prefixes;      /* [lookup * row_count + row] */
    uint32_t *prefix_bytes;        /* the same places; 0: a null key */
    hr_miss *misses;
    uint32_t miss_count;
    uint64_t *value_bytes;         /* per output */
    uint64_t *message_bytes;       /* per output */
    int has_frames;                /* no names are sent: columns of one width have one frame */
    uint64_t response_bytes;
    uint64_t room;                  /* of the answer, in a loop; 0: what any answer may have */
    uint32_t columns_of_keys[HR_ENTITY_COLUMNS_MAX];  /* request column of a join key */
    uint32_t *request_columns_of_fields;  /* request column of a field of request data */
    hr_on_demand_column *on_demand;  /* inputs, request fields, results */
    uint64_t on_demand_text_bytes;   /* kept of computed texts: as many as an answer may have */
    hr_span bad_name;
} hr_call;

static inline int hr_same_name(hr_span span, const uint8_t *name, uint32_t name_bytes)
{
    return hr_span_bytes(span) == name_bytes && memcmp(span.at, name, name_bytes) == 0;
}

static inline int hr_bind_key(hr_call *call, uint32_t key)
{
    const hr_join_key *wanted = &call->plan->join_keys[key];
    uint32_t found = UINT32_MAX;
    for (uint32_t i = 0; i < call->request.column_count; i++) {
        if (!hr_same_name(call->request.columns[i].join_key, wanted->name, wanted->name_bytes)) continue;
        call->request.bad_column = i;
        if (found != UINT32_MAX) return HR_E_DUPLICATE_JOIN_KEY;
        found = i;
        if (call->request.columns[i].type != wanted->type) {
            call->request.bad_count = wanted->type;
            return HR_E_WRONG_KEY_TYPE;
        }
    }
    call->bad_name.at = wanted->name;
    call->bad_name.end = wanted->name + wanted->name_bytes;
    if (found == UINT32_MAX) return HR_E_MISSING_JOIN_KEY;
    call->columns_of_keys[key] = found;
    return HR_OK;
}

static inline int hr_bind_keys(hr_call *call)
{
    uint32_t join_keys = call->plan->join_key_count;
    for (uint32_t key = 0; key < join_keys; key++) {
        int status = hr_bind_key(call, key);
        if (status != HR_OK) return status;
    }
    if (call->request.column_count == join_keys) return HR_OK;
    for (uint32_t i = 0; i < call->request.column_count; i++) {
        uint32_t key = 0;
        while (key < join_keys && call->columns_of_keys[key] != i) key++;
        if (key < join_keys) continue;
        call->request.bad_column = i;
        call->bad_name = call->request.columns[i].join_key;
        return HR_E_UNKNOWN_JOIN_KEY;
    }
    return HR_OK;
}

/* The request column of one field of request data. */
static inline int hr_bind_field(hr_call *call, uint32_t number)
{
    const hr_request_field *wanted = &call->plan->on_demand->fields[number];
    uint32_t found = UINT32_MAX;
    call->bad_name.at = wanted->name;
    call->bad_name.end = wanted->name + wanted->name_bytes;
    call->request.bad_count = wanted->type;
    for (uint32_t i = 0; i < call->request.request_column_count; i++) {
        hr_request_column *column = &call->request.request_columns[i];
        if (!hr_same_name(column->name, wanted->name, wanted->name_bytes)) continue;
        call->request.bad_column = i;
        if (found != UINT32_MAX) return HR_E_DUPLICATE_REQUEST_COLUMN;
        found = i;
        column->is_bound = 1;
        if (column->scalar != (int32_t)wanted->type || column->shape != HR_SINGLE || column->list_size != 0)
            return HR_E_WRONG_REQUEST_TYPE;
    }
    call->request_columns_of_fields[number] = found;
    return found != UINT32_MAX ? HR_OK : HR_E_MISSING_REQUEST_FIELD;
}

static inline int hr_bind_fields(hr_call *call)
{
    uint32_t fields = call->plan->on_demand != NULL ? call->plan->on_demand->field_count : 0;
    if (fields > 0) {
        call->request_columns_of_fields = hr_arena_take(&call->request.arena, fields * sizeof(uint32_t));
        if (call->request_columns_of_fields == NULL) return HR_E_NO_MEMORY;
    }
    for (uint32_t number = 0; number < fields; number++) {
        int status = hr_bind_field(call, number);
        if (status != HR_OK) return status;
    }
    for (uint32_t i = 0; i < call->request.request_column_count; i++) {
        if (call->request.request_columns[i].is_bound) continue;
        call->request.bad_column = i;
        call->bad_name = call->request.request_columns[i].name;
        return HR_E_REQUEST_COLUMN;
    }
    return HR_OK;
}

static inline int hr_is_null_row(const hr_entity_column *column, uint32_t row)
{
    return column->null_bits != NULL && (column->null_bits[row >> 3] >> (row & 7) & 1);
}

/* Bytes of one key part, or a refusal through *status. */
static inline uint32_t hr_part_bytes(hr_call *call, uint32_t number, uint32_t row, int *status)
{
    const hr_entity_column *column = &call->request.columns[number];
    size_t length;
    if (column->type == HR_I64 || hr_is_null_row(column, row)) return 9;
    length = hr_span_bytes(column->spans[row]);
    call->request.bad_column = number;
    call->request.bad_row = row;
    call->request.bad_count = length;
    if (length == 0) *status = HR_E_EMPTY_KEY;
    else if (length > HR_KEY_BYTES_MAX) *status = HR_E_KEY_TOO_LONG;
    return (uint32_t)length + 3;
}

static inline uint8_t *hr_write_part(uint8_t *out, const hr_entity_column *column, uint32_t row)
{
    size_t length;
    if (column->type == HR_I64) {
        *out = HR_KEY_I64;
        hr_store_u64_be(out + 1, hr_load_u64(column->int64_values + 8 * (size_t)row) ^ (1ULL << 63));
        return out + 9;
    }
    length = hr_span_bytes(column->spans[row]);
    out[0] = column->type == HR_STRING ? HR_KEY_STRING : HR_KEY_BYTES;
    out[1] = (uint8_t)(length >> 8);
    out[2] = (uint8_t)length;
    memcpy(out + 3, column->spans[row].at, length);
    return out + 3 + length;
}

/* Total bytes of a lookup's prefixes; marks null keys with a length of 0. */
static inline int hr_measure_prefixes(hr_call *call, const hr_lookup *lookup, uint32_t *lengths, size_t *total)
{
    *total = 0;
    for (uint32_t row = 0; row < call->row_count; row++) {
        uint32_t bytes = HR_ENTITY_ID_BYTES;
        int status = HR_OK, is_null = 0;
        for (uint32_t part = 0; part < lookup->key_count; part++) {
            uint32_t number = call->columns_of_keys[lookup->keys[part]];
            is_null |= hr_is_null_row(&call->request.columns[number], row);
            bytes += hr_part_bytes(call, number, row, &status);
            if (status != HR_OK) return status;
        }
        if (!is_null && bytes > HR_ENTITY_ID_BYTES + HR_KEY_BYTES_MAX) return HR_E_KEY_TOO_LONG;
        lengths[row] = is_null ? 0 : bytes;
        *total += lengths[row];
    }
    return HR_OK;
}

static inline int hr_build_prefixes(hr_call *call, uint32_t number)
{
    const hr_lookup *lookup = &call->plan->lookups[number];
    uint32_t *lengths = call->prefix_bytes + (size_t)number * call->row_count;
    const uint8_t **prefixes = call->prefixes + (size_t)number * call->row_count;
    uint8_t *out;
    size_t total;
    int status = hr_measure_prefixes(call, lookup, lengths, &total);
    if (status != HR_OK) return status;
    out = hr_arena_take(&call->request.arena, total);
    if (out == NULL) return HR_E_NO_MEMORY;
    for (uint32_t row = 0; row < call->row_count; row++) {
        prefixes[row] = out;
        if (lengths[row] == 0) continue;
        hr_store_u32_be(out, lookup->entity_id);
        out += HR_ENTITY_ID_BYTES;
        for (uint32_t part = 0; part < lookup->key_count; part++)
            out = hr_write_part(out, &call->request.columns[call->columns_of_keys[lookup->keys[part]]], row);
    }
    return HR_OK;
}

/* Takes a row in: its status, and NULL in place of one without readable columns. */
static inline void hr_settle_row(hr_call *call, const hr_group *group, size_t place, const uint8_t *row)
{
    int64_t asked_us = call->request.max_staleness_us;
    uint8_t status = hr_row_status(row, call->read_us, group->ttl_us, group->stale_us);
    if (row != NULL && (hr_load_u16(row + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE)) row = NULL;
    if (row != NULL && asked_us >= 0 && hr_age_us(hr_load_i64(row + HR_ROW_EVENT_TIME), call->read_us) > asked_us)
        status |= HR_STALE;
    if (row != NULL
        && (hr_load_u32(row + HR_ROW_SCHEMA_ID) != group->schema_id
            || hr_load_u32(row + HR_ROW_LENGTH) < group->fixed_bytes + HR_ROW_CRC_BYTES)) {
        row = NULL;  /* another layout than the view's: never guess at its bytes */
        status = HR_UNAVAILABLE | HR_CAUSE_QUARANTINED;
    }
    call->rows[place] = row;
    call->row_status[place] = status;
}

static inline void hr_resolve_view(hr_call *call, uint32_t number, uint32_t row, const hr_entry *entry,
                                   const uint8_t *prefix, uint32_t prefix_bytes)
{
    const hr_group *group = &call->plan->groups[number];
    size_t place = (size_t)number * call->row_count + row;
    const uint8_t *stored = NULL;
    const hr_overlay_row *beside;
    if (prefix_bytes == 0 || (entry != NULL && hr_entry_row(entry, group->view_id, &stored))) {
        if (stored != NULL)
            for (uint32_t line = 0; line < group->row_lines; line++) __builtin_prefetch(stored + 64 * line);
        call->rows[place] = stored;  /* settled in the next pass, when its header has arrived */
        call->row_status[place] = 0;
        return;
    }
    beside = call->overlay != NULL ? hr_overlay_find(call->overlay, prefix, prefix_bytes, group->view_id) : NULL;
    call->rows[place] = beside != NULL && beside->used ? beside->row : NULL;
    call->row_status[place] = beside != NULL && beside->used && beside->cause ? HR_UNAVAILABLE | beside->cause : 0;
    if (beside == NULL || !beside->used) {
        hr_miss miss = {number, row};
        call->misses[call->miss_count++] = miss;
    }
}

static inline void hr_resolve_block(hr_call *call, uint32_t number, uint32_t first, uint32_t last)
{
    const hr_lookup *lookup = &call->plan->lookups[number];
    const uint8_t **prefixes = call->prefixes + (size_t)number * call->row_count;
    const uint32_t *lengths = call->prefix_bytes + (size_t)number * call->row_count;
    uint64_t hashes[HR_BLOCK_ROWS];
    uint32_t end = lookup->first_group + lookup->group_count;
    for (uint32_t row = first; row < last; row++) {
        hashes[row - first] = hr_table_hash(prefixes[row], lengths[row]);
        hr_prefetch_slot(call->table, hashes[row - first]);
    }
    for (uint32_t row = first; row < last; row++) {
        const hr_entry *entry = hr_table_candidate(call->table, hashes[row - first]);
        if (entry == NULL) continue;
        __builtin_prefetch(entry);
        __builtin_prefetch((const uint8_t *)entry + 64);
    }
    for (uint32_t row = first; row < last; row++) {
        const hr_entry *entry = NULL;
        if (lengths[row] != 0)
            entry = hr_table_find(call->table, hashes[row - first], prefixes[row], lengths[row]);
        for (uint32_t group = lookup->first_group; group < end; group++)
            hr_resolve_view(call, group, row, entry, prefixes[row], lengths[row]);
    }
    for (uint32_t group = lookup->first_group; group < end; group++)
        for (uint32_t row = first; row < last; row++) {
            size_t place = (size_t)group * call->row_count + row;
            if (call->row_status[place] == 0) hr_settle_row(call, &call->plan->groups[group], place, call->rows[place]);
        }
}

/* The image of one row in memory of the request; NULL where none can be made, with the reason in the status. */
static inline int hr_image_row(hr_call *call, const hr_group *group, size_t place, hr_computed_reader *reader)
{
    const uint8_t *row = call->rows[place];
    uint64_t bytes;
    uint8_t *image;
    int status = hr_computed_cells(group->computed, reader, row, call->read_us);
    if (status == HR_COMPUTED_NO_MEMORY) return HR_E_NO_MEMORY;
    bytes = status == HR_COMPUTED_OK ? hr_image_bytes(group->computed, reader) : UINT64_MAX;
    if (bytes == UINT64_MAX) {
        call->rows[place] = NULL;
        call->row_status[place] = HR_UNAVAILABLE | HR_CAUSE_QUARANTINED;
        return HR_OK;
    }
    image = hr_arena_take(&call->request.arena, bytes);
    if (image == NULL) return HR_E_NO_MEMORY;
    hr_image_write(group->computed, reader, row, (uint32_t)bytes, image);
    call->rows[place] = image;
    return HR_OK;
}

/* Windows hold values although no row is stored; a null key names no entity and has none. */
static inline int hr_has_image(const hr_call *call, const hr_group *group, size_t place, uint32_t row)
{
    if ((call->row_status[place] & HR_STATE_MASK) == HR_UNAVAILABLE) return 0;
    if (call->prefix_bytes[(size_t)group->lookup * call->row_count + row] == 0) return 0;
    return call->rows[place] != NULL || group->computed->windows != NULL;
}

static inline int hr_image_group(hr_call *call, uint32_t number)
{
    const hr_group *group = &call->plan->groups[number];
    hr_computed_reader *reader = hr_computed_take(group->computed);
    int status = reader != NULL ? HR_OK : HR_E_NO_MEMORY;
    for (uint32_t row = 0; row < call->row_count && status == HR_OK; row++) {
        size_t place = (size_t)number * call->row_count + row;
        if (hr_has_image(call, group, place, row)) status = hr_image_row(call, group, place, reader);
    }
    if (reader != NULL) hr_computed_give_back(group->computed, reader);
    return status;
}

/* Puts images in the place of the rows of computed views. */
static inline int hr_compute_rows(hr_call *call)
{
    int status = HR_OK;
    for (uint32_t group = 0; group < call->plan->group_count && status == HR_OK; group++)
        if (call->plan->groups[group].computed != NULL) status = hr_image_group(call, group);
    return status;
}

/* Finds the rows, and the groups of them, that need no decision per value. */
static inline void hr_find_plain_rows(hr_call *call)
{
    for (uint32_t group = 0; group < call->plan->group_count; group++) {
        size_t base = (size_t)group * call->row_count;
        uint8_t all = 1;
        for (uint32_t row = 0; row < call->row_count; row++) {
            const uint8_t *stored = call->rows[base + row];
            uint8_t plain = call->row_status[base + row] == HR_PRESENT
                         && !(hr_load_u16(stored + HR_ROW_FLAGS) & HR_FLAG_HAS_NULLS);
            call->row_plain[base + row] = plain;
            all &= plain;
        }
        call->group_plain[group] = all;
    }
}

static inline int hr_take_places(hr_call *call)
{
    hr_arena *arena = &call->request.arena;
    const hr_plan *plan = call->plan;
    size_t places = (size_t)plan->group_count * call->row_count, keys = (size_t)plan->lookup_count * call->row_count;
    call->rows = hr_arena_take(arena, places * sizeof(*call->rows));
    call->row_status = hr_arena_take(arena, places);
    call->misses = hr_arena_take(arena, places * sizeof(*call->misses));
    call->row_plain = hr_arena_take(arena, places);
    call->group_plain = hr_arena_take(arena, plan->group_count);
    call->prefixes = hr_arena_take(arena, keys * sizeof(*call->prefixes));
    call->prefix_bytes = hr_arena_take(arena, keys * sizeof(*call->prefix_bytes));
    call->value_bytes = hr_arena_take(arena, plan->output_count * sizeof(uint64_t));
    call->message_bytes = hr_arena_take(arena, plan->output_count * sizeof(uint64_t));
    return call->rows != NULL && call->row_status != NULL && call->misses != NULL && call->row_plain != NULL
        && call->group_plain != NULL && call->prefixes != NULL && call->prefix_bytes != NULL && call->value_bytes != NULL
        && call->message_bytes != NULL;
}

/* Finds every row. HR_OK, HR_MISS with call->misses, or a refusal. Wants call->reader inside the table. */
static inline int hr_resolve_rows(hr_call *call)
{
    int status = hr_bind_keys(call);
    if (status == HR_OK) status = hr_bind_fields(call);
    call->row_count = call->request.row_count;
    if (status != HR_OK) return status;
    if (!hr_take_places(call)) return HR_E_NO_MEMORY;
    for (uint32_t number = 0; number < call->plan->lookup_count; number++) {
        status = hr_build_prefixes(call, number);
        if (status != HR_OK) return status;
        for (uint32_t first = 0; first < call->row_count; first += HR_BLOCK_ROWS) {
            uint32_t last = first + HR_BLOCK_ROWS < call->row_count ? first + HR_BLOCK_ROWS : call->row_count;
            hr_resolve_block(call, number, first, last);
        }
    }
    if (call->miss_count > 0) return HR_MISS;
    status = hr_compute_rows(call);
    hr_find_plain_rows(call);
    return status;
}

#endif
