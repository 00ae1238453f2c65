/* GetOnlineFeaturesRequest parsed in place: protos/feature/v1/online_feature_service.proto.
 *
 * Nothing is copied but key columns that arrive in pieces. Spans point into the request, which must outlive
 * the parse. Repeated and packed fields may come split or unpacked, in any order, as the format allows. */
#ifndef HR_REQUEST_H
#define HR_REQUEST_H

#include <stdlib.h>

#include "hr_layout.h"
#include "hr_request_data.h"
#include "hr_wire.h"

enum {
    HR_ROW_COUNT_MAX = 10000,     /* rows of one batch, DESIGN section 6 */
    HR_COLUMN_COUNT_MAX = 2000,   /* features of one batch, DESIGN section 6 */
    HR_ENTITY_COLUMNS_MAX = 64,   /* join key columns of one batch */
    HR_MIN_OFFSETS_MAX = 1024     /* as the contract says */
};
#define HR_STALENESS_SECONDS_MAX 315576000000LL  /* google.protobuf.Duration's own: 10,000 years */

/* Why a request is refused; core_ext/request_core.pyx gives each its reason and sentence. */
enum {
    HR_OK = 0, HR_MISS = 1, HR_UNRESOLVED = 2,
    HR_E_MALFORMED = 10, HR_E_NO_SELECTION, HR_E_TWO_SELECTIONS, HR_E_TOO_MANY_FEATURES, HR_E_NO_ROWS,
    HR_E_TOO_MANY_ROWS, HR_E_ROW_COUNT_MISMATCH, HR_E_TOO_MANY_COLUMNS, HR_E_TWO_KEY_TYPES, HR_E_EMPTY_KEY,
    HR_E_KEY_TOO_LONG, HR_E_NOT_UTF8, HR_E_NULL_ROWS, HR_E_UNKNOWN_JOIN_KEY, HR_E_MISSING_JOIN_KEY,
    HR_E_DUPLICATE_JOIN_KEY, HR_E_WRONG_KEY_TYPE, HR_E_REQUEST_COLUMN, HR_E_HANDLE_LENGTH, HR_E_STALENESS,
    HR_E_POLICY, HR_E_TOO_MANY_OFFSETS, HR_E_RESPONSE_TOO_LARGE, HR_E_STORED_ROW, HR_E_NO_MEMORY,
    HR_E_TOO_MANY_REQUEST_COLUMNS, HR_E_MISSING_REQUEST_FIELD, HR_E_DUPLICATE_REQUEST_COLUMN, HR_E_WRONG_REQUEST_TYPE,
    HR_E_REQUEST_LENGTH, HR_E_REQUEST_OFFSETS, HR_E_REQUEST_NULLS, HR_E_REQUEST_VALUE
};

/* Memory of one request, given back at once. */
typedef struct hr_arena_block {
    struct hr_arena_block *next;
    size_t used, room;
} hr_arena_block;
typedef struct {
    hr_arena_block *head;
} hr_arena;

enum { HR_ARENA_BLOCK_BYTES = 1 << 16 };

static inline void *hr_arena_take(hr_arena *arena, size_t bytes)
{
    hr_arena_block *block = arena->head;
    bytes = (bytes + 15) & ~(size_t)15;
    if (block == NULL || block->room - block->used < bytes) {
        size_t room = bytes > HR_ARENA_BLOCK_BYTES ? bytes : HR_ARENA_BLOCK_BYTES;
        block = malloc(sizeof(hr_arena_block) + 8 + room);
        if (block == NULL) return NULL;
        block->next = arena->head;
        block->used = 0;
        block->room = room;
        arena->head = block;
    }
    block->used += bytes;
    return (uint8_t *)block + ((sizeof(hr_arena_block) + 15) & ~(size_t)15) + block->used - bytes;
}

static inline void hr_arena_free(hr_arena *arena)
{
    while (arena->head != NULL) {
        hr_arena_block *next = arena->head->next;
        free(arena->head);
        arena->head = next;
    }
}

/* One join key column. `type` is HR_I64, HR_STRING, HR_BYTES, or 0 when it holds no value. */
typedef struct {
    hr_span message, join_key;
    uint32_t type, row_count;
    const uint8_t *int64_values;   /* row_count little-endian i64, unaligned */
    const hr_span *spans;          /* row_count strings or bytes */
    const uint8_t *null_bits;      /* bitmap, or NULL when no row is null */
} hr_entity_column;

typedef struct {
    hr_span feature_service, handle;
    uint32_t feature_count, column_count, request_column_count, min_offset_count, row_count;
    hr_entity_column columns[HR_ENTITY_COLUMNS_MAX];
    hr_request_column *request_columns;  /* NULL: none was sent */
    int include_event_times, include_expired, include_names, fail_when_partial, has_staleness;
    int32_t partial_policy, staleness_nanos;
    int64_t staleness_seconds;
    int64_t max_staleness_us;      /* -1: unset */
    hr_arena arena;
    /* Where a refusal points. */
    uint32_t bad_column, bad_row;
    uint64_t bad_count;
} hr_request;

