/* LD_PRELOAD shim: makes disk calls on files under $FAULT_DIR fail, in the way of $FAULT_MODE, at call number $FAULT_AT (from 0).

   counting syncs (fsync, fdatasync, sync_file_range, syncfs, msync):
     eio         this one fails
     eio_sticky  this one and all after it fail
     kill        SIGKILL before this one
     unsynced    none fails and none does anything, from the first on
   counting writes (write, pwrite, writev, pwritev, copy_file_range, ftruncate, fallocate, open that creates, mkdir, rename):
     enospc      half of this one is written, and from then on there is no space left
     torn        half of this one is written and it fails for lack of space; then there is space again
     short       half of this one, or of the first after it that writes bytes, is written and it returns that count, as any write may
   neither:
     count       only counts

   When it strikes it says `FAULT struck: ...` on standard error, and at the end of the process how much it counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

enum mode { COUNT, EIO_ONCE, EIO_STICKY, KILL, UNSYNCED, ENOSPC_STICKY, TORN, SHORT };
static const char *const names[] = {"count", "eio", "eio_sticky", "kill", "unsynced", "enospc", "torn", "short"};

static atomic_int syncs, writes;
static atomic_flag shortened = ATOMIC_FLAG_INIT;
static int at = -1;
static enum mode mode = COUNT;
static const char *dir;

__attribute__((constructor)) static void start(void) {
    const char *call = getenv("FAULT_AT"), *name = getenv("FAULT_MODE");
    dir = getenv("FAULT_DIR");
    at = call ? atoi(call) : -1;
    for (int m = COUNT; name && m <= SHORT; m++)
        if (!strcmp(name, names[m])) mode = m;
}

__attribute__((destructor)) static void end(void) {
    if (dir) dprintf(2, "FAULT counted: %d syncs, %d writes\n", syncs, writes);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_mine(const char *path) {
    return dir && !strncmp(path, dir, strlen(dir));
}

static int is_my_file(int fd) {
    char link[64], path[PATH_MAX];
    if (!dir || fd <= 2) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return is_mine(path);
}

static void say(const char *call, int n) {
    dprintf(2, "FAULT struck: %s at call %d, %s\n", names[mode], n, call);
}

enum sync { PASS, FAIL, SKIP };

static enum sync on_sync(const char *call, int mine) {
    if (!mine) return PASS;
    int n = atomic_fetch_add(&syncs, 1);
    if (mode == UNSYNCED) return SKIP;
    int is_sync_mode = mode == EIO_ONCE || mode == EIO_STICKY || mode == KILL;
    if (at < 0 || !is_sync_mode || n < at || (n > at && mode != EIO_STICKY)) return PASS;
    if (n == at) say(call, n);
    if (mode == KILL) kill(getpid(), SIGKILL);
    errno = EIO;
    return FAIL;
}

/* Whether this call does only half of what it should, or nothing. */
enum write { WHOLE, HALF, NOTHING };

static enum write on_write(const char *call, int mine) {
    if (!mine) return WHOLE;
    int n = atomic_fetch_add(&writes, 1);
    if (at < 0 || (mode != ENOSPC_STICKY && mode != TORN) || n < at) return WHOLE;
    if (n == at) {
        say(call, n);
        errno = ENOSPC;
        return HALF;
    }
    if (mode == TORN) return WHOLE;
    errno = ENOSPC;
    return NOTHING;
}

/* The same for a call that writes bytes, and so may return that it wrote fewer. */
static enum write on_bytes(const char *call, int mine) {
    if (mode != SHORT || !mine) return on_write(call, mine);
    int n = atomic_fetch_add(&writes, 1);
    if (at < 0 || n < at || atomic_flag_test_and_set(&shortened)) return WHOLE;
    say(call, n);
    return HALF;
}

/* Half of so many bytes; a single one cannot be halved, and nobody may return that nothing was written. */
static size_t half(size_t n) {
    return n > 1 ? n / 2 : mode == SHORT ? n : 0;
}

/* What a call returns of which half was written. */
static ssize_t halved(ssize_t written) {
    if (mode == SHORT) return written;
    errno = ENOSPC;
    return -1;
}

int fsync(int fd) {
    REAL(fsync);
    switch (on_sync("fsync", is_my_file(fd))) { case PASS: return real(fd); case FAIL: return -1; default: return 0; }
}
int fdatasync(int fd) {
    REAL(fdatasync);
    switch (on_sync("fdatasync", is_my_file(fd))) { case PASS: return real(fd); case FAIL: return -1; default: return 0; }
}
int syncfs(int fd) {
    REAL(syncfs);
    switch (on_sync("syncfs", is_my_file(fd))) { case PASS: return real(fd); case FAIL: return -1; default: return 0; }
}
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    REAL(sync_file_range);
    switch (on_sync("sync_file_range", is_my_file(fd))) {
    case PASS: return real(fd, offset, length, flags);
    case FAIL: return -1;
    default: return 0;
    }
}
/* Of which file is not known here; whoever maps files to write them is seen. */
int msync(void *addr, size_t length, int flags) {
    REAL(msync);
    switch (on_sync("msync", dir != NULL)) {
    case PASS: return real(addr, length, flags);
    case FAIL: return -1;
    default: return 0;
    }
}

