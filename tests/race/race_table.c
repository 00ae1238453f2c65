/* Runs the row table from many threads at once, or one thread short of memory, and checks what readers see.
 *
 * Storage is an array of versions. A writer commits a version, applies its row, then publishes that it did. A
 * filler takes a ticket, reads storage and fills. A reader notes what was published before it looks: a row found
 * must be whole, of the entity asked for, and not older than that.
 *
 *   race_table SECONDS SEED READERS    threads of every kind, a thread that clears now and then
 *   race_table short SEED STEPS        one thread, one allocation in 4 fails
 *   race_table held SEED STEPS         one thread fills while one read lasts: nothing can be freed meanwhile */
#include <time.h>

#include "counted_memory.h"
#include "rows.h"

enum {
    ENTITIES = 512, VIEWS = 3,
    WRITERS = 2, FILLERS = 2, READERS_MAX = 16,
    CAPACITY_BYTES = 420 << 10   /* about half of the rows: eviction never rests */
};

static uint32_t committed[ENTITIES][VIEWS];   /* atomic: version in storage; 0: no row */
static uint32_t published[ENTITIES][VIEWS];   /* atomic: version applied to the table */
static int stopping;                          /* atomic */
static uint64_t hits, negatives, misses, fills, dropped, applies;   /* atomic */
static hr_table *table;

static void read_one(worker *self)
{
    uint32_t entity = draw(self, ENTITIES), least[VIEWS];
    uint8_t prefix[PREFIX_BYTES];
    const hr_entry *entry;
    int reader;
    prefix_of(entity, prefix);
    for (uint32_t view = 0; view < VIEWS; view++)
        least[view] = __atomic_load_n(&published[entity][view], __ATOMIC_SEQ_CST);
    reader = hr_read_begin(table);
    entry = hr_table_find(table, hr_table_hash(prefix, PREFIX_BYTES), prefix, PREFIX_BYTES);
    for (uint32_t view = 0; view < VIEWS; view++) {
        const uint8_t *row;
        if (entry == NULL || !hr_entry_row(entry, view, &row)) {
            count(&misses, 1);
        } else if (row != NULL) {
            check_row(row, entity, view, least[view]);
            count(&hits, 1);
        } else {
            if (least[view] > 0) fault("no row", entity, view, 0, least[view]);
            count(&negatives, 1);
        }
    }
    hr_read_end(table, reader);
}

/* Each entity has one writer, as each shard has. */
static void write_one(worker *self)
{
    uint32_t entity = draw(self, ENTITIES / WRITERS) * WRITERS + self->number % WRITERS;
    uint32_t view = draw(self, VIEWS - entity % 2);  /* every other entity keeps a view without a row */
    uint32_t version = __atomic_load_n(&committed[entity][view], __ATOMIC_RELAXED) + 1;
    uint8_t prefix[PREFIX_BYTES], row[HR_ROW_BITMAP + 8 * WORDS_MAX + 4];
    hr_row_put put = {view, make_row(row, entity, view, version), row};
    prefix_of(entity, prefix);
    __atomic_store_n(&committed[entity][view], version, __ATOMIC_SEQ_CST);
    hr_table_apply(table, prefix, PREFIX_BYTES, &put, 1);
    __atomic_store_n(&published[entity][view], version, __ATOMIC_SEQ_CST);
    count(&applies, 1);
}

static void fill_one(worker *self)
{
    uint32_t entity = draw(self, ENTITIES);
    uint8_t prefix[PREFIX_BYTES], rows[VIEWS][HR_ROW_BITMAP + 8 * WORDS_MAX + 4];
    hr_row_put puts[VIEWS];
    uint64_t ticket = hr_table_ticket(table);
    prefix_of(entity, prefix);
    for (uint32_t view = 0; view < VIEWS; view++) {
        uint32_t version = __atomic_load_n(&committed[entity][view], __ATOMIC_SEQ_CST);
        puts[view] = (hr_row_put){view, 0, NULL};
        if (version == 0) continue;
        puts[view].row_bytes = make_row(rows[view], entity, view, version);
        puts[view].row = rows[view];
    }
    if (draw(self, 64) == 0) sched_yield();  /* a write may pass between the read and the fill */
    count(hr_table_fill(table, prefix, PREFIX_BYTES, puts, VIEWS, ticket) == 1 ? &fills : &dropped, 1);
}

static void *work(void *argument, void (*step)(worker *))
{
    while (!__atomic_load_n(&stopping, __ATOMIC_RELAXED)) step(argument);
    return NULL;
}

static void *reads(void *argument) { return work(argument, read_one); }
static void *writes(void *argument) { return work(argument, write_one); }
static void *fills_in(void *argument) { return work(argument, fill_one); }

static void *clears(void *argument)
{
    struct timespec pause = {0, 200 * 1000 * 1000};
    (void)argument;
    while (!__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
        nanosleep(&pause, NULL);
        hr_table_clear(table);
    }
    return NULL;
}

