/* Rows of views whose values are computed when read: windows folded at T, then derived expressions.
 *
 * A stored row holds the latest columns and, for windows, a tile map. What a read answers from is its image: a row in
 * memory with every column of the view, without a checksum. All that follows a read is then the same for both. */
#ifndef HR_COMPUTED_H
#define HR_COMPUTED_H

#include "hr_expression_run.h"
#include "hr_idle.h"
#include "hr_row.h"
#include "hr_rules.h"
#include "hr_window_fold.h"

enum { HR_FROM_LATEST = 1, HR_FROM_WINDOW = 2, HR_FROM_DERIVED = 3 };
enum { HR_COMPUTED_IDLE_MAX = 16 };  /* readers kept for the next read */
enum { HR_COMPUTED_OK = 0, HR_COMPUTED_CORRUPT, HR_COMPUTED_TOO_LONG, HR_COMPUTED_NO_MEMORY };

/* Where a column comes from: a stored column, a feature of the window plan, or a program. */
typedef struct {
    uint8_t from;
    uint32_t place;
} hr_computed_source;

/* A derived column; its program reads `inputs`, columns of the view that are not derived. */
typedef struct {
    const hr_expression *program;
    uint32_t *inputs;
} hr_computed_program;

typedef struct hr_computed_reader hr_computed_reader;

typedef struct {
    const hr_window_plan *windows;  /* NULL: the view has none, and its rows no tile map */
    uint32_t schema_id, column_count, fixed_bytes, stored_count, stored_fixed_bytes, program_count;
    const hr_column *columns, *stored;
    hr_computed_source *sources;    /* one per column */
    hr_computed_program *programs;
    void *idle[HR_COMPUTED_IDLE_MAX];           /* hr_computed_reader */
} hr_computed;

/* What one image needs; one thread at a time. */
struct hr_computed_reader {
    hr_window_fold fold;
    hr_scratch *scratches;  /* one per program */
    hr_cell *cells;         /* one per column; of lists only is_null and the bytes, as text */
    hr_cell *inputs;        /* of one program */
};

static inline void hr_computed_reader_close(const hr_computed *view, hr_computed_reader *reader)
{
    uint32_t i;
    if (reader == NULL) return;
    if (view->windows != NULL) hr_fold_close(&reader->fold);
    for (i = 0; reader->scratches != NULL && i < view->program_count; i++) hr_scratch_close(&reader->scratches[i]);
    free(reader->scratches);
    free(reader->cells);
    free(reader->inputs);
    free(reader);
}

static inline hr_computed_reader *hr_computed_reader_open(const hr_computed *view)
{
    hr_computed_reader *reader = calloc(1, sizeof(*reader));
    uint32_t i, ok;
    if (reader == NULL) return NULL;
    reader->scratches = calloc((size_t)view->program_count + 1, sizeof(hr_scratch));
    reader->cells = calloc((size_t)view->column_count + 1, sizeof(hr_cell));
    reader->inputs = calloc((size_t)view->column_count + 1, sizeof(hr_cell));
    ok = reader->scratches != NULL && reader->cells != NULL && reader->inputs != NULL;
    if (ok && view->windows != NULL) ok = hr_fold_open(&reader->fold, view->windows) == HR_WINDOW_OK;
    for (i = 0; ok && i < view->program_count; i++)
        ok = (uint32_t)hr_scratch_open(&reader->scratches[i], view->programs[i].program, 1);
    if (ok) return reader;
    hr_computed_reader_close(view, reader);
    return NULL;
}

/* A reader from the idle ones, else a new one; NULL: no memory. */
static inline hr_computed_reader *hr_computed_take(hr_computed *view)
{
    hr_computed_reader *reader = hr_idle_take(view->idle, HR_COMPUTED_IDLE_MAX);
    return reader != NULL ? reader : hr_computed_reader_open(view);
}

static inline void hr_computed_give_back(hr_computed *view, hr_computed_reader *reader)
{
    if (!hr_idle_put(view->idle, HR_COMPUTED_IDLE_MAX, reader)) hr_computed_reader_close(view, reader);
}

/* ---- cells ---- */

static inline void hr_cell_of_slot(const hr_column *column, const uint8_t *row, hr_cell *cell)
{
    const uint8_t *at = row + column->offset;
    float single;
    switch (column->scalar) {
    case HR_BOOL: cell->value.integer = *at; break;
    case HR_I32: case HR_DATE: cell->value.integer = hr_load_i32(at); break;
    case HR_F32: memcpy(&single, at, 4); cell->value.number = single; break;
    default: cell->value.integer = hr_load_i64(at);  /* the bits of a double as well */
    }
}

