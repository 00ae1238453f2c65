/* Bytes on their way: appended at the end, taken from the start. */
#ifndef HR_H2_BUFFER_H
#define HR_H2_BUFFER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hr_request.h"

enum { HR_BUFFER_KEPT_BYTES = 4096 };  /* more is given back: three of them stay below what makes a connection greedy */

typedef struct {
    uint8_t *data;
    size_t start, end, room;
} hr_buffer;

static inline size_t hr_buffer_bytes(const hr_buffer *buffer) { return buffer->end - buffer->start; }

static inline int hr_buffer_reserve(hr_buffer *buffer, size_t more)
{
    size_t held = hr_buffer_bytes(buffer), room = buffer->room ? buffer->room : 512;
    uint8_t *grown;
    if (buffer->room - buffer->end >= more) return HR_OK;
    if (buffer->start > 0) {
        memmove(buffer->data, buffer->data + buffer->start, held);
        buffer->start = 0;
        buffer->end = held;
        if (buffer->room - held >= more) return HR_OK;
    }
    while (room < held + more) room *= 2;
    grown = realloc(buffer->data, room);
    if (grown == NULL) return HR_E_NO_MEMORY;
    buffer->data = grown;
    buffer->room = room;
    return HR_OK;
}

static inline int hr_buffer_add(hr_buffer *buffer, const void *data, size_t bytes)
{
    if (bytes == 0) return HR_OK;
    if (hr_buffer_reserve(buffer, bytes) != HR_OK) return HR_E_NO_MEMORY;
    memcpy(buffer->data + buffer->end, data, bytes);
    buffer->end += bytes;
    return HR_OK;
}

static inline void hr_buffer_take(hr_buffer *buffer, size_t bytes)
{
    buffer->start += bytes;
    if (buffer->start == buffer->end) buffer->start = buffer->end = 0;
}

static inline void hr_buffer_free(hr_buffer *buffer)
{
    free(buffer->data);
    memset(buffer, 0, sizeof(*buffer));
}

/* Empties it; gives back memory beyond what most calls need. */
static inline void hr_buffer_reset(hr_buffer *buffer)
{
    buffer->start = buffer->end = 0;
    if (buffer->room > HR_BUFFER_KEPT_BYTES) hr_buffer_free(buffer);
}

#endif
