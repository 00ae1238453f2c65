/* Second half of a read: from rows to GetOnlineFeaturesResponse bytes, measured first, then written in place.
 *
 * Fields are written in ascending order and empty ones left out, as protobuf's own encoder does, so that the
 * bytes equal those of any proto3 implementation that writes fields in order. */
#ifndef HR_ANSWER_H
#define HR_ANSWER_H

#include "hr_gather.h"
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
    uint64_t rows = call->row_count, status_bytes = hr_length_bytes(rows), total = 0, framed_bytes = 0;
    int names = hr_sends_names(call);
    uint32_t framed = 0, framed_slot = 0;  /* a framed column before; a slot of 0: none yet */
    call->has_frames = !names;
    for (uint32_t i = 0; i < call->plan->output_count; i++) {
        const hr_output *output = &call->plan->outputs[i];
        uint64_t bytes = status_bytes;
        int status;
        if (call->has_frames && output->is_framed && output->column.slot_bytes == framed_slot) {
            call->value_bytes[i] = call->value_bytes[framed];
            call->message_bytes[i] = call->message_bytes[framed];
            total += framed_bytes;
            call->request.bad_count = total;
            if (total > HR_RESPONSE_BYTES_MAX) return HR_E_RESPONSE_TOO_LARGE;
            continue;
        }
        status = hr_measure_values(call, i);
        if (status != HR_OK) return status;
        if (call->value_bytes[i] > 0) bytes += hr_length_bytes(call->value_bytes[i]);
        if (output->column.is_variable) bytes += hr_length_bytes(4 * (rows + 1));
        if (call->request.include_event_times) bytes += hr_length_bytes(8 * rows);
        if (names) bytes += output->head_bytes + output->tail_bytes;
        call->message_bytes[i] = bytes;
        if (output->is_framed) framed = i, framed_slot = output->column.slot_bytes, framed_bytes = hr_length_bytes(bytes);
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

static inline uint8_t *hr_write_field(uint8_t *out, uint32_t field, uint64_t bytes, uint8_t **place)
{
    out = hr_write_length(out, field, bytes);
    *place = out;
    return out + bytes;
}

/* What stands before the values and before the statuses of columns of one width. */
typedef struct {
    uint32_t slot_bytes, head_bytes, middle_bytes;  /* slot_bytes 0: none yet */
    uint8_t head[2 * HR_LENGTH_BYTES_MAX], middle[HR_LENGTH_BYTES_MAX];
} hr_frame;

static inline void hr_make_frame(const hr_call *call, uint32_t number, hr_frame *frame)
{
    uint8_t *end = hr_write_length(frame->head, 1, call->message_bytes[number]);
    frame->head_bytes = (uint32_t)(hr_write_length(end, 2, call->value_bytes[number]) - frame->head);
    frame->middle_bytes = (uint32_t)(hr_write_length(frame->middle, 4, call->row_count) - frame->middle);
    frame->slot_bytes = call->plan->outputs[number].column.slot_bytes;
}

static inline uint8_t *hr_copy_frame(uint8_t *out, const uint8_t *bytes, uint32_t count)
{
    /* Of one row, and of some twenty: a call of memcpy would take longer. */
    if (count == 4) memcpy(out, bytes, 4);
    else if (count == 2) memcpy(out, bytes, 2);
    else memcpy(out, bytes, count);
    return out + count;
}

/* The same as hr_write_frame of a framed column. Statuses of a plain group are written with it, and of one row the
 * value as well. */
static inline uint8_t *hr_write_framed(
    const hr_call *call, uint32_t number, hr_frame *frame, uint8_t *out, hr_column_places *places)
{
    const hr_output *output = &call->plan->outputs[number];
    uint32_t rows = call->row_count, bytes = output->column.slot_bytes;
    if (frame->slot_bytes != bytes) hr_make_frame(call, number, frame);
    places->values = hr_copy_frame(out, frame->head, frame->head_bytes);
    places->statuses = hr_copy_frame(places->values + (size_t)bytes * rows, frame->middle, frame->middle_bytes);
    out = places->statuses + rows;
    if (call->group_plain[output->group]) {
        if (rows == 1) {
            hr_copy_slot(places->values, call->rows[output->group] + output->column.offset, bytes);
            *places->statuses = HR_PRESENT;
        } else memset(places->statuses, HR_PRESENT, rows);
    }
    if (!call->request.include_event_times) return out;
    out = hr_write_length(out, 5, 8 * (uint64_t)rows);
    hr_write_event_times(call, output->group, out);
    return out + 8 * (size_t)rows;
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

static inline void hr_write_groups(const hr_call *call, const hr_column_places *places)
{
    for (uint32_t number = 0; number < call->plan->group_count; number++) {
        const hr_group *group = &call->plan->groups[number];
        if (call->has_frames && call->row_count == 1 && call->group_plain[number]) continue;  /* written with the frames */
        for (uint32_t first = 0; first < call->row_count; first += HR_BLOCK_ROWS) {
            uint32_t last = first + HR_BLOCK_ROWS < call->row_count ? first + HR_BLOCK_ROWS : call->row_count;
            hr_gather_block(call, group, number, places, first, last);
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
        hr_frame frame = {0};
        for (uint32_t i = 0; i < call->plan->output_count; i++)
            out = call->has_frames && call->plan->outputs[i].is_framed
                ? hr_write_framed(call, i, &frame, out, &places[i]) : hr_write_frame(call, i, out, &places[i]);
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

/* Counts the rows of a read that will be answered. */
static inline void hr_count_rows(const hr_call *call)
{
    uint32_t part = (uint32_t)call->reader % HR_READ_COUNTERS;
    if (call->plan->reads == NULL) return;
    __atomic_add_fetch(&call->plan->reads[part * HR_READ_COUNTER_WORDS], call->row_count, __ATOMIC_RELAXED);
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
    if (status == HR_OK) hr_count_rows(call);
    else hr_call_leave(call);
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
