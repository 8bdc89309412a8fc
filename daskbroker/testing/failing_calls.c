/* Lets one call of the system fail: loaded before the C library (LD_PRELOAD), counting the calls
   of one kind that concern files below a folder. See failing_calls.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, SYNC, RENAME, MKDIR, OPEN, UNLINK, TRUNCATE, CLOSE, READ, KINDS };

static char below[4096];
static int counts[KINDS];
static int kind = -1, number, last, code;

/* From now on the calls of this kind from the n-th to the m-th fail; counting begins anew. */
void failing_calls_arm(const char *folder, int which, int n, int m, int error)
{
    strncpy(below, folder, sizeof below - 1);
    memset(counts, 0, sizeof counts);
    number = n, last = m, code = error, kind = which;
}

int failing_calls_count(int which) { return counts[which]; }

static int fails(int which, const char *path)
{
    if (!below[0] || !path || strncmp(path, below, strlen(below)))
        return 0;
    int n = __atomic_add_fetch(&counts[which], 1, __ATOMIC_SEQ_CST);
    if (which != kind || n < number || n > last)
        return 0;
    errno = code;
    return 1;
}

static int handle_fails(int which, int handle)
{
    char link[64], path[4096];
    int before = errno;
    if (!below[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(which, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int h, const void *b, size_t n)
{ return handle_fails(WRITE, h) ? -1 : REAL(write)(h, b, n); }
ssize_t writev(int h, const struct iovec *v, int n)
{ return handle_fails(WRITE, h) ? -1 : REAL(writev)(h, v, n); }
ssize_t pwrite(int h, const void *b, size_t n, off_t o)
{ return handle_fails(WRITE, h) ? -1 : REAL(pwrite)(h, b, n, o); }
ssize_t pwrite64(int h, const void *b, size_t n, off64_t o)
{ return handle_fails(WRITE, h) ? -1 : REAL(pwrite64)(h, b, n, o); }
ssize_t read(int h, void *b, size_t n) { return handle_fails(READ, h) ? -1 : REAL(read)(h, b, n); }
ssize_t pread(int h, void *b, size_t n, off_t o)
{ return handle_fails(READ, h) ? -1 : REAL(pread)(h, b, n, o); }
ssize_t pread64(int h, void *b, size_t n, off64_t o)
{ return handle_fails(READ, h) ? -1 : REAL(pread64)(h, b, n, o); }
int fsync(int h) { return handle_fails(SYNC, h) ? -1 : REAL(fsync)(h); }
int fdatasync(int h) { return handle_fails(SYNC, h) ? -1 : REAL(fdatasync)(h); }
int ftruncate(int h, off_t n) { return handle_fails(TRUNCATE, h) ? -1 : REAL(ftruncate)(h, n); }
int ftruncate64(int h, off64_t n)
{ return handle_fails(TRUNCATE, h) ? -1 : REAL(ftruncate64)(h, n); }
int rename(const char *a, const char *b) { return fails(RENAME, b) ? -1 : REAL(rename)(a, b); }
int renameat(int c, const char *a, int d, const char *b)
{ return fails(RENAME, b) ? -1 : REAL(renameat)(c, a, d, b); }
int mkdir(const char *p, mode_t m) { return fails(MKDIR, p) ? -1 : REAL(mkdir)(p, m); }
int unlink(const char *p) { return fails(UNLINK, p) ? -1 : REAL(unlink)(p); }

/* As Linux does: the handle is closed all the same. */
int close(int h)
{
    int failed = handle_fails(CLOSE, h), error = errno;
    int result = REAL(close)(h);
    if (!failed)
        return result;
    errno = error;
    return -1;
}

#define OPENER(name, ...)                                                                        \
    {                                                                                            \
        mode_t mode = 0;                                                                         \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                     \
            va_list rest;                                                                        \
            va_start(rest, flags);                                                               \
            mode = va_arg(rest, mode_t);                                                         \
            va_end(rest);                                                                        \
        }                                                                                        \
        return fails(OPEN, path) ? -1 : REAL(name)(__VA_ARGS__, flags, mode);                    \
    }

int open(const char *path, int flags, ...) OPENER(open, path)
int open64(const char *path, int flags, ...) OPENER(open64, path)
int openat(int folder, const char *path, int flags, ...) OPENER(openat, folder, path)
int openat64(int folder, const char *path, int flags, ...) OPENER(openat64, folder, path)
