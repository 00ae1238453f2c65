/* Second half of a read: from rows to GetOnlineFeaturesResponse bytes, measured first, then written in place.
 *
 * Fields are written in ascending order and empty ones left out, as protobuf's own encoder does, so that the
 * bytes equal those of any proto3 implementation that writes fields in order. */
#ifndef HR_ANSWER_H
#define HR_ANSWER_H

#include "hr_on_demand.h"

static inline int hr_measure_values(hr_call *call, uint32_t number)
{
    const hr_output *output = &call->plan->outputs[number];
    uint64_t total = 0;
    int ok = 1;
    if (output->group == HR_ON_DEMAND_GROUP) {
        call->value_bytes[number] = hr_measure_result(call, output);
        return HR_OK;
    }
    if (!output->column.is_variable) {
        call->value_bytes[number] = (uint64_t)output->column.slot_bytes * call->row_count;
        return HR_OK;
    }
    for (uint32_t row = 0; row < call->row_count; row++) {
        uint8_t slot;
        hr_settle_value(call, output, row, &slot);
        total += hr_span_bytes(hr_variable_value(call, output, row, slot, &ok));
    }
    call->value_bytes[number] = total;
    return ok ? HR_OK : HR_E_STORED_ROW;
}

static inline int hr_sends_names(const hr_call *call)
{
    return call->request.include_names || hr_span_bytes(call->request.handle) == 0;
}

/* Sizes every column and the whole response. */
static inline int hr_measure_answer(hr_call *call)
{
    uint64_t rows = call->row_count, total = 0;
    int names = hr_sends_names(call);
    for (uint32_t i = 0; i < call->plan->output_count; i++) {
        const hr_output *output = &call->plan->outputs[i];
        uint64_t bytes = hr_length_bytes(rows);
        int status = hr_measure_values(call, i);
        if (status != HR_OK) return status;
        if (call->value_bytes[i] > 0) bytes += hr_length_bytes(call->value_bytes[i]);
        if (output->column.is_variable) bytes += hr_length_bytes(4 * (rows + 1));
        if (call->request.include_event_times) bytes += hr_length_bytes(8 * rows);
        if (names) bytes += output->head_bytes + output->tail_bytes;
        call->message_bytes[i] = bytes;
        total += hr_length_bytes(bytes);
        call->request.bad_count = total;
        if (total > HR_RESPONSE_BYTES_MAX) return HR_E_RESPONSE_TOO_LARGE;
    }
    total += 1 + hr_varint_bytes(rows);
    if (call->plan->revision != 0) total += 1 + hr_varint_bytes((uint64_t)call->plan->revision);
    if (call->read_us != 0) total += 1 + hr_varint_bytes((uint64_t)call->read_us);
    call->response_bytes = total;
    return HR_OK;
}

static inline void hr_copy_slot(uint8_t *out, const uint8_t *value, uint32_t bytes)
{
    if (bytes == 4) memcpy(out, value, 4);
    else if (bytes == 8) memcpy(out, value, 8);
    else if (bytes == 1) *out = *value;
    else memcpy(out, value, bytes);
}

/* Rows whose every value is PRESENT: one load and one store a value. */
static inline void hr_gather_plain(const hr_output *output, const uint8_t *const *rows, uint8_t *out, uint32_t count)
{
    uint32_t offset = output->column.offset, bytes = output->column.slot_bytes;
    if (bytes == 4)
        for (uint32_t i = 0; i < count; i++) memcpy(out + 4 * (size_t)i, rows[i] + offset, 4);
    else if (bytes == 8)
        for (uint32_t i = 0; i < count; i++) memcpy(out + 8 * (size_t)i, rows[i] + offset, 8);
    else
        for (uint32_t i = 0; i < count; i++) hr_copy_slot(out + (size_t)bytes * i, rows[i] + offset, bytes);
}

static inline void hr_gather_mixed(
    const hr_call *call, const hr_output *output, uint32_t first, uint32_t last, uint8_t *values, uint8_t *statuses)
{
    size_t base = (size_t)output->group * call->row_count;
    const uint8_t *const *rows = call->rows + base;
    uint32_t bytes = output->column.slot_bytes;
    for (uint32_t row = first; row < last; row++) {
        uint8_t slot, *out = values + (size_t)bytes * row;
        if (call->row_plain[base + row]) {
            statuses[row] = HR_PRESENT;
            hr_copy_slot(out, rows[row] + output->column.offset, bytes);
            continue;
        }
        statuses[row] = hr_settle_value(call, output, row, &slot);
        if (slot == HR_SLOT_VALUE) hr_copy_slot(out, rows[row] + output->column.offset, bytes);
        else if (slot == HR_SLOT_DEFAULT) hr_copy_slot(out, output->default_value, bytes);
        else memset(out, 0, bytes);
    }
}