ssize_t write(int fd, const void *buf, size_t n) {
    REAL(write);
    switch (on_bytes("write", is_my_file(fd))) {
    case WHOLE: return real(fd, buf, n);
    case HALF: return halved(real(fd, buf, half(n)));
    default: return -1;
    }
}
ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset) {
    REAL(pwrite);
    switch (on_bytes("pwrite", is_my_file(fd))) {
    case WHOLE: return real(fd, buf, n, offset);
    case HALF: return halved(real(fd, buf, half(n), offset));
    default: return -1;
    }
}
ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset) {
    REAL(pwrite64);
    switch (on_bytes("pwrite64", is_my_file(fd))) {
    case WHOLE: return real(fd, buf, n, offset);
    case HALF: return halved(real(fd, buf, half(n), offset));
    default: return -1;
    }
}
/* The first half of the parts, or of the only one. */
static int half_of(const struct iovec *parts, int count, struct iovec *only) {
    *only = (struct iovec){parts[0].iov_base, half(parts[0].iov_len)};
    return count > 1 ? count / 2 : 0;
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    struct iovec only;
    switch (on_bytes("writev", is_my_file(fd))) {
    case WHOLE: return real(fd, parts, count);
    case HALF: { int some = half_of(parts, count, &only); return halved(real(fd, some ? parts : &only, some ? some : 1)); }
    default: return -1;
    }
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(pwritev);
    struct iovec only;
    switch (on_bytes("pwritev", is_my_file(fd))) {
    case WHOLE: return real(fd, parts, count, offset);
    case HALF: { int some = half_of(parts, count, &only); return halved(real(fd, some ? parts : &only, some ? some : 1, offset)); }
    default: return -1;
    }
}
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags) {
    REAL(copy_file_range);
    switch (on_bytes("copy_file_range", is_my_file(out))) {
    case WHOLE: return real(in, in_at, out, out_at, n, flags);
    case HALF: return halved(real(in, in_at, out, out_at, half(n), flags));
    default: return -1;
    }
}
int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    return on_write("ftruncate", is_my_file(fd)) == WHOLE ? real(fd, length) : -1;
}
int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    return on_write("ftruncate64", is_my_file(fd)) == WHOLE ? real(fd, length) : -1;
}
int fallocate(int fd, int flags, off_t offset, off_t length) {
    REAL(fallocate);
    return on_write("fallocate", is_my_file(fd)) == WHOLE ? real(fd, flags, offset, length) : -1;
}
int mkdir(const char *path, mode_t rights) {
    REAL(mkdir);
    return on_write("mkdir", is_mine(path)) == WHOLE ? real(path, rights) : -1;
}
int rename(const char *from, const char *to) {
    REAL(rename);
    return on_write("rename", is_mine(to)) == WHOLE ? real(from, to) : -1;
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    REAL(renameat);
    return on_write("renameat", is_mine(to)) == WHOLE ? real(from_dir, from, to_dir, to) : -1;
}

/* A file that is opened with O_DSYNC or O_SYNC would sync without a call, so `unsynced` takes that away. */
static int flags_now(int flags, int mine) {
    return mine && mode == UNSYNCED ? flags & ~(O_DSYNC | O_SYNC) : flags;
}
static int may_open(const char *call, const char *path, int flags) {
    return !(flags & O_CREAT) || on_write(call, is_mine(path)) == WHOLE;
}
#define RIGHTS(flags) \
    mode_t rights = 0; \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { va_list rest; va_start(rest, flags); rights = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) {
    RIGHTS(flags)
    REAL(open);
    return may_open("open", path, flags) ? real(path, flags_now(flags, is_mine(path)), rights) : -1;
}
int open64(const char *path, int flags, ...) {
    RIGHTS(flags)
    REAL(open64);
    return may_open("open64", path, flags) ? real(path, flags_now(flags, is_mine(path)), rights) : -1;
}
int openat(int at_dir, const char *path, int flags, ...) {
    RIGHTS(flags)
    REAL(openat);
    return may_open("openat", path, flags) ? real(at_dir, path, flags_now(flags, is_mine(path)), rights) : -1;
}
int openat64(int at_dir, const char *path, int flags, ...) {
    RIGHTS(flags)
    REAL(openat64);
    return may_open("openat64", path, flags) ? real(at_dir, path, flags_now(flags, is_mine(path)), rights) : -1;
}
