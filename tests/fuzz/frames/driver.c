/* Runs LLVMFuzzerTestOneInput on mutations of files, guided by the edges that they reach; needs gcc alone.
 *
 *   driver COUNT SEED FOLDER FILE...    COUNT mutations; inputs that reached something new are kept in FOLDER, "-" keeps
 *                                       none. COUNT 0 runs the files as they are.
 *
 * The target is compiled with -fsanitize-coverage=trace-pc, this file without. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_cov_trace_pc(void);

enum { EDGES = 1 << 16, INPUT_BYTES_MAX = 1 << 14, POOL_MAX = 4096, CHANGES_MAX = 5 };

typedef struct {
    uint8_t *data;
    size_t bytes;
} input;

static uint8_t reached[EDGES], known[EDGES];
static uintptr_t last_place;
static input pool[POOL_MAX];
static uint32_t pool_count;
static uint64_t state;

void __sanitizer_cov_trace_pc(void)
{
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    uintptr_t edge = (place ^ last_place) * 0x9E3779B97F4A7C15ULL >> 48;
    last_place = place >> 1;
    if (reached[edge] < 255) reached[edge]++;
}

static uint32_t draw(uint32_t below)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 11) % below;
}

static void keep(const uint8_t *data, size_t bytes)
{
    if (pool_count == POOL_MAX) return;
    pool[pool_count].data = malloc(bytes + 1);
    memcpy(pool[pool_count].data, data, bytes);
    pool[pool_count++].bytes = bytes;
}

/* How often an edge was passed, as a class: 1, 2, 3, 4 to 7, 8 to 15 and so on. */
static uint8_t class_of(uint8_t count)
{
    uint8_t class = 0;
    if (count < 4) return (uint8_t)(1 << count >> 1);
    for (class = 3; count >= 8 && class < 7; count >>= 1) class++;
    return (uint8_t)(1 << class);
}

static int run(const uint8_t *data, size_t bytes)
{
    int is_new = 0;
    memset(reached, 0, sizeof(reached));
    last_place = 0;
    LLVMFuzzerTestOneInput(data, bytes);
    for (uint32_t i = 0; i < EDGES; i++) {
        uint8_t class = class_of(reached[i]);
        is_new |= class & ~known[i];
        known[i] |= class;
    }
    return is_new != 0;
}

static size_t change(uint8_t *data, size_t bytes)
{
    const input *other = &pool[draw(pool_count)];
    size_t at = bytes > 0 ? draw((uint32_t)bytes) : 0, from = other->bytes > 0 ? draw((uint32_t)other->bytes) : 0, length;
    switch (draw(8)) {
    case 0:
        if (bytes > 0) data[at] ^= (uint8_t)(1 << draw(8));
        return bytes;
    case 1:
        if (bytes > 0) data[at] = (uint8_t)draw(256);
        return bytes;
    case 2:
        if (bytes > 0) data[at] = (uint8_t[]){0, 1, 127, 128, 255}[draw(5)];
        return bytes;
    case 3: /* leave out */
        length = 1 + draw(16);
        if (length > bytes - at) length = bytes - at;
        memmove(data + at, data + at + length, bytes - at - length);
        return bytes - length;
    case 4: /* repeat, or take in a part of another input */
    case 5:
    case 6:
        length = 1 + draw(draw(4) == 0 ? 512 : 32);
        if (length > other->bytes - from) length = other->bytes - from;
        if (length > INPUT_BYTES_MAX - bytes) length = INPUT_BYTES_MAX - bytes;
        memmove(data + at + length, data + at, bytes - at);
        memcpy(data + at, other->data + from, length);
        return bytes + length;
    default: return at;
    }
}

static void save(const char *folder, const uint8_t *data, size_t bytes)
{
    char path[4096];
    FILE *file;
    snprintf(path, sizeof(path), "%s/found-%u", folder, pool_count);
    file = fopen(path, "wb");
    if (file == NULL) exit(2);
    fwrite(data, 1, bytes, file);
    fclose(file);
}

static void read_file(const char *path)
{
    static uint8_t data[INPUT_BYTES_MAX];
    FILE *file = fopen(path, "rb");
    size_t bytes;
    if (file == NULL) exit(2);
    bytes = fread(data, 1, sizeof(data), file);
    fclose(file);
    run(data, bytes);
    keep(data, bytes);
}

int main(int count, char **words)
{
    static uint8_t data[INPUT_BYTES_MAX];
    uint64_t mutations, edges = 0, seeds;
    if (count < 5) return 2;
    mutations = strtoull(words[1], NULL, 10);
    state = (strtoull(words[2], NULL, 10) + 1) * 0x9E3779B97F4A7C15ULL;
    for (int i = 4; i < count; i++) read_file(words[i]);
    seeds = pool_count;
    for (uint64_t i = 0; i < mutations; i++) {
        const input *from = &pool[draw(pool_count)];
        size_t bytes = from->bytes;
        memcpy(data, from->data, bytes);
        for (uint32_t changes = 1 + draw(CHANGES_MAX); changes > 0; changes--) bytes = change(data, bytes);
        if (!run(data, bytes)) continue;
        keep(data, bytes);
        if (strcmp(words[3], "-") != 0) save(words[3], data, bytes);
    }
    for (uint32_t i = 0; i < EDGES; i++) edges += known[i] != 0;
    printf("seeds %lu mutations %lu edges %lu kept %lu\n", seeds, mutations, edges, pool_count - seeds);
    return 0;
}