static inline void hr_write_variable(
    const hr_call *call, const hr_output *output, uint8_t *values, uint8_t *offsets, uint8_t *statuses)
{
    uint32_t end = 0;
    int ok = 1;
    hr_store_u32(offsets, 0);
    for (uint32_t row = 0; row < call->row_count; row++) {
        uint8_t slot;
        hr_span value;
        statuses[row] = hr_settle_value(call, output, row, &slot);
        value = hr_variable_value(call, output, row, slot, &ok);
        if (hr_span_bytes(value) > 0) memcpy(values + end, value.at, hr_span_bytes(value));
        end += (uint32_t)hr_span_bytes(value);
        hr_store_u32(offsets + 4 * ((size_t)row + 1), end);
    }
}

static inline void hr_write_event_times(const hr_call *call, uint32_t group, uint8_t *out)
{
    const uint8_t *const *rows = call->rows + (size_t)group * call->row_count;
    for (uint32_t row = 0; row < call->row_count; row++)
        hr_store_u64(out + 8 * (size_t)row, rows[row] != NULL ? hr_load_u64(rows[row] + HR_ROW_EVENT_TIME) : 0);
}

typedef struct {
    uint8_t *values, *offsets, *statuses;
} hr_column_places;

static inline uint8_t *hr_write_field(uint8_t *out, uint32_t field, uint64_t bytes, uint8_t **place)
{
    out = hr_write_length(out, field, bytes);
    *place = out;
    return out + bytes;
}

/* Writes a column's frame and event times, and tells where its values, offsets and statuses go. */
static inline uint8_t *hr_write_frame(const hr_call *call, uint32_t number, uint8_t *out, hr_column_places *places)
{
    const hr_output *output = &call->plan->outputs[number];
    uint64_t rows = call->row_count;
    int names = hr_sends_names(call);
    uint8_t *event_times;
    out = hr_write_length(out, 1, call->message_bytes[number]);
    if (names) {
        memcpy(out, output->head, output->head_bytes);
        out += output->head_bytes;
    }
    places->values = out;
    if (call->value_bytes[number] > 0) out = hr_write_field(out, 2, call->value_bytes[number], &places->values);
    places->offsets = NULL;
    if (output->column.is_variable) out = hr_write_field(out, 3, 4 * (rows + 1), &places->offsets);
    out = hr_write_field(out, 4, rows, &places->statuses);
    if (call->request.include_event_times) {
        out = hr_write_field(out, 5, 8 * rows, &event_times);
        if (output->group == HR_ON_DEMAND_GROUP) hr_write_result_times(call, output, event_times);
        else hr_write_event_times(call, output->group, event_times);
    }
    if (names) {
        memcpy(out, output->tail, output->tail_bytes);
        out += output->tail_bytes;
    }
    return out;
}

/* One block of rows through all fixed-width columns of a group, so that the rows are read while in L1. */
static inline void hr_write_group_block(
    const hr_call *call, const hr_group *group, uint32_t number, const hr_column_places *places, uint32_t first, uint32_t last)
{
    const uint8_t *const *rows = call->rows + (size_t)number * call->row_count;
    for (uint32_t i = group->first_output; i < group->first_output + group->output_count; i++) {
        uint32_t at = call->plan->by_group[i];
        const hr_output *output = &call->plan->outputs[at];
        if (output->column.is_variable) continue;
        if (!call->group_plain[number]) {
            hr_gather_mixed(call, output, first, last, places[at].values, places[at].statuses);
            continue;
        }
        hr_gather_plain(output, rows + first, places[at].values + (size_t)output->column.slot_bytes * first, last - first);
        memset(places[at].statuses + first, HR_PRESENT, last - first);
    }
}