/* 0: the bounds of the value do not hold. */
static inline int hr_cell_of_row(const hr_column *column, uint32_t index, const uint8_t *row, hr_cell *cell)
{
    uint32_t start, length, heap, heap_bytes;
    cell->is_null = row == NULL || hr_is_null(row, index);
    if (cell->is_null) return 1;
    if (!column->is_variable && column->shape == HR_FIXED) {
        cell->value.text.at = row + column->offset, cell->value.text.length = column->slot_bytes;
        return 1;
    }
    if (!column->is_variable) {
        hr_cell_of_slot(column, row, cell);
        return 1;
    }
    start = hr_load_u32(row + column->offset), length = hr_load_u32(row + column->offset + 4);
    heap = hr_load_u32(row + HR_ROW_HEAP), heap_bytes = hr_row_heap_end(row) - heap;
    if (start > heap_bytes || length > heap_bytes - start) return 0;
    cell->value.text.at = row + heap + start, cell->value.text.length = length;
    return 1;
}

static inline void hr_cell_of_window(const hr_window_fold *fold, const hr_column *column, uint32_t place, hr_cell *cell)
{
    const hr_window_value *value = &fold->values[place];
    cell->is_null = value->is_null;
    if (value->is_null) return;
    if (!column->is_variable) {
        cell->value.integer = value->i;
        return;
    }
    cell->value.text.at = value->heap.length > 0 ? fold->heap.at + value->heap.start : (const uint8_t *)"";
    cell->value.text.length = value->heap.length;
}

static inline int hr_computed_cells(
    const hr_computed *view, hr_computed_reader *reader, const uint8_t *row, int64_t read_us)
{
    uint32_t i, k, tiles = row != NULL ? hr_load_u32(row + HR_ROW_TILES) : 0;
    if (view->windows != NULL) {
        const uint8_t *map = tiles != 0 ? row + tiles : NULL;
        size_t bytes = tiles != 0 ? hr_load_u32(row + HR_ROW_LENGTH) - HR_ROW_CRC_BYTES - tiles : 0;
        int status = hr_window_fold_at(&reader->fold, map, bytes, read_us);
        if (status == HR_WINDOW_NO_MEMORY) return HR_COMPUTED_NO_MEMORY;
        if (status != HR_WINDOW_OK) return HR_COMPUTED_CORRUPT;
    }
    for (i = 0; i < view->column_count; i++) {
        const hr_computed_source *source = &view->sources[i];
        if (source->from == HR_FROM_WINDOW)
            hr_cell_of_window(&reader->fold, &view->columns[i], source->place, &reader->cells[i]);
        else if (source->from == HR_FROM_LATEST
                 && !hr_cell_of_row(&view->stored[source->place], source->place, row, &reader->cells[i]))
            return HR_COMPUTED_CORRUPT;
    }
    for (i = 0; i < view->column_count; i++) {
        const hr_computed_program *derived;
        if (view->sources[i].from != HR_FROM_DERIVED) continue;
        derived = &view->programs[view->sources[i].place];
        for (k = 0; k < derived->program->input_count; k++) reader->inputs[k] = reader->cells[derived->inputs[k]];
        if (!hr_expression_eval_row(&reader->scratches[view->sources[i].place], reader->inputs, &reader->cells[i]))
            return HR_COMPUTED_NO_MEMORY;
    }
    return HR_COMPUTED_OK;
}

/* ---- the image ---- */

/* Places the cells in the heap of the image: its bytes, or UINT64_MAX when no row could hold them. */
static inline uint64_t hr_image_bytes(const hr_computed *view, const hr_computed_reader *reader)
{
    uint64_t bytes = view->fixed_bytes;
    for (uint32_t i = 0; i < view->column_count; i++) {
        if (!view->columns[i].is_variable || reader->cells[i].is_null) continue;
        bytes = ((bytes + 7) & ~(uint64_t)7) + reader->cells[i].value.text.length;
        if (bytes > HR_ROW_BYTES_MAX) return UINT64_MAX;
    }
    return ((bytes + 3) & ~(uint64_t)3) + HR_ROW_CRC_BYTES;
}

