/* On-demand features of one read: inputs gathered into columns, programs run over blocks of rows, results settled by
 * the value rules. No Python object and no lock; core_ext/twin/on_demand.py is the oracle. */
#ifndef HR_ON_DEMAND_H
#define HR_ON_DEMAND_H

#include "hr_settle.h"

enum { HR_NO_EVENT = 0 };  /* event time of a value that comes from no row */

/* One column of every row: an input of the plan, a request field, or the result of a program. Without statuses every
 * value is PRESENT or NULL, and without event times none has one. */
struct hr_on_demand_column {
    hr_register value;
    uint8_t *statuses;
    int64_t *event_us;
};

static inline int hr_take_column(hr_call *call, uint8_t type, int from_rows, hr_on_demand_column *column)
{
    hr_arena *arena = &call->request.arena;
    size_t rows = call->row_count;
    column->value.at.bytes = hr_arena_take(arena, rows * (hr_is_text(type) ? sizeof(hr_text) : 8));
    column->value.nulls = hr_arena_take(arena, rows);
    column->statuses = from_rows ? hr_arena_take(arena, rows) : NULL;
    column->event_us = from_rows ? hr_arena_take(arena, 8 * rows) : NULL;
    return column->value.at.bytes != NULL && column->value.nulls != NULL
        && (!from_rows || (column->statuses != NULL && column->event_us != NULL));
}

/* A fixed-width value as registers hold it. */
static inline void hr_load_slot(uint8_t type, const uint8_t *at, hr_register *to, uint32_t row)
{
    float single;
    switch (type) {
    case HR_BOOL: to->at.ints[row] = *at != 0; break;
    case HR_I32: case HR_DATE: to->at.ints[row] = hr_load_i32(at); break;
    case HR_F32: memcpy(&single, at, 4); to->at.floats[row] = hr_one_nan(single); break;
    case HR_F64: to->at.floats[row] = hr_one_nan(hr_load_f64(at)); break;
    default: to->at.ints[row] = hr_load_i64(at);
    }
}

static inline void hr_load_text(const uint8_t *at, size_t length, hr_register *to, uint32_t row)
{
    to->at.texts[row].at = length > 0 ? at : (const uint8_t *)"";
    to->at.texts[row].length = length;
}

/* ---- inputs ---- */

/* A feature as it is served without any option: expired values only where the view's own fallback serves them. */
static inline int hr_load_feature(hr_call *call, const hr_output *input, hr_on_demand_column *to)
{
    const uint8_t *const *rows = call->rows + (size_t)input->group * call->row_count;
    uint8_t type = input->column.scalar;
    if (!hr_take_column(call, type, 1, to)) return HR_E_NO_MEMORY;
    for (uint32_t row = 0; row < call->row_count; row++) {
        uint8_t slot;
        int ok = 1;
        to->statuses[row] = hr_settle_asked(call, input, row, 0, &slot);
        to->event_us[row] = rows[row] != NULL ? hr_load_i64(rows[row] + HR_ROW_EVENT_TIME) : HR_NO_EVENT;
        to->value.nulls[row] = slot == HR_SLOT_EMPTY;
        if (slot == HR_SLOT_EMPTY) {
            hr_clear_value(&to->value, type, row);
        } else if (hr_is_text(type)) {
            hr_span text = hr_variable_value(call, input, row, slot, &ok);
            if (!ok) return HR_E_STORED_ROW;
            hr_load_text(text.at, hr_span_bytes(text), &to->value, row);
        } else {
            const uint8_t *at = slot == HR_SLOT_VALUE ? rows[row] + input->column.offset : input->default_value;
            hr_load_slot(type, at, &to->value, row);
        }
    }
    return HR_OK;
}

static inline int hr_mark_request_nulls(hr_call *call, const hr_request_column *column, uint8_t *nulls)
{
    hr_entity_column rows = {0};
    uint8_t *bits;
    int status;
    memset(nulls, 0, call->row_count);
    if (column->null_count == 0) return HR_OK;
    bits = hr_arena_take(&call->request.arena, (call->row_count + 7) / 8);
    if (bits == NULL) return HR_E_NO_MEMORY;
    memset(bits, 0, (call->row_count + 7) / 8);
    rows.message = column->message, rows.row_count = call->row_count;
    status = hr_gather_nulls(&call->request, &rows, bits);
    if (status != HR_OK) return status == HR_E_NULL_ROWS ? HR_E_REQUEST_NULLS : status;
    for (uint32_t row = 0; row < call->row_count; row++) nulls[row] = bits[row >> 3] >> (row & 7) & 1;
    return HR_OK;
}

