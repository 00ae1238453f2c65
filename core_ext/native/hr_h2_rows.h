/* A peer's BatchGetRows answered from the row table: whole, or not at all. */
#ifndef HR_H2_ROWS_H
#define HR_H2_ROWS_H

#include "hr_h2.h"

enum { HR_H2_ROWS_MAX = 4096 };  /* keys of one batch: about a millisecond of the loop; larger ones are Python's */

/* What a batch asks for; keys are spans into the request. */
typedef struct {
    uint32_t count;
    hr_span keys[HR_H2_ROWS_MAX];
    const uint8_t *rows[HR_H2_ROWS_MAX];
} hr_peer_batch;

/* Fields of BatchGetRowsRequest: ring_epoch 1, keys 2, min_offsets 3. HR_MISS where it is not just keys. */
static inline int hr_read_keys(hr_span in, hr_peer_batch *batch)
{
    uint32_t field, type;
    batch->count = 0;
    while (in.at < in.end) {
        uint64_t epoch;
        if (!hr_read_tag(&in, &field, &type)) return HR_E_MALFORMED;
        if (field == 1 && type == HR_WIRE_VARINT) {
            if (!hr_read_varint(&in, &epoch)) return HR_E_MALFORMED;
            if (epoch != 0) return HR_MISS;
        } else if (field == 2 && type == HR_WIRE_LEN) {
            if (batch->count == HR_H2_ROWS_MAX) return HR_MISS;
            if (!hr_read_bytes(&in, &batch->keys[batch->count++])) return HR_E_MALFORMED;
        } else return HR_MISS;
    }
    return HR_OK;
}

/* Finds every row; the table is entered. A key that the table knows is one that storage was asked for, so it is sound. */
static inline int hr_find_keys(hr_table *table, hr_peer_batch *batch, uint64_t *bytes)
{
    *bytes = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        hr_span key = batch->keys[i];
        const hr_entry *entry;
        size_t prefix_bytes;
        if (hr_span_bytes(key) <= HR_ENTITY_ID_BYTES + HR_VIEW_ID_BYTES) return HR_MISS;
        prefix_bytes = hr_span_bytes(key) - HR_VIEW_ID_BYTES;
        entry = hr_table_find(table, hr_table_hash(key.at, prefix_bytes), key.at, prefix_bytes);
        if (entry == NULL || !hr_entry_row(entry, hr_load_u32_be(key.at + prefix_bytes), &batch->rows[i])) return HR_MISS;
        *bytes += hr_length_bytes(batch->rows[i] != NULL ? hr_load_u32(batch->rows[i] + HR_ROW_LENGTH) : 0);
    }
    return HR_OK;
}

/* Rows in the order of the keys: field 1 of BatchGetRowsResponse. */
static inline void hr_write_rows(const hr_peer_batch *batch, uint8_t *out)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        uint32_t bytes = batch->rows[i] != NULL ? hr_load_u32(batch->rows[i] + HR_ROW_LENGTH) : 0;
        out = hr_write_length(out, 1, bytes);
        if (bytes > 0) memcpy(out, batch->rows[i], bytes);
        out += bytes;
    }
}

/* Prefix and message of the answer, for the caller to free; anything but HR_OK is for the back to answer. */
static inline int hr_answer_rows(hr_server *server, hr_span message, size_t room, uint8_t **answer, size_t *bytes)
{
    hr_peer_batch *batch = malloc(sizeof(*batch));
    uint64_t body = 0;
    int status, reader;
    if (batch == NULL) return HR_E_NO_MEMORY;
    status = hr_read_keys(message, batch);
    if (status == HR_OK) {
        reader = hr_read_begin(server->table);
        status = hr_find_keys(server->table, batch, &body);
        if (status == HR_OK && body + HR_GRPC_PREFIX_BYTES > room) status = HR_E_RESPONSE_TOO_LARGE;
        *bytes = body + HR_GRPC_PREFIX_BYTES;
        if (status == HR_OK && (*answer = malloc(*bytes)) == NULL) status = HR_E_NO_MEMORY;
        if (status == HR_OK) {
            (*answer)[0] = 0;
            hr_store_u32_be(*answer + 1, (uint32_t)body);
            hr_write_rows(batch, *answer + HR_GRPC_PREFIX_BYTES);
        }
        hr_read_end(server->table, reader);
    }
    free(batch);
    return status;
}

#endif
