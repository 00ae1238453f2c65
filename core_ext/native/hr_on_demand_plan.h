/* On-demand features of a plan: expressions over features of the plan, request data and one another.
 * docs/decisions/0026-on-demand.md gives the rules. */
#ifndef HR_ON_DEMAND_PLAN_H
#define HR_ON_DEMAND_PLAN_H

#include "hr_expression_run.h"
#include "hr_idle.h"
#include "hr_request_data.h"

enum { HR_FROM_FEATURE = 1, HR_FROM_REQUEST = 2, HR_FROM_PROGRAM = 3 };
enum {
    HR_ON_DEMAND_IDLE_MAX = 8,               /* readers kept for the next read */
    HR_ON_DEMAND_ROWS_MAX = 64,              /* rows of one pass: registers of fifty programs stay in the L2 cache */
    HR_ON_DEMAND_STEPS_MAX = 1 << 20,        /* instructions times rows that a loop runs: about 3 ms */
    HR_ON_DEMAND_SCRATCH_BYTES_MAX = 16 << 20
};

/* What a program reads: an input of the plan, a request field, or the result of an earlier program. */
typedef struct {
    uint32_t from, place;
} hr_on_demand_source;

typedef struct {
    const hr_expression *program;
    hr_on_demand_source *sources;            /* one per input of the program */
    const uint8_t *default_value;
    uint32_t default_bytes;
    int has_default, fallback;
} hr_on_demand_program;

/* What one read needs; one thread at a time. */
typedef struct {
    hr_scratch *scratches;                   /* one per program */
} hr_on_demand_reader;

typedef struct {
    uint32_t field_count, program_count, block_rows;
    hr_request_field *fields;
    hr_on_demand_program *programs;          /* each after those that it reads */
    void *idle[HR_ON_DEMAND_IDLE_MAX];           /* hr_on_demand_reader */
} hr_on_demand;

/* Rows of one pass: as many as keep the registers of all programs within their bound. */
static inline uint32_t hr_on_demand_block_rows(const hr_on_demand *view)
{
    uint64_t row_bytes = 1, rows;
    uint32_t block_rows = HR_ON_DEMAND_ROWS_MAX;
    for (uint32_t i = 0; i < view->program_count; i++) {
        const hr_expression *program = view->programs[i].program;
        row_bytes += (uint64_t)program->instruction_count * (sizeof(hr_text) + 1);
        if (program->block_rows < block_rows) block_rows = program->block_rows;
    }
    rows = HR_ON_DEMAND_SCRATCH_BYTES_MAX / row_bytes;
    if (rows < block_rows) block_rows = (uint32_t)rows;
    return block_rows > 0 ? block_rows : 1;
}

static inline void hr_on_demand_reader_close(const hr_on_demand *view, hr_on_demand_reader *reader)
{
    if (reader == NULL) return;
    for (uint32_t i = 0; reader->scratches != NULL && i < view->program_count; i++)
        hr_scratch_close(&reader->scratches[i]);
    free(reader->scratches);
    free(reader);
}

static inline hr_on_demand_reader *hr_on_demand_reader_open(const hr_on_demand *view)
{
    hr_on_demand_reader *reader = calloc(1, sizeof(*reader));
    int ok;
    if (reader == NULL) return NULL;
    reader->scratches = calloc((size_t)view->program_count + 1, sizeof(hr_scratch));
    ok = reader->scratches != NULL;
    for (uint32_t i = 0; ok && i < view->program_count; i++)
        ok = hr_scratch_open(&reader->scratches[i], view->programs[i].program, view->block_rows);
    if (ok) return reader;
    hr_on_demand_reader_close(view, reader);
    return NULL;
}

/* A reader from the idle ones, else a new one; NULL: no memory. */
static inline hr_on_demand_reader *hr_on_demand_take(hr_on_demand *view)
{
    hr_on_demand_reader *reader = hr_idle_take(view->idle, HR_ON_DEMAND_IDLE_MAX);
    return reader != NULL ? reader : hr_on_demand_reader_open(view);
}

static inline void hr_on_demand_give_back(hr_on_demand *view, hr_on_demand_reader *reader)
{
    if (!hr_idle_put(view->idle, HR_ON_DEMAND_IDLE_MAX, reader)) hr_on_demand_reader_close(view, reader);
}

#endif