static inline int hr_load_request_value(const hr_request_column *column, uint8_t type, hr_register *to, uint32_t row)
{
    uint32_t width = hr_field_width(type), start, end;
    if (width > 0) {
        const uint8_t *at = column->values.at + (size_t)width * row;
        if (type == HR_BOOL && *at > 1) return 0;
        hr_load_slot(type, at, to, row);
        return 1;
    }
    start = hr_load_u32(column->offsets.at + 4 * (size_t)row);
    end = hr_load_u32(column->offsets.at + 4 * ((size_t)row + 1));
    if (type == HR_STRING && !hr_is_utf8(column->values.at + start, end - start)) return 0;
    hr_load_text(column->values.at + start, end - start, to, row);
    return 1;
}

/* A column of request data, which must be bound; every size and value is checked here. */
static inline int hr_load_request(hr_call *call, uint32_t number, hr_on_demand_column *to)
{
    const hr_request_field *field = &call->plan->on_demand->fields[number];
    const hr_request_column *column = &call->request.request_columns[call->request_columns_of_fields[number]];
    int status;
    call->request.bad_column = call->request_columns_of_fields[number];
    call->request.bad_count = field->type;
    call->bad_name = column->name;
    if (!hr_has_row_values(column, field->type, call->row_count)) return HR_E_REQUEST_LENGTH;
    if (!hr_has_row_offsets(column, field->type, call->row_count)) return HR_E_REQUEST_OFFSETS;
    if (!hr_take_column(call, (uint8_t)field->type, 0, to)) return HR_E_NO_MEMORY;
    status = hr_mark_request_nulls(call, column, to->value.nulls);
    if (status != HR_OK) return status;
    call->request.bad_count = field->type;
    for (uint32_t row = 0; row < call->row_count; row++) {
        call->request.bad_row = row;
        if (to->value.nulls[row]) hr_clear_value(&to->value, (uint8_t)field->type, row);
        else if (!hr_load_request_value(column, (uint8_t)field->type, &to->value, row)) return HR_E_REQUEST_VALUE;
    }
    return HR_OK;
}

/* ---- results ---- */

static inline const hr_on_demand_column *hr_source_column(const hr_call *call, const hr_on_demand_source *source)
{
    const hr_plan *plan = call->plan;
    if (source->from == HR_FROM_FEATURE) return &call->on_demand[source->place];
    if (source->from == HR_FROM_REQUEST) return &call->on_demand[plan->input_count + source->place];
    return &call->on_demand[plan->input_count + plan->on_demand->field_count + source->place];
}

/* Status of a result before its own default: one unavailable input makes it unavailable, and of a null result the
 * gravest reason among its inputs is told: expired, missing, else null. */
static inline uint8_t hr_on_demand_status(
    const hr_call *call, const hr_on_demand_program *program, uint32_t row, int is_null)
{
    uint8_t found = HR_PRESENT, stale = 0;
    for (uint32_t i = 0; i < program->program->input_count; i++) {
        const hr_on_demand_column *column = hr_source_column(call, &program->sources[i]);
        uint8_t status = column->statuses != NULL ? column->statuses[row] : HR_PRESENT;
        uint8_t state = status & HR_STATE_MASK, known = found & HR_STATE_MASK;
        if (state == HR_UNAVAILABLE) return HR_UNAVAILABLE | (status & HR_CAUSE_MASK);
        stale |= status & HR_STALE;
        if (!column->value.nulls[row]) continue;
        if (state == HR_EXPIRED) found = HR_EXPIRED;
        else if (state == HR_MISSING && known == HR_PRESENT) found = HR_MISSING | (status & HR_CAUSE_MASK);
    }
    return (is_null ? found : HR_PRESENT) | stale;
}

static inline int64_t hr_on_demand_event(const hr_call *call, const hr_on_demand_program *program, uint32_t row)
{
    int64_t newest = HR_NO_EVENT;
    for (uint32_t i = 0; i < program->program->input_count; i++) {
        const hr_on_demand_column *column = hr_source_column(call, &program->sources[i]);
        int64_t event_us = column->event_us != NULL ? column->event_us[row] : HR_NO_EVENT;
        if (event_us != HR_NO_EVENT && (newest == HR_NO_EVENT || event_us > newest)) newest = event_us;
    }
    return newest;
}