typedef struct {
    uint64_t int_count, span_count[2], null_count;
    hr_span single_chunk;
    uint32_t chunk_count;
} hr_column_counts;

static inline int hr_count_column_field(hr_span *in, uint32_t field, uint32_t type, hr_entity_column *column,
                                        hr_column_counts *counts)
{
    hr_span bytes;
    uint64_t ignored;
    if (field == 2 && type == HR_WIRE_I64) {
        if (hr_span_bytes(*in) < 8) return 0;
        counts->int_count++;
        counts->chunk_count += 2;  /* not one packed chunk */
        in->at += 8;
        return 1;
    }
    if (field == 5 && type == HR_WIRE_VARINT) {
        counts->null_count++;
        return hr_read_varint(in, &ignored);
    }
    if (type != HR_WIRE_LEN || field > 5) return hr_skip_field(in, field, type, 1);
    if (!hr_read_bytes(in, &bytes)) return 0;
    if (field == 1) {
        if (!hr_is_utf8(bytes.at, hr_span_bytes(bytes))) return 0;
        column->join_key = bytes;
    } else if (field == 2) {
        if (hr_span_bytes(bytes) % 8 != 0) return 0;
        counts->int_count += hr_span_bytes(bytes) / 8;
        counts->chunk_count++;
        counts->single_chunk = bytes;
    } else if (field == 5) {
        while (bytes.at < bytes.end) {
            counts->null_count++;
            if (!hr_read_varint(&bytes, &ignored)) return 0;
        }
    } else {
        counts->span_count[field - 3]++;
    }
    return 1;
}

static inline int hr_gather_ints(const hr_entity_column *column, uint8_t *out)
{
    hr_span in = column->message, bytes;
    uint32_t field, type;
    while (in.at < in.end) {
        if (!hr_read_tag(&in, &field, &type)) return HR_E_MALFORMED;
        if (field == 2 && type == HR_WIRE_I64) {
            memcpy(out, in.at, 8);
            in.at += 8, out += 8;
        } else if (field == 2 && type == HR_WIRE_LEN) {
            if (!hr_read_bytes(&in, &bytes)) return HR_E_MALFORMED;
            if (hr_span_bytes(bytes) > 0) memcpy(out, bytes.at, hr_span_bytes(bytes));
            out += hr_span_bytes(bytes);
        } else if (!hr_skip_field(&in, field, type, 1)) {
            return HR_E_MALFORMED;
        }
    }
    return HR_OK;
}

static inline int hr_gather_spans(hr_request *request, const hr_entity_column *column, uint32_t number, hr_span *out)
{
    hr_span in = column->message;
    uint32_t field, type;
    while (in.at < in.end) {
        if (!hr_read_tag(&in, &field, &type)) return HR_E_MALFORMED;
        if (field == number && type == HR_WIRE_LEN) {
            if (!hr_read_bytes(&in, out)) return HR_E_MALFORMED;
            request->bad_row = (uint32_t)(out - column->spans);
            if (column->type == HR_STRING && !hr_is_utf8(out->at, hr_span_bytes(*out))) return HR_E_NOT_UTF8;
            out++;
        } else if (!hr_skip_field(&in, field, type, 1)) {
            return HR_E_MALFORMED;
        }
    }
    return HR_OK;
}

static inline int hr_mark_null(hr_request *request, uint8_t *bits, uint32_t row_count, int64_t *last, uint64_t raw)
{
    int64_t row = (int64_t)(int32_t)(uint32_t)raw;
    if (row <= *last || row >= (int64_t)row_count) {
        request->bad_count = (uint64_t)row;
        return 0;
    }
    bits[row >> 3] |= (uint8_t)(1 << (row & 7));
    *last = row;
    return 1;
}

static inline int hr_gather_nulls(hr_request *request, hr_entity_column *column, uint8_t *bits)
{
    hr_span in = column->message, bytes;
    uint32_t field, type;
    uint64_t raw;
    int64_t last = -1;
    while (in.at < in.end) {
        if (!hr_read_tag(&in, &field, &type)) return HR_E_MALFORMED;
        if (field == 5 && type == HR_WIRE_VARINT) {
            if (!hr_read_varint(&in, &raw)) return HR_E_MALFORMED;
            if (!hr_mark_null(request, bits, column->row_count, &last, raw)) return HR_E_NULL_ROWS;
        } else if (field == 5 && type == HR_WIRE_LEN) {
            if (!hr_read_bytes(&in, &bytes)) return HR_E_MALFORMED;
            while (bytes.at < bytes.end) {
                if (!hr_read_varint(&bytes, &raw)) return HR_E_MALFORMED;
                if (!hr_mark_null(request, bits, column->row_count, &last, raw)) return HR_E_NULL_ROWS;
            }
        } else if (!hr_skip_field(&in, field, type, 1)) {
            return HR_E_MALFORMED;
        }
    }
    return HR_OK;
}

