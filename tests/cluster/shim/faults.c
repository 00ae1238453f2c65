/* Preloaded into a server under test: fails, tears or kills at the nth matching file operation.
 *
 * The rule lies in a file that the test maps too (HEADRACE_FAULT_RULE), so that it can be armed while the
 * server runs. Its layout is struct rule; tests/cluster/faults.py writes it. Operations on paths that do not
 * contain `match` pass untouched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OP_WRITE = 1, OP_SYNC = 2, OP_RENAME = 4, OP_OPEN = 8, OP_UNLINK = 16, OP_CREATE = 32, OP_READ = 64 };
enum { WHEN_BEFORE = 0, WHEN_AFTER = 1 };
enum { KILL = -1, TEAR = -2 }; /* any other action is an errno */

struct rule {
    _Atomic int32_t armed;     /* operations that count, OP_* or-ed; 0: none */
    _Atomic int32_t countdown; /* matching operations still let through */
    _Atomic int32_t times;     /* then this many are hit; negative: all */
    int32_t action;
    int32_t when;
    _Atomic int32_t hits;
    char match[104];
};

static struct rule *rule;

__attribute__((constructor)) static void map_rule(void) {
    const char *path = getenv("HEADRACE_FAULT_RULE");
    if (!path) return;
    int fd = (int)open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct rule), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) rule = mapped;
}

/* Whether this operation is the one to hit. Counting is one atomic step, so racing threads share the count. */
static int hit(int op, const char *path) {
    if (!rule || !(atomic_load(&rule->armed) & op) || !strstr(path, rule->match)) return 0;
    if (atomic_fetch_sub(&rule->countdown, 1) > 0) return 0;
    int32_t left = atomic_load(&rule->times);
    if (left == 0) return 0;
    if (left > 0 && atomic_fetch_sub(&rule->times, 1) <= 0) return 0;
    atomic_fetch_add(&rule->hits, 1);
    return 1;
}

static int hit_fd(int op, int fd) {
    char link[32], path[4096];
    if (!rule || !(atomic_load(&rule->armed) & op)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return hit(op, path);
}

static void kill_now(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Runs `call` around the fault; a `bad` answer with errno stands for the failure. */
#define WITH_FAULT(is_hit, type, bad, call) \
    do { \
        if (!(is_hit)) return call; \
        if (rule->action == KILL && rule->when == WHEN_BEFORE) kill_now(); \
        if (rule->action > 0) { errno = rule->action; return bad; } \
        type answer = call; \
        if (rule->action == KILL) kill_now(); \
        return answer; \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    int is_hit = hit_fd(OP_WRITE, fd);
    if (is_hit && rule->action == TEAR) {
        ssize_t torn = real(fd, data, size / 2);
        (void)torn;
        kill_now();
    }
    WITH_FAULT(is_hit, ssize_t, -1, real(fd, data, size));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    WITH_FAULT(hit_fd(OP_WRITE, fd), ssize_t, -1, real(fd, data, size, at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite64);
    WITH_FAULT(hit_fd(OP_WRITE, fd), ssize_t, -1, real(fd, data, size, at));
}

ssize_t pread(int fd, void *data, size_t size, off_t at) {
    REAL(pread);
    WITH_FAULT(hit_fd(OP_READ, fd), ssize_t, -1, real(fd, data, size, at));
}

ssize_t pread64(int fd, void *data, size_t size, off_t at) {
    REAL(pread64);
    WITH_FAULT(hit_fd(OP_READ, fd), ssize_t, -1, real(fd, data, size, at));
}

int fsync(int fd) {
    REAL(fsync);
    WITH_FAULT(hit_fd(OP_SYNC, fd), int, -1, real(fd));
}

int fdatasync(int fd) {
    REAL(fdatasync);
    WITH_FAULT(hit_fd(OP_SYNC, fd), int, -1, real(fd));
}

int rename(const char *from, const char *to) {
    REAL(rename);
    WITH_FAULT(hit(OP_RENAME, to), int, -1, real(from, to));
}

int unlink(const char *path) {
    REAL(unlink);
    WITH_FAULT(hit(OP_UNLINK, path), int, -1, real(path));
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        WITH_FAULT(hit(flags & O_CREAT ? OP_CREATE : OP_OPEN, path), int, -1, real(path, flags, mode)); \
    }

OPENS(open)
OPENS(open64)