/* Keeps one result beyond its block. */
static inline int hr_keep_value(
    hr_call *call, uint8_t type, const hr_register *from, uint32_t at, hr_register *to, uint32_t row)
{
    const hr_text *text;
    uint8_t *kept;
    if (!hr_is_text(type)) {
        to->at.ints[row] = from->at.ints[at];  /* the bits of a float as well */
        return HR_OK;
    }
    text = &from->at.texts[at];
    call->on_demand_text_bytes += text->length;
    call->request.bad_count = call->on_demand_text_bytes;
    if (call->on_demand_text_bytes > HR_RESPONSE_BYTES_MAX) return HR_E_RESPONSE_TOO_LARGE;
    kept = hr_arena_take(&call->request.arena, text->length);
    if (kept == NULL) return HR_E_NO_MEMORY;
    if (text->length > 0) memcpy(kept, text->at, text->length);
    hr_load_text(kept, text->length, to, row);
    return HR_OK;
}

static inline int hr_settle_result(
    hr_call *call, const hr_on_demand_program *program, const hr_register *from, uint32_t at, hr_on_demand_column *to,
    uint32_t row)
{
    uint8_t type = program->program->result_type, slot;
    uint8_t status = hr_on_demand_status(call, program, row, from->nulls[at]);
    int is_null = from->nulls[at] || (status & HR_STATE_MASK) == HR_UNAVAILABLE;
    to->statuses[row] = hr_value_status(status, is_null, program->fallback, program->has_default, 0, &slot);
    to->event_us[row] = hr_on_demand_event(call, program, row);
    to->value.nulls[row] = slot == HR_SLOT_EMPTY;
    if (slot == HR_SLOT_VALUE) return hr_keep_value(call, type, from, at, &to->value, row);
    if (slot == HR_SLOT_EMPTY) hr_clear_value(&to->value, type, row);
    else if (hr_is_text(type)) hr_load_text(program->default_value, program->default_bytes, &to->value, row);
    else hr_load_slot(type, program->default_value, &to->value, row);
    return HR_OK;
}

static inline void hr_copy_block(uint8_t type, const hr_register *from, uint32_t first, uint32_t count, hr_register *to)
{
    size_t width = hr_is_text(type) ? sizeof(hr_text) : 8;
    memcpy(to->at.bytes, from->at.bytes + width * first, width * count);
    memcpy(to->nulls, from->nulls + first, count);
}