/* What the table says that it uses must be what it took, and stay within its bound. */
static void check_memory(int is_settled)
{
    int64_t taken = counted_bytes + (int64_t)sizeof(hr_table), used = (int64_t)hr_table_bytes(table);
    if (used != taken) fault("bytes said and bytes taken", 0, 0, (uint32_t)used, (uint32_t)taken);
    if (is_settled && used > CAPACITY_BYTES) fault("bytes over the bound", 0, 0, (uint32_t)used, CAPACITY_BYTES);
}

static void print_counts(void)
{
    printf("hits %lu negatives %lu misses %lu ", hits, negatives, misses);
    printf("fills %lu dropped %lu applies %lu faults %lu\n", fills, dropped, applies, faults);
}

static void race(double seconds, uint64_t seed, uint32_t readers)
{
    pthread_t threads[READERS_MAX + WRITERS + FILLERS + 1];
    worker workers[READERS_MAX + WRITERS + FILLERS];
    struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    uint32_t started = 0;
    for (uint32_t i = 0; i < readers + WRITERS + FILLERS; i++) {
        void *(*job)(void *) = i < readers ? reads : i < readers + WRITERS ? writes : fills_in;
        workers[i] = (worker){(seed + i + 1) * 0x9E3779B97F4A7C15ULL, i};
        pthread_create(&threads[started++], NULL, job, &workers[i]);
    }
    pthread_create(&threads[started++], NULL, clears, NULL);
    nanosleep(&pause, NULL);
    __atomic_store_n(&stopping, 1, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    /* No reader is left, so that one more write in each segment frees what was retired. */
    for (uint32_t i = 0; i < ENTITIES; i++) fill_one(&workers[0]);
    check_memory(1);
    print_counts();
    if (hits == 0 || negatives == 0 || misses == 0 || fills == 0 || applies == 0) fault("an idle thread", 0, 0, 0, 0);
}

static void run_short(uint64_t seed, uint32_t steps)
{
    worker self = {(seed + 1) * 0x9E3779B97F4A7C15ULL, 0};
    shortage_state ^= self.state;
    shortage_one_in = 4;
    for (uint32_t i = 0; i < steps; i++) {
        uint32_t kind = draw(&self, 100);
        self.number = draw(&self, WRITERS);
        if (kind < 40) read_one(&self);
        else if (kind < 70) write_one(&self);
        else if (kind < 99 || draw(&self, 100) > 0) fill_one(&self);
        else hr_table_clear(table);
    }
    shortage_one_in = 0;
    for (uint32_t i = 0; i < ENTITIES; i++) fill_one(&self);
    print_counts();
    if (hits == 0 || dropped == 0) fault("an idle step", 0, 0, 0, 0);
}

static uint64_t entities_held(void)
{
    uint64_t held = 0;
    for (int i = 0; i < HR_SEGMENTS; i++) held += table->segments[i].entity_count;
    return held;
}

/* What waits to be freed must not push out what is live: else one long read empties a full table. */
static void run_held(uint64_t seed, uint32_t steps)
{
    worker self = {(seed + 1) * 0x9E3779B97F4A7C15ULL, 0};
    uint64_t before;
    int reader;
    for (uint32_t i = 0; i < 20 * ENTITIES; i++) i % 4 == 0 ? write_one(&self) : fill_one(&self);
    before = entities_held();
    reader = hr_read_begin(table);
    for (uint32_t i = 0; i < steps; i++) fill_one(&self);
    if (entities_held() < before / 2)
        fault("a long read emptied the table", 0, 0, (uint32_t)entities_held(), (uint32_t)before);
    hr_read_end(table, reader);
    for (uint32_t i = 0; i < 20 * ENTITIES; i++) fill_one(&self);
    check_memory(1);
    print_counts();
}

int main(int count_of_arguments, char **arguments)
{
    int64_t empty_bytes, own_bytes;
    if (count_of_arguments != 4) return 2;
    table = hr_table_new(CAPACITY_BYTES);
    if (table == NULL) return 2;
    own_bytes = (int64_t)malloc_usable_size(table) + 8;  /* taken by posix_memalign, which is not counted */
    empty_bytes = (int64_t)hr_table_bytes(table);
    if (strcmp(arguments[1], "short") == 0) {
        run_short(strtoull(arguments[2], NULL, 10), (uint32_t)strtoul(arguments[3], NULL, 10));
    } else if (strcmp(arguments[1], "held") == 0) {
        run_held(strtoull(arguments[2], NULL, 10), (uint32_t)strtoul(arguments[3], NULL, 10));
    } else {
        race(strtod(arguments[1], NULL), strtoull(arguments[2], NULL, 10), (uint32_t)strtoul(arguments[3], NULL, 10));
        hr_table_clear(table);
        check_memory(1);
        if ((int64_t)hr_table_bytes(table) != empty_bytes)
            fault("bytes after clear", 0, 0, (uint32_t)hr_table_bytes(table), (uint32_t)empty_bytes);
        hr_table_free(table);
        if (counted_bytes != -own_bytes) fault("bytes left", 0, 0, (uint32_t)(counted_bytes + own_bytes), 0);
    }
    return faults == 0 ? 0 : 1;
}
