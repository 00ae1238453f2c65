/* Values of a Parquet column chunk taken where they lie: wanted rows are picked out of the pages, others stay encoded.
 *
 * For flat columns of 4 or 8 bytes in data pages of version 1, plain or by dictionary. Whatever else a chunk holds is
 * HR_PAGES_OTHER, and so is a damaged one: a general reader then decodes it, or says what is wrong with it. */
#ifndef HR_PAGES_H
#define HR_PAGES_H

#include <stdlib.h>

#include "hr_page_header.h"
#include "hr_snappy.h"

enum { HR_PAGES_OK = 0, HR_PAGES_OTHER = 1, HR_PAGES_NO_MEMORY = 2 };
enum { HR_CODEC_NONE = 0, HR_CODEC_SNAPPY = 1, HR_CODEC_ZSTD = 2 };
#define HR_PAGE_BYTES_MAX (1 << 24)  /* of a page that is decompressed; writers make pages of about 1 MiB */

typedef struct {
    uint8_t *at;
    size_t capacity;
} hr_page_room;

/* The caller's way to decompress a zstd block: whether it is whole and gives exactly out_bytes. */
typedef int (*hr_page_inflate)(void *context, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes);

/* One chunk; what is decompressed lies in the rooms, which the next chunk uses again. */
typedef struct {
    const uint8_t *at, *end;  /* what is left of the chunk */
    int codec, is_nullable;
    uint32_t width;           /* bytes of a value, 4 or 8 */
    int64_t row_count;
    const uint8_t *dictionary;
    int64_t dictionary_count;
    size_t dictionary_gap;    /* bytes between two stretches of a dictionary that is read where it stands compressed */
    hr_page_room dictionary_room, page_room, level_room;
    hr_page_inflate inflate;
    void *context;            /* of inflate */
} hr_pages;

/* Numbers in runs: a repeated one, or some packed to `bits` each. */
typedef struct {
    const uint8_t *at, *end;
    uint32_t bits;
    int64_t first, past;      /* numbers of the current run */
    const uint8_t *packed;    /* NULL in a repeated run */
    const uint8_t *packed_end;
    uint32_t repeated;
} hr_runs;

/* Values of one page, null ones left out. */
typedef struct {
    const uint8_t *plain;     /* NULL where they are numbers of the dictionary */
    int64_t plain_count;
    hr_runs runs;
    const uint8_t *levels;    /* one byte a row, 0 for null; NULL where no row is null */
} hr_page_values;

/* Which rows of the chunk go where; nulls[target] becomes 1 where the value is null. Without `sources` they are all
 * rows, none of them null, and they go to their own number. */
typedef struct {
    const uint32_t *sources, *targets;
    int64_t count;
    uint8_t *values, *nulls;
} hr_page_wanted;

static inline void hr_pages_close(hr_pages *pages)
{
    free(pages->dictionary_room.at);
    free(pages->page_room.at);
    free(pages->level_room.at);
}

static inline uint8_t *hr_page_reserve(hr_page_room *room, size_t count)
{
    if (count <= room->capacity) return room->at;
    free(room->at);
    room->at = malloc(count);
    room->capacity = room->at != NULL ? count : 0;
    return room->at;
}

/* ---- runs ---- */

static inline hr_runs hr_runs_of(const uint8_t *at, const uint8_t *end, uint32_t bits)
{
    return (hr_runs){at, end, bits, 0, 0, NULL, NULL, 0};
}

/* Goes on to the next run; 0 where there is none. */
static inline int hr_runs_next(hr_runs *runs)
{
    hr_thrift in = {runs->at, runs->end, 0};
    uint64_t head = hr_thrift_varint(&in);
    uint32_t i, bytes = (runs->bits + 7) / 8;
    size_t left = (size_t)(in.end - in.at);
    if (in.is_broken || head >> 1 == 0 || head >> 1 > INT32_MAX) return 0;
    runs->first = runs->past;
    if (head & 1) {
        uint64_t size = (head >> 1) * runs->bits;  /* groups of 8 numbers take `bits` bytes each */
        if (size > left) return 0;
        runs->past += 8 * (int64_t)(head >> 1);
        runs->packed = in.at;
        runs->packed_end = runs->at = in.at + size;
        return 1;
    }
    if (bytes > left) return 0;
    for (runs->repeated = 0, i = 0; i < bytes; i++) runs->repeated |= (uint32_t)in.at[i] << 8 * i;
    runs->packed = NULL;
    runs->past += (int64_t)(head >> 1);
    runs->at = in.at + bytes;
    return 1;
}