static inline int hr_run_block(
    hr_call *call, const hr_on_demand_program *program, hr_scratch *scratch, hr_on_demand_column *to, uint32_t first,
    uint32_t count)
{
    const hr_register *result = &scratch->registers[program->program->result];
    hr_text_arena_empty(&scratch->arena);
    for (uint32_t i = 0; i < program->program->instruction_count; i++) {
        hr_instruction at = hr_instruction_at(program->program, i);
        if (at.op != HR_OP_INPUT) continue;
        hr_copy_block(at.type, &hr_source_column(call, &program->sources[at.operand])->value, first, count,
                      &scratch->registers[i]);
    }
    if (!hr_expression_compute(scratch, count)) return HR_E_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        int status = hr_settle_result(call, program, result, i, to, first + i);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

static inline int hr_run_program(hr_call *call, hr_on_demand_reader *reader, uint32_t number, hr_on_demand_column *to)
{
    const hr_on_demand *view = call->plan->on_demand;
    const hr_on_demand_program *program = &view->programs[number];
    if (!hr_take_column(call, program->program->result_type, 1, to)) return HR_E_NO_MEMORY;
    for (uint32_t first = 0; first < call->row_count; first += view->block_rows) {
        uint32_t left = call->row_count - first, count = left < view->block_rows ? left : view->block_rows;
        int status = hr_run_block(call, program, &reader->scratches[number], to, first, count);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

/* Bytes that the answer has whatever its values are. */
static inline uint64_t hr_least_bytes(const hr_call *call)
{
    uint64_t row_bytes = 0;
    for (uint32_t i = 0; i < call->plan->output_count; i++) {
        const hr_column *column = &call->plan->outputs[i].column;
        row_bytes += 1 + (column->is_variable ? 4 : column->slot_bytes) + (call->request.include_event_times ? 8 : 0);
    }
    return row_bytes * call->row_count;
}

/* Refuses what can have no room, or would hold a loop for long, before it is computed. */
static inline int hr_check_work(hr_call *call)
{
    const hr_on_demand *view = call->plan->on_demand;
    uint64_t steps = 0;
    call->request.bad_count = hr_least_bytes(call);
    if (call->request.bad_count > (call->room > 0 ? call->room : HR_RESPONSE_BYTES_MAX)) return HR_E_RESPONSE_TOO_LARGE;
    if (call->room == 0) return HR_OK;
    for (uint32_t i = 0; i < view->program_count; i++) steps += view->programs[i].program->instruction_count;
    return steps * call->row_count <= HR_ON_DEMAND_STEPS_MAX ? HR_OK : HR_E_RESPONSE_TOO_LARGE;
}

static inline int hr_compute_columns(hr_call *call, hr_on_demand_reader *reader)
{
    const hr_plan *plan = call->plan;
    hr_on_demand_column *at = call->on_demand;
    int status = HR_OK;
    for (uint32_t i = 0; i < plan->input_count && status == HR_OK; i++)
        status = hr_load_feature(call, &plan->inputs[i], at++);
    for (uint32_t i = 0; i < plan->on_demand->field_count && status == HR_OK; i++)
        status = hr_load_request(call, i, at++);
    if (status == HR_OK) status = hr_check_work(call);
    for (uint32_t i = 0; i < plan->on_demand->program_count && status == HR_OK; i++)
        status = hr_run_program(call, reader, i, at++);
    return status;
}

/* Computes every on-demand feature of the plan; wants the rows, and leaves the results in call->on_demand. */
static inline int hr_compute_on_demand(hr_call *call)
{
    const hr_plan *plan = call->plan;
    hr_on_demand_reader *reader;
    size_t count;
    int status;
    if (plan->on_demand == NULL) return HR_OK;
    count = (size_t)plan->input_count + plan->on_demand->field_count + plan->on_demand->program_count;
    call->on_demand = hr_arena_take(&call->request.arena, count * sizeof(hr_on_demand_column));
    reader = call->on_demand != NULL ? hr_on_demand_take(plan->on_demand) : NULL;
    if (reader == NULL) return HR_E_NO_MEMORY;
    status = hr_compute_columns(call, reader);
    hr_on_demand_give_back(plan->on_demand, reader);
    return status;
}

/* ---- the answer ---- */

static inline const hr_on_demand_column *hr_result_column(const hr_call *call, const hr_output *output)
{
    const hr_on_demand_source source = {HR_FROM_PROGRAM, output->index};
    return hr_source_column(call, &source);
}

static inline uint64_t hr_measure_result(const hr_call *call, const hr_output *output)
{
    const hr_on_demand_column *column = hr_result_column(call, output);
    uint64_t total = 0;
    if (!output->column.is_variable) return (uint64_t)output->column.slot_bytes * call->row_count;
    for (uint32_t row = 0; row < call->row_count; row++) total += column->value.at.texts[row].length;
    return total;
}

static inline void hr_write_result(
    const hr_call *call, const hr_output *output, uint8_t *values, uint8_t *offsets, uint8_t *statuses)
{
    const hr_on_demand_column *column = hr_result_column(call, output);
    uint32_t end = 0, width = output->column.slot_bytes;
    memcpy(statuses, column->statuses, call->row_count);
    if (output->column.is_variable) hr_store_u32(offsets, 0);
    for (uint32_t row = 0; row < call->row_count; row++) {
        if (output->column.is_variable) {
            const hr_text *text = &column->value.at.texts[row];
            if (text->length > 0) memcpy(values + end, text->at, text->length);
            end += (uint32_t)text->length;
            hr_store_u32(offsets + 4 * ((size_t)row + 1), end);
        } else {
            hr_value value = {.i = column->value.at.ints[row]};  /* the bits of a float as well; 0 where null */
            hr_scalar_store(output->column.scalar, &value, values + (size_t)width * row);
        }
    }
}

static inline void hr_write_result_times(const hr_call *call, const hr_output *output, uint8_t *out)
{
    const hr_on_demand_column *column = hr_result_column(call, output);
    for (uint32_t row = 0; row < call->row_count; row++)
        hr_store_u64(out + 8 * (size_t)row, (uint64_t)column->event_us[row]);
}

#endif