static inline int hr_parse_values(hr_request *request, hr_entity_column *column, const hr_column_counts *counts)
{
    uint8_t *ints;
    hr_span *spans;
    int kinds = (counts->int_count > 0) + (counts->span_count[0] > 0) + (counts->span_count[1] > 0);
    uint64_t rows = counts->int_count + counts->span_count[0] + counts->span_count[1];
    if (kinds > 1) return HR_E_TWO_KEY_TYPES;
    request->bad_count = rows;
    if (rows > HR_ROW_COUNT_MAX) return HR_E_TOO_MANY_ROWS;
    column->row_count = (uint32_t)rows;
    if (kinds == 0) return HR_E_NO_ROWS;
    if (counts->int_count > 0) {
        column->type = HR_I64;
        column->int64_values = counts->single_chunk.at;
        if (counts->chunk_count == 1) return HR_OK;
        column->int64_values = ints = hr_arena_take(&request->arena, rows * 8);
        return ints == NULL ? HR_E_NO_MEMORY : hr_gather_ints(column, ints);
    }
    column->type = counts->span_count[0] > 0 ? HR_STRING : HR_BYTES;
    column->spans = spans = hr_arena_take(&request->arena, rows * sizeof(hr_span));
    if (spans == NULL) return HR_E_NO_MEMORY;
    return hr_gather_spans(request, column, column->type == HR_STRING ? 3 : 4, spans);
}

static inline int hr_parse_column(hr_request *request, hr_span message)
{
    hr_column_counts counts = {0};
    hr_entity_column *column;
    hr_span in = message;
    uint32_t field, type;
    uint8_t *bits;
    int status;
    if (request->column_count == HR_ENTITY_COLUMNS_MAX) return HR_E_TOO_MANY_COLUMNS;
    request->bad_column = request->column_count;
    column = &request->columns[request->column_count++];
    memset(column, 0, sizeof(*column));
    column->message = message;
    while (in.at < in.end) {
        if (!hr_read_tag(&in, &field, &type)) return HR_E_MALFORMED;
        if (!hr_count_column_field(&in, field, type, column, &counts)) return HR_E_MALFORMED;
    }
    status = hr_parse_values(request, column, &counts);
    if (status != HR_OK || counts.null_count == 0) return status;
    bits = hr_arena_take(&request->arena, (column->row_count + 7) / 8);
    if (bits == NULL) return HR_E_NO_MEMORY;
    memset(bits, 0, (column->row_count + 7) / 8);
    column->null_bits = bits;
    return hr_gather_nulls(request, column, bits);
}

static inline int hr_parse_request_column(hr_request *request, hr_span message)
{
    if (request->request_column_count == HR_REQUEST_COLUMNS_MAX) return HR_E_TOO_MANY_REQUEST_COLUMNS;
    if (request->request_columns == NULL)
        request->request_columns = hr_arena_take(&request->arena, HR_REQUEST_COLUMNS_MAX * sizeof(hr_request_column));
    if (request->request_columns == NULL) return HR_E_NO_MEMORY;
    return hr_read_request_column(message, &request->request_columns[request->request_column_count++])
        ? HR_OK : HR_E_MALFORMED;
}

/* google.protobuf.Duration; what a field sent twice holds is merged, as protobuf does. */
static inline int hr_parse_staleness(hr_request *request, hr_span in)
{
    uint64_t value;
    uint32_t field, type;
    request->has_staleness = 1;
    while (in.at < in.end) {
        if (!hr_read_tag(&in, &field, &type)) return HR_E_MALFORMED;
        if (field <= 2 && type == HR_WIRE_VARINT) {
            if (!hr_read_varint(&in, &value)) return HR_E_MALFORMED;
            if (field == 1) request->staleness_seconds = (int64_t)value;
            else request->staleness_nanos = (int32_t)(uint32_t)value;
        } else if (!hr_skip_field(&in, field, type, 2)) {
            return HR_E_MALFORMED;
        }
    }
    return HR_OK;
}

/* WriteToken: only that it is well-formed; who checks positions reads them again (request_messages.py). */
static inline int hr_parse_token(hr_request *request, hr_span in)
{
    uint32_t field, type;
    if (++request->min_offset_count > HR_MIN_OFFSETS_MAX) return HR_E_TOO_MANY_OFFSETS;
    while (in.at < in.end)
        if (!hr_read_tag(&in, &field, &type) || !hr_skip_field(&in, field, type, 2)) return HR_E_MALFORMED;
    return HR_OK;
}