/* Writes the row of the reader's cells into `to`, which has the `bytes` that hr_image_bytes said. */
static inline void hr_image_write(
    const hr_computed *view, const hr_computed_reader *reader, const uint8_t *row, uint32_t bytes, uint8_t *to)
{
    uint32_t i, end = 0;
    uint16_t flags = 0;
    memset(to, 0, bytes);
    if (row != NULL) memcpy(to, row, HR_ROW_BITMAP);
    to[0] = HR_ROW_MAGIC, to[1] = HR_ROW_LAYOUT;
    hr_store_u32(to + HR_ROW_LENGTH, bytes);
    hr_store_u32(to + HR_ROW_SCHEMA_ID, view->schema_id);
    hr_store_u32(to + HR_ROW_HEAP, view->fixed_bytes);
    hr_store_u32(to + HR_ROW_TILES, 0);
    for (i = 0; i < view->column_count; i++) {
        const hr_column *column = &view->columns[i];
        const hr_cell *cell = &reader->cells[i];
        if (cell->is_null) {
            to[HR_ROW_BITMAP + (i >> 3)] |= (uint8_t)(1 << (i & 7));
            flags = HR_FLAG_HAS_NULLS;
        } else if (column->is_variable) {
            uint32_t length = (uint32_t)cell->value.text.length;
            if (length == 0) continue;
            end = (end + 7) & ~7U;
            memcpy(to + view->fixed_bytes + end, cell->value.text.at, length);
            hr_store_u32(to + column->offset, end);
            hr_store_u32(to + column->offset + 4, length);
            end += length;
        } else if (column->shape == HR_FIXED) {
            memcpy(to + column->offset, cell->value.text.at, column->slot_bytes);
        } else {
            hr_value value = {.i = cell->value.integer};  /* the bits of a float as well */
            hr_scalar_store(column->scalar, &value, to + column->offset);
        }
    }
    to[HR_ROW_FLAGS] = (uint8_t)flags, to[HR_ROW_FLAGS + 1] = 0;
}

/* ---- merging ---- */

/* Row of the latest columns of `latest`, a row of the stored layout, and a tile map; 0 when it would be too long. */
static inline uint32_t hr_tiled_bytes(const uint8_t *latest, size_t map_bytes)
{
    uint64_t bytes = ((uint64_t)hr_row_heap_end(latest) + 3) / 4 * 4 + map_bytes + HR_ROW_CRC_BYTES;
    return bytes <= HR_ROW_BYTES_MAX && map_bytes % 4 == 0 ? (uint32_t)bytes : 0;
}

static inline void hr_tiled_write(
    const uint8_t *latest, const uint8_t *map, size_t map_bytes, uint32_t bytes, uint8_t *to)
{
    uint32_t heap_end = hr_row_heap_end(latest), tiles = bytes - HR_ROW_CRC_BYTES - (uint32_t)map_bytes;
    memcpy(to, latest, heap_end);
    memset(to + heap_end, 0, tiles - heap_end);
    memcpy(to + tiles, map, map_bytes);
    to[HR_ROW_FLAGS] |= HR_FLAG_HAS_TILES;
    hr_store_u32(to + HR_ROW_LENGTH, bytes);
    hr_store_u32(to + HR_ROW_TILES, tiles);
    hr_store_u32(to + bytes - HR_ROW_CRC_BYTES, hr_crc32c(0, to, bytes - HR_ROW_CRC_BYTES));
}

/* ---- replacing ---- */

/* Greatest log offset that a tile of a checked row holds, INT64_MIN where there is none. `sections` has room for those
 * of the plan. */
static inline int hr_row_covered(
    const hr_computed *view, const uint8_t *row, hr_window_section *sections, int64_t *covered)
{
    uint32_t i, k, tiles = hr_load_u32(row + HR_ROW_TILES);
    hr_window_map map;
    int status;
    *covered = INT64_MIN;
    if (tiles == 0) return HR_COMPUTED_OK;
    map.sections = sections;
    status = hr_window_open(
        view->windows, row + tiles, hr_load_u32(row + HR_ROW_LENGTH) - HR_ROW_CRC_BYTES - tiles, &map);
    if (status != HR_WINDOW_OK || map.kind != HR_MAP_FULL) return HR_COMPUTED_CORRUPT;
    for (i = 0; i < view->windows->section_count; i++) {
        for (k = 0; k < sections[i].count; k++) {
            const uint8_t *tile = sections[i].entries + (size_t)k * sections[i].entry_bytes;
            int64_t found = hr_load_i64(tile + HR_TILE_COVERED);
            if (found > *covered) *covered = found;
        }
    }
    return HR_COMPUTED_OK;
}

#endif