/* The same for levels, which are 0 or 1. */
static inline int hr_runs_next_level(hr_runs *runs)
{
    return hr_runs_next(runs) && (runs->packed != NULL || runs->repeated <= 1);
}

/* Number i of the current run, which holds it. */
static inline uint32_t hr_runs_number(const hr_runs *runs, int64_t i)
{
    uint64_t bit, word = 0;
    const uint8_t *from;
    if (runs->packed == NULL) return runs->repeated;
    bit = (uint64_t)(i - runs->first) * runs->bits;
    from = runs->packed + (bit >> 3);
    if (runs->packed_end - from >= 8) word = hr_load_u64(from);
    else if (runs->packed_end > from) memcpy(&word, from, (size_t)(runs->packed_end - from));
    return (uint32_t)(word >> (bit & 7) & ((1ULL << runs->bits) - 1));
}

/* ---- pages ---- */

/* Bytes of a page as they were before they were compressed, NULL where they are not whole. */
static inline const uint8_t *hr_page_plain(const hr_pages *pages, const hr_page_header *header, hr_page_room *room)
{
    const uint8_t *stands;
    uint8_t *to;
    if (pages->codec == HR_CODEC_NONE) return header->plain_bytes == header->stored_bytes ? pages->at : NULL;
    if (header->plain_bytes > HR_PAGE_BYTES_MAX) return NULL;
    if (pages->codec == HR_CODEC_SNAPPY && header->plain_bytes <= HR_SNAPPY_STRETCH) {
        stands = hr_snappy_literals(pages->at, (size_t)header->stored_bytes, (size_t)header->plain_bytes);
        if (stands != NULL) return stands;
    }
    to = hr_page_reserve(room, (size_t)header->plain_bytes + 1);
    if (to == NULL) return NULL;
    if (pages->codec == HR_CODEC_SNAPPY)
        return hr_snappy_decompress(pages->at, (size_t)header->stored_bytes, to, (size_t)header->plain_bytes) ? to : NULL;
    return pages->inflate(pages->context, pages->at, (size_t)header->stored_bytes, to, (size_t)header->plain_bytes)
               ? to : NULL;
}

static inline int hr_pages_take_dictionary(hr_pages *pages, const hr_page_header *header)
{
    int is_plain = header->encoding == HR_ENCODING_PLAIN || header->encoding == HR_ENCODING_OLD_DICTIONARY;
    if (pages->dictionary != NULL || !is_plain || header->value_count < 0) return HR_PAGES_OTHER;
    if (header->value_count > header->plain_bytes / pages->width) return HR_PAGES_OTHER;
    pages->dictionary_count = header->value_count;
    pages->dictionary_gap = HR_SNAPPY_GAP;
    pages->dictionary = pages->codec == HR_CODEC_SNAPPY && header->plain_bytes <= HR_PAGE_BYTES_MAX
        ? hr_snappy_literals(pages->at, (size_t)header->stored_bytes, (size_t)header->plain_bytes) : NULL;
    if (pages->dictionary != NULL) return HR_PAGES_OK;
    pages->dictionary_gap = 0;
    pages->dictionary = hr_page_plain(pages, header, &pages->dictionary_room);
    return pages->dictionary == NULL ? HR_PAGES_OTHER : HR_PAGES_OK;
}

/* Levels of a page in *at, which moves behind them. */
static inline int hr_page_levels(
    hr_pages *pages, const hr_page_header *header, const uint8_t **at, const uint8_t *end, const uint8_t **levels)
{
    int64_t i = 0, past, count = header->value_count;
    uint32_t size;
    uint8_t *to;
    hr_runs runs;
    if (header->level_encoding != HR_ENCODING_RLE || end - *at < 4) return HR_PAGES_OTHER;
    size = hr_load_u32(*at);
    *at += 4;
    if (size > (size_t)(end - *at)) return HR_PAGES_OTHER;
    runs = hr_runs_of(*at, *at + size, 1);
    *at += size;
    if (!hr_runs_next_level(&runs)) return HR_PAGES_OTHER;
    if (runs.packed == NULL && runs.repeated == 1 && runs.past >= count) return HR_PAGES_OK;
    *levels = to = hr_page_reserve(&pages->level_room, (size_t)count + 1);
    if (to == NULL) return HR_PAGES_NO_MEMORY;
    for (;;) {
        past = runs.past < count ? runs.past : count;
        for (; i < past; i++) to[i] = (uint8_t)(hr_runs_number(&runs, i) & 1);
        if (i == count) return HR_PAGES_OK;
        if (!hr_runs_next_level(&runs)) return HR_PAGES_OTHER;
    }
}