static inline int hr_parse_option(hr_request *request, hr_span *in, uint32_t field, uint32_t type)
{
    uint64_t value;
    hr_span bytes;
    if (field <= 4 && type == HR_WIRE_VARINT) {
        if (!hr_read_varint(in, &value)) return HR_E_MALFORMED;
        if (field == 1) request->include_event_times = value != 0;
        if (field == 2) request->include_expired = value != 0;
        if (field == 3) request->include_names = value != 0;
        if (field == 4) request->partial_policy = (int32_t)(uint32_t)value;
        return HR_OK;
    }
    if ((field == 5 || field == 6) && type == HR_WIRE_LEN) {
        if (!hr_read_bytes(in, &bytes)) return HR_E_MALFORMED;
        return field == 5 ? hr_parse_staleness(request, bytes) : hr_parse_token(request, bytes);
    }
    return hr_skip_field(in, field, type, 1) ? HR_OK : HR_E_MALFORMED;
}

static inline int hr_parse_options(hr_request *request, hr_span in)
{
    uint32_t field, type;
    while (in.at < in.end) {
        int status;
        if (!hr_read_tag(&in, &field, &type)) return HR_E_MALFORMED;
        status = hr_parse_option(request, &in, field, type);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

static inline int hr_parse_field(hr_request *request, hr_span *in, uint32_t field, uint32_t type)
{
    hr_span bytes;
    if (type != HR_WIRE_LEN || field > 6)
        return hr_skip_field(in, field, type, 0) ? HR_OK : HR_E_MALFORMED;
    if (!hr_read_bytes(in, &bytes)) return HR_E_MALFORMED;
    switch (field) {
    case 1:
        request->feature_service = bytes;
        return hr_is_utf8(bytes.at, hr_span_bytes(bytes)) ? HR_OK : HR_E_MALFORMED;
    case 2:
        request->handle = bytes;
        return HR_OK;
    case 3:
        request->feature_count++;
        return hr_is_utf8(bytes.at, hr_span_bytes(bytes)) ? HR_OK : HR_E_MALFORMED;
    case 4:
        return hr_parse_column(request, bytes);
    case 5:
        return hr_parse_request_column(request, bytes);
    default:
        return hr_parse_options(request, bytes);
    }
}

/* Options are judged when all have been read: of a field sent twice the last one counts. */
static inline int hr_check_options(hr_request *request)
{
    int64_t seconds = request->staleness_seconds;
    int32_t nanos = request->staleness_nanos;
    if (request->partial_policy < 0 || request->partial_policy > 2) return HR_E_POLICY;
    request->fail_when_partial = request->partial_policy == 2;
    request->max_staleness_us = -1;
    if (!request->has_staleness) return HR_OK;
    if (seconds < 0 || seconds > HR_STALENESS_SECONDS_MAX || nanos < 0 || nanos > 999999999) return HR_E_STALENESS;
    /* Ages are whole microseconds: one is above the limit just when it is above the limit rounded down. */
    request->max_staleness_us = seconds * 1000000 + nanos / 1000;
    return HR_OK;
}

static inline int hr_check_request(hr_request *request)
{
    int selections = (hr_span_bytes(request->feature_service) > 0) + (hr_span_bytes(request->handle) > 0)
                   + (request->feature_count > 0);
    if (selections == 0) return HR_E_NO_SELECTION;
    if (selections > 1) return HR_E_TWO_SELECTIONS;
    if (hr_span_bytes(request->handle) > 0 && hr_span_bytes(request->handle) != 32) return HR_E_HANDLE_LENGTH;
    request->bad_count = request->feature_count;
    if (request->feature_count > HR_COLUMN_COUNT_MAX) return HR_E_TOO_MANY_FEATURES;
    request->bad_column = 0;
    if (request->column_count == 0) return HR_E_NO_ROWS;
    request->row_count = request->columns[0].row_count;
    for (uint32_t i = 1; i < request->column_count; i++) {
        request->bad_column = i;
        request->bad_count = request->columns[i].row_count;
        if (request->columns[i].row_count != request->row_count) return HR_E_ROW_COUNT_MISMATCH;
    }
    return hr_check_options(request);
}

/* HR_OK or why not; `request` must be zeroed, and its arena freed by the caller whatever the outcome. */
static inline int hr_request_parse(hr_request *request, const uint8_t *bytes, size_t length)
{
    hr_span in = {bytes, bytes + length};
    uint32_t field, type;
    while (in.at < in.end) {
        int status;
        if (!hr_read_tag(&in, &field, &type)) return HR_E_MALFORMED;
        status = hr_parse_field(request, &in, field, type);
        if (status != HR_OK) return status;
    }
    return hr_check_request(request);
}

#endif
