/* Preloaded into a server under test: notes what is on stable storage, so that a test can cut the power.
 *
 * Under HEADRACE_JOURNAL_ROOT, each of these appends one line to the file HEADRACE_JOURNAL in one write:
 *   S inode size      fsync or fdatasync of a file ended; its first `size` bytes are stable
 *   T inode           a file was opened and cut to nothing
 *   D path            fsync of a folder ended; the names in it are stable
 *   C path            a name was made (file or folder)
 *   R from TAB to TAB kept   a name was changed; what it replaced, if anything, is linked as `kept`
 *   U path TAB kept   a name was removed; the file is linked as `kept`
 * Kept links lie in HEADRACE_JOURNAL_KEPT. Lines are written after the operation and before its caller goes
 * on, so the journal never promises more than the disk. tests/cluster/power.py reads it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define LINE_MAX_BYTES 12600 /* three paths of PATH_MAX and the marks between them */

static int journal = -1;
static const char *root, *kept_folder;
static size_t root_size;
static _Atomic int kept_count;

__attribute__((constructor)) static void open_journal(void) {
    const char *path = getenv("HEADRACE_JOURNAL");
    root = getenv("HEADRACE_JOURNAL_ROOT");
    kept_folder = getenv("HEADRACE_JOURNAL_KEPT");
    if (!path || !root || !kept_folder) return;
    root_size = strlen(root);
    journal = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
}

static int watched(const char *path) {
    return journal >= 0 && path && strncmp(path, root, root_size) == 0;
}

static void note(const char *format, ...) {
    char line[LINE_MAX_BYTES];
    int error = errno;
    va_list rest;
    va_start(rest, format);
    int size = vsnprintf(line, sizeof line, format, rest);
    va_end(rest);
    if (size > 0 && size < (int)sizeof line && write(journal, line, (size_t)size) != size) abort();
    errno = error;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Another link to what `path` names now, so that undoing can bring it back; empty where there is none. */
static void keep(const char *path, char *kept, size_t size) {
    int error = errno;
    snprintf(kept, size, "%s/%d.%d", kept_folder, (int)getpid(), atomic_fetch_add(&kept_count, 1));
    if (link(path, kept) != 0) kept[0] = 0;
    errno = error;
}

static int sync_noted(int fd, int (*sync)(int)) {
    char link[32], path[4096];
    struct stat before;
    int known = journal >= 0 && fstat(fd, &before) == 0;
    int answer = sync(fd);
    if (!known || answer != 0) return answer;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return answer;
    path[size] = 0;
    if (!watched(path)) return answer;
    if (S_ISDIR(before.st_mode)) note("D %s\n", path);
    else note("S %llu %lld\n", (unsigned long long)before.st_ino, (long long)before.st_size);
    return answer;
}

int fsync(int fd) {
    REAL(fsync);
    return sync_noted(fd, real);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return sync_noted(fd, real);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if (!watched(to)) return real(from, to);
    char kept[4096];
    keep(to, kept, sizeof kept);
    int answer = real(from, to);
    if (answer == 0) note("R %s\t%s\t%s\n", from, to, kept);
    return answer;
}

int unlink(const char *path) {
    REAL(unlink);
    if (!watched(path)) return real(path);
    char kept[4096];
    keep(path, kept, sizeof kept);
    int answer = real(path);
    if (answer == 0) note("U %s\t%s\n", path, kept);
    return answer;
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    int answer = real(path, mode);
    if (answer == 0 && watched(path)) note("C %s\n", path);
    return answer;
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
        int is_new = (flags & O_CREAT) && watched(path) && access(path, F_OK) != 0; \
        int fd = real(path, flags, mode); \
        if (fd >= 0 && is_new) note("C %s\n", path); \
        struct stat now; \
        if (fd >= 0 && !is_new && (flags & O_TRUNC) && watched(path) && fstat(fd, &now) == 0) \
            note("T %llu\n", (unsigned long long)now.st_ino); \
        return fd; \
    }

OPENS(open)
OPENS(open64)