static inline int hr_page_open(hr_pages *pages, const hr_page_header *header, hr_page_values *values)
{
    const uint8_t *at = hr_page_plain(pages, header, &pages->page_room), *end;
    int status;
    memset(values, 0, sizeof(*values));
    if (at == NULL) return HR_PAGES_OTHER;
    end = at + header->plain_bytes;
    if (pages->is_nullable) {
        status = hr_page_levels(pages, header, &at, end, &values->levels);
        if (status != HR_PAGES_OK) return status;
    }
    if (header->encoding == HR_ENCODING_PLAIN) {
        values->plain = at;
        values->plain_count = (end - at) / pages->width;
        return HR_PAGES_OK;
    }
    if (header->encoding != HR_ENCODING_DICTIONARY && header->encoding != HR_ENCODING_OLD_DICTIONARY)
        return HR_PAGES_OTHER;
    if (pages->dictionary == NULL) return HR_PAGES_OTHER;
    if (at == end) {  /* only nulls */
        values->runs = hr_runs_of(at, end, 0);
        return HR_PAGES_OK;
    }
    if (*at > 32) return HR_PAGES_OTHER;
    values->runs = hr_runs_of(at + 1, end, *at);
    return HR_PAGES_OK;
}

/* Where a number of the dictionary leads; no value crosses the end of a stretch. */
static inline const uint8_t *hr_page_entry(const hr_pages *pages, uint64_t number, uint32_t width)
{
    size_t offset = (size_t)number * width;
    return pages->dictionary + offset + offset / HR_SNAPPY_STRETCH * pages->dictionary_gap;
}

/* Where value v of a page lies, NULL where it is not there. Values are asked for in ascending order. */
static inline const uint8_t *hr_page_value(const hr_pages *pages, hr_page_values *values, int64_t v, uint32_t width)
{
    uint32_t number;
    if (values->plain != NULL) return v < values->plain_count ? values->plain + v * width : NULL;
    while (v >= values->runs.past)
        if (!hr_runs_next(&values->runs)) return NULL;
    number = hr_runs_number(&values->runs, v);
    return number < pages->dictionary_count ? hr_page_entry(pages, number, width) : NULL;
}

/* Past the numbers of a packed run that can be read eight bytes at once, up to the end of the page. */
static inline int64_t hr_runs_safe(const hr_runs *runs)
{
    int64_t safe;
    if (runs->packed == NULL || runs->bits == 0 || runs->end - runs->packed < 8) return runs->first;
    safe = 8 * (runs->end - runs->packed - 8) / runs->bits + runs->first;
    return safe < runs->past ? safe : runs->past;
}

/* hr_page_pick where the page has numbers of the dictionary and no null. */
static inline int hr_page_pick_numbers(
    const hr_pages *pages, hr_runs *runs, int64_t first, const hr_page_wanted *wanted, int64_t from, int64_t to,
    uint32_t width)
{
    const uint64_t mask = (1ULL << runs->bits) - 1, dictionary_count = (uint64_t)pages->dictionary_count;
    int64_t i = from, row, safe;
    uint64_t number, bit;
    while (i < to) {
        row = wanted->sources[i] - first;
        while (row >= runs->past)
            if (!hr_runs_next(runs)) return HR_PAGES_OTHER;
        for (safe = hr_runs_safe(runs); row < safe; row = wanted->sources[i] - first) {
            bit = (uint64_t)(row - runs->first) * runs->bits;
            number = hr_load_u64(runs->packed + (bit >> 3)) >> (bit & 7) & mask;
            if (number >= dictionary_count) return HR_PAGES_OTHER;
            memcpy(wanted->values + (size_t)wanted->targets[i] * width, hr_page_entry(pages, number, width), width);
            if (++i == to) return HR_PAGES_OK;
        }
        if (row >= runs->past) continue;
        number = hr_runs_number(runs, row);
        if (number >= dictionary_count) return HR_PAGES_OTHER;
        memcpy(wanted->values + (size_t)wanted->targets[i++] * width, hr_page_entry(pages, number, width), width);
    }
    return HR_PAGES_OK;
}

/* Wanted rows [from, to), all of them in the page whose first row is `first`; `width` is a constant wherever called. */
static inline int hr_page_pick(
    const hr_pages *pages, hr_page_values *values, int64_t first, const hr_page_wanted *wanted, int64_t from,
    int64_t to, uint32_t width)
{
    int64_t i, row, counted = 0, before = 0;  /* `before` values stand in the rows [0, counted) of the page */
    if (values->levels == NULL && values->plain == NULL)
        return hr_page_pick_numbers(pages, &values->runs, first, wanted, from, to, width);
    for (i = from; i < to; i++) {
        size_t target = wanted->targets[i];
        const uint8_t *value;
        row = wanted->sources[i] - first;
        if (values->levels != NULL) {
            for (; counted < row; counted++) before += values->levels[counted];
            if (values->levels[row] == 0) {
                wanted->nulls[target] = 1;
                memset(wanted->values + target * width, 0, width);
                continue;
            }
            row = before;
        }
        value = hr_page_value(pages, values, row, width);
        if (value == NULL) return HR_PAGES_OTHER;
        memcpy(wanted->values + target * width, value, width);
    }
    return HR_PAGES_OK;
}