static inline void hr_write_groups(const hr_call *call, const hr_column_places *places)
{
    for (uint32_t number = 0; number < call->plan->group_count; number++) {
        const hr_group *group = &call->plan->groups[number];
        for (uint32_t first = 0; first < call->row_count; first += HR_BLOCK_ROWS) {
            uint32_t last = first + HR_BLOCK_ROWS < call->row_count ? first + HR_BLOCK_ROWS : call->row_count;
            hr_write_group_block(call, group, number, places, first, last);
        }
    }
    for (uint32_t i = 0; i < call->plan->output_count; i++) {
        const hr_output *output = &call->plan->outputs[i];
        if (output->group == HR_ON_DEMAND_GROUP)
            hr_write_result(call, output, places[i].values, places[i].offsets, places[i].statuses);
        else if (output->column.is_variable)
            hr_write_variable(call, output, places[i].values, places[i].offsets, places[i].statuses);
    }
}

static inline void hr_write_rest(const hr_call *call, uint8_t *out)
{
    *out++ = 2 << 3;
    out = hr_write_varint(out, call->row_count);
    if (call->plan->revision != 0) {
        *out++ = 3 << 3;
        out = hr_write_varint(out, (uint64_t)call->plan->revision);
    }
    if (call->read_us != 0) {
        *out++ = 4 << 3;
        hr_write_varint(out, (uint64_t)call->read_us);
    }
}

/* Leaves the table. A thread that waits to enter it may hold the interpreter, so that whoever is inside must get
 * out without the interpreter: before any Python code runs, and before the GIL is taken again. */
static inline void hr_call_leave(hr_call *call)
{
    if (call->reader >= 0) hr_read_end(call->table, call->reader);
    call->reader = -1;
}

/* Writes exactly call->response_bytes and leaves the table. Returns HR_OK or no memory. */
static inline int hr_write_answer(hr_call *call, uint8_t *out)
{
    hr_column_places *places =
        hr_arena_take(&call->request.arena, call->plan->output_count * sizeof(hr_column_places));
    if (places != NULL) {
        for (uint32_t i = 0; i < call->plan->output_count; i++) out = hr_write_frame(call, i, out, &places[i]);
        hr_write_groups(call, places);
        hr_write_rest(call, out);
    }
    hr_call_leave(call);
    return places != NULL ? HR_OK : HR_E_NO_MEMORY;
}

/* The published plan that the request selects, or NULL. */
static inline const hr_plan *hr_call_plan(const hr_call *call, const hr_plan_set *set)
{
    hr_span handle = call->request.handle;
    const hr_plan *plan;
    if (hr_span_bytes(handle) == 0)
        return hr_span_bytes(call->request.feature_service) > 0 ? hr_plan_find(set, call->request.feature_service) : NULL;
    plan = hr_plan_find(set, handle);
    /* Names and handles share one table: a service's name of 32 bytes is no handle. */
    return plan != NULL && memcmp(plan->handle, handle.at, HR_HANDLE_BYTES) == 0 ? plan : NULL;
}

/* ---- the request core ---- */

/* Parses and chooses the plan; hr_call_find goes on. Always end with hr_call_end. `given` overrides the published plans. */
static inline int hr_call_open(
    hr_call *call, hr_table *table, const hr_plan_set *set, const hr_plan *given, const hr_overlay *overlay,
    int64_t read_us, const uint8_t *bytes, size_t length)
{
    int status = hr_request_parse(&call->request, bytes, length);
    call->table = table;
    call->overlay = overlay;
    call->read_us = read_us;
    call->reader = -1;
    if (status != HR_OK) return status;
    call->plan = given != NULL ? given : hr_call_plan(call, set);
    return call->plan != NULL ? HR_OK : HR_UNRESOLVED;
}

/* Finds rows, computes and measures. On HR_OK call hr_write_answer with response_bytes of room. */
static inline int hr_call_find(hr_call *call)
{
    int status;
    call->reader = hr_read_begin(call->table);
    status = hr_resolve_rows(call);
    if (status == HR_OK && call->request.min_offset_count > 0 && call->overlay == NULL) status = HR_MISS;
    if (status == HR_OK) status = hr_compute_on_demand(call);
    if (status == HR_OK) status = hr_measure_answer(call);
    if (status != HR_OK) hr_call_leave(call);
    return status;
}

static inline int hr_call_begin(
    hr_call *call, hr_table *table, const hr_plan_set *set, const hr_plan *given, const hr_overlay *overlay,
    int64_t read_us, const uint8_t *bytes, size_t length)
{
    int status = hr_call_open(call, table, set, given, overlay, read_us, bytes, length);
    return status == HR_OK ? hr_call_find(call) : status;
}

static inline void hr_call_end(hr_call *call)
{
    hr_call_leave(call);
    hr_arena_free(&call->request.arena);
}

#endif