/* All values of a page without nulls, in order; `width` is a constant wherever this is called. */
static inline int hr_page_fill(
    const hr_pages *pages, hr_page_values *values, uint8_t *to, int64_t count, uint32_t width)
{
    const uint64_t mask = (1ULL << values->runs.bits) - 1, dictionary_count = (uint64_t)pages->dictionary_count;
    const uint32_t bits = values->runs.bits;
    hr_runs *runs = &values->runs;
    int64_t i = 0, past, safe;
    uint64_t number, bit;
    if (values->plain != NULL) {
        if (count > values->plain_count) return HR_PAGES_OTHER;
        memcpy(to, values->plain, (size_t)count * width);
        return HR_PAGES_OK;
    }
    while (i < count) {
        if (!hr_runs_next(runs)) return HR_PAGES_OTHER;
        past = runs->past < count ? runs->past : count;
        safe = hr_runs_safe(runs);
        if (safe > past) safe = past;
        for (bit = 0; i < safe; i++, bit += bits) {
            number = hr_load_u64(runs->packed + (bit >> 3)) >> (bit & 7) & mask;
            if (number >= dictionary_count) return HR_PAGES_OTHER;
            memcpy(to + (size_t)i * width, hr_page_entry(pages, number, width), width);
        }
        for (; i < past; i++) {
            number = hr_runs_number(runs, i);
            if (number >= dictionary_count) return HR_PAGES_OTHER;
            memcpy(to + (size_t)i * width, hr_page_entry(pages, number, width), width);
        }
    }
    return HR_PAGES_OK;
}

/* Rows [done, past) of what is wanted, from the page whose first row is `first`. */
static inline int hr_page_take(
    hr_pages *pages, const hr_page_header *header, int64_t first, const hr_page_wanted *wanted, int64_t done,
    int64_t past)
{
    hr_page_values values;
    int status = hr_page_open(pages, header, &values);
    if (status != HR_PAGES_OK) return status;
    if (wanted->sources != NULL)
        return pages->width == 4 ? hr_page_pick(pages, &values, first, wanted, done, past, 4)
                                 : hr_page_pick(pages, &values, first, wanted, done, past, 8);
    if (values.levels != NULL) return HR_PAGES_OTHER;
    return pages->width == 4 ? hr_page_fill(pages, &values, wanted->values + 4 * done, past - done, 4)
                             : hr_page_fill(pages, &values, wanted->values + 8 * done, past - done, 8);
}

/* The first place from `done` on whose source is `end` or more. */
static inline int64_t hr_page_wanted_before(const hr_page_wanted *wanted, int64_t done, int64_t end)
{
    int64_t past = wanted->count;
    if (wanted->sources == NULL) return end < past ? end : past;
    while (done < past) {
        int64_t middle = done + ((past - done) >> 1);
        if (wanted->sources[middle] < end) done = middle + 1;
        else past = middle;
    }
    return done;
}

/* Takes the wanted rows of a chunk, whose sources ascend and are rows of it. */
static inline int hr_pages_take(hr_pages *pages, const hr_page_wanted *wanted)
{
    int64_t first = 0, done = 0, past;
    int status = HR_PAGES_OK;
    pages->dictionary = NULL;
    while (status == HR_PAGES_OK && done < wanted->count) {
        hr_page_header header;
        size_t head = hr_page_header_read(pages->at, (size_t)(pages->end - pages->at), &header);
        if (head == 0) return HR_PAGES_OTHER;
        pages->at += head;
        if (header.type == HR_PAGE_DICTIONARY) {
            status = hr_pages_take_dictionary(pages, &header);
        } else if (header.type != HR_PAGE_DATA) {
            return HR_PAGES_OTHER;
        } else if (header.value_count < 0 || header.value_count > pages->row_count - first
                   || header.level_encoding < 0 || header.repeat_encoding < 0) {
            return HR_PAGES_OTHER;
        } else {
            int64_t end = first + header.value_count;
            past = hr_page_wanted_before(wanted, done, end);
            if (past > done) status = hr_page_take(pages, &header, first, wanted, done, past);
            done = past, first = end;
        }
        pages->at += header.stored_bytes;
    }
    return status;
}

#endif
