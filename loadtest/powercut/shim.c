/*
 * powercut: what a disk may still hold when the power goes, for a process that believes in fsync.
 *
 * Loaded into the daemon by LD_PRELOAD, this library sees every call that changes a file or a name below one directory
 * and writes into a log, before the call, what would be needed to undo it. A sync that succeeds takes back the power to undo.
 * At the chosen call it ends the process by SIGKILL. Whoever started the process then reads the log and makes the
 * files such as a disk could show them: each sector that was written and not synced is there, or is not.
 *
 * Environment:
 *   POWERCUT_DIR      absolute path without symbolic links; only what lies below it is looked at
 *   POWERCUT_LOG      the log; its folder, outside of POWERCUT_DIR and on the same file system, keeps removed files
 *   POWERCUT_CONTROL  a file of struct control, which may be written at any time
 *   POWERCUT_LIE      set: syncs succeed and nothing is durable by them
 *
 * Not seen: changes through shared writable maps (only lock.mdb is mapped so, and nothing in it outlives its users) and
 * through io_uring. Calls that change files in ways that are not followed here end the process with a message.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512
#define FILES_MAX 65536

/* When `serial` changes, the call at which that is seen is number 1 of `cut_after` and of `fail_after`. 0: none. */
struct control {
    uint64_t serial;
    uint64_t cut_after;
    uint64_t fail_after;
    /* 0: before the call. 1: the call was made, and nothing it promises holds. 2: after the call. */
    uint64_t phase;
};

enum kind {
    NAMED = 1,     /* file, payload: its path */
    WROTE = 2,     /* file, offset, length: the sectors; size: of the file before; payload: what was there */
    SYNCED = 3,    /* file: all before is durable, unless a sync failed */
    WROTE_SYNCED = 4, /* file, offset, length: this much is durable */
    FAILED = 5,    /* file: a sync failed; nobody knows what is durable of what was written before */
    CREATED = 6,   /* payload: path */
    RENAMED = 7,   /* payload: from NUL to NUL where the former `to` is kept, or nothing */
    REMOVED = 8,   /* payload: path NUL where it is kept */
    MADE_DIR = 9,  /* payload: path */
    DIR_SYNCED = 10, /* payload: path */
    CUT = 11,      /* payload: at what */
};

struct record {
    uint32_t kind, file;
    uint64_t offset, length, size, payload;
};

struct file {
    dev_t dev;
    ino_t ino;
    int reader;         /* for what was there before; -1 for folders */
    char *path;         /* folders only */
    uint64_t unsynced;  /* records that could still be undone */
    uint64_t named_in;  /* the generation of the log that knows its name */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct file files[FILES_MAX];
static uint32_t file_count;
static char dir[PATH_MAX], kept_prefix[PATH_MAX];
static size_t dir_length;
static int log_fd = -1, control_fd = -1, lying;
static uint64_t unsynced, generation = 1, kept_count, calls, syncs, serial, cut_at, fail_at, phase;
static int failed_once;

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
REAL(ssize_t, pwritev2, int, const struct iovec *, int, off_t, int);
REAL(int, ftruncate, int, off_t);
REAL(int, fallocate, int, int, off_t, off_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, renameat2, int, const char *, int, const char *, unsigned);
REAL(int, unlinkat, int, const char *, int);
REAL(int, mkdirat, int, const char *, mode_t);
REAL(void *, mmap, void *, size_t, int, int, int, off_t);

static void stop(const char *why, const char *what) {
    fprintf(stderr, "powercut: %s: %s\n", why, what);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void append(enum kind kind, uint32_t file, uint64_t offset, uint64_t length, uint64_t size, const void *payload,
                   size_t payload_length) {
    struct record record = {kind, file, offset, length, size, payload_length};
    struct iovec parts[2] = {{&record, sizeof record}, {(void *)payload, payload_length}};
    ssize_t whole = sizeof record + payload_length;
    if (real_writev(log_fd, parts, payload_length ? 2 : 1) != whole) stop("the log cannot be written", strerror(errno));
}

static void begin(void) {
#define FIND(name, symbol) *(void **)&real_##name = dlsym(RTLD_NEXT, symbol)
    FIND(open, "open64"), FIND(openat, "openat64"), FIND(write, "write"), FIND(writev, "writev");
    FIND(pwrite, "pwrite64"), FIND(pwritev, "pwritev64"), FIND(pwritev2, "pwritev64v2");
    FIND(ftruncate, "ftruncate64"), FIND(fallocate, "fallocate64"), FIND(fsync, "fsync"), FIND(fdatasync, "fdatasync");
    FIND(renameat2, "renameat2"), FIND(unlinkat, "unlinkat"), FIND(mkdirat, "mkdirat"), FIND(mmap, "mmap64");
    const char *at = getenv("POWERCUT_DIR"), *log = getenv("POWERCUT_LOG"), *control = getenv("POWERCUT_CONTROL");
    if (!at || !log || !control || strlen(at) >= PATH_MAX - 1 || strlen(log) >= PATH_MAX - 32) {
        stop("not set", "POWERCUT_DIR, POWERCUT_LOG, POWERCUT_CONTROL");
    }
    strcpy(dir, at);
    dir_length = strlen(dir);
    snprintf(kept_prefix, sizeof kept_prefix, "%s.kept", log);
    lying = getenv("POWERCUT_LIE") != NULL;
    log_fd = real_open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    control_fd = real_open(control, O_RDONLY | O_CLOEXEC);
    if (log_fd < 0 || control_fd < 0) stop("cannot open the log or the control file", strerror(errno));
}

static void enter(void) {
    pthread_once(&once, begin);
    pthread_mutex_lock(&lock);
}

static void leave(void) {
    int saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
}

/* The absolute path of `name`; 0 when it does not lie below the directory. */
static int below(int at, const char *name, char path[PATH_MAX]) {
    int length;
    if (name[0] == '/') {
        length = snprintf(path, PATH_MAX, "%s", name);
    } else {
        char base[PATH_MAX], link[64];
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t found = readlink(link, base, sizeof base - 1);
        if (found < 0) return 0;
        base[found] = 0;
        length = snprintf(path, PATH_MAX, "%s/%s", base, name);
    }
    if (length < 0 || length >= PATH_MAX) return 0;
    while (length > 1 && path[length - 1] == '/') path[--length] = 0;
    return !strncmp(path, dir, dir_length) && (path[dir_length] == '/' || !path[dir_length]);
}

static struct file *find(int fd, struct stat *stat) {
    if (fd < 0 || fd == log_fd || fstat(fd, stat) || !(S_ISREG(stat->st_mode) || S_ISDIR(stat->st_mode))) return NULL;
    for (uint32_t n = file_count; n-- > 0;)
        if (files[n].ino == stat->st_ino && files[n].dev == stat->st_dev) return &files[n];
    return NULL;
}

/* The process ends here, if here was chosen. */
static void maybe_cut(uint64_t now_in_phase, const char *call, int fd, const char *path) {
    if (!cut_at || calls != cut_at || phase != now_in_phase) return;
    char what[PATH_MAX + 64], found[PATH_MAX] = "";
    if (!path) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, found, sizeof found - 1);
        found[length < 0 ? 0 : length] = 0;
        path = found;
    }
    const char *name = strncmp(path, dir, dir_length) ? path : path[dir_length] ? path + dir_length + 1 : "the data directory";
    const char *when = phase == 0 ? "before" : phase == 1 ? "in the middle of" : "after";
    int length = snprintf(what, sizeof what, "%s %s of %s", when, call, name);
    append(CUT, 0, 0, 0, 0, what, length);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Counts a call that changes or syncs something. */
static void count(int is_sync) {
    struct control control;
    calls++;
    syncs += is_sync;
    if (pread(control_fd, &control, sizeof control, 0) == sizeof control && control.serial != serial) {
        serial = control.serial;
        phase = control.phase;
        cut_at = control.cut_after ? calls - 1 + control.cut_after : 0;
        fail_at = control.fail_after ? syncs - is_sync + control.fail_after : 0;
    }
}

static void name(struct file *file) {
    if (file->named_in == generation) return;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file->reader);
    ssize_t length = readlink(link, path, sizeof path);
    if (length < 0) stop("a file has no name", strerror(errno));
    append(NAMED, file - files, 0, 0, 0, path, length);
    file->named_in = generation;
}

/* Remembers what `[from, to)` holds now. */
static void remember(struct file *file, const struct stat *stat, uint64_t from, uint64_t to) {
    uint64_t size = stat->st_size;
    from = from / SECTOR * SECTOR;
    to = (to + SECTOR - 1) / SECTOR * SECTOR;
    uint64_t end = to < size ? to : size, there = end > from ? end - from : 0;
    char *octets = NULL;
    if (there) {
        octets = malloc(there);
        for (uint64_t done = 0; octets && done < there;) {
            ssize_t got = pread(file->reader, octets + done, there - done, from + done);
            if (got <= 0) stop("cannot read what is about to be written over", strerror(errno));
            done += got;
        }
        if (!octets) stop("out of memory", "undo");
    }
    name(file);
    append(WROTE, file - files, from, to > from ? to - from : 0, size, octets, there);
    free(octets);
    file->unsynced++;
    unsynced++;
}

/* With nothing left to undo, the log begins anew. */
static void forget(struct file *file, uint64_t records) {
    file->unsynced -= records;
    unsynced -= records;
    if (unsynced || failed_once) return;
    if (real_ftruncate(log_fd, 0)) stop("the log cannot be cut", strerror(errno));
    generation++;
}

static uint64_t octets_of(const struct iovec *parts, int count) {
    uint64_t sum = 0;
    for (int n = 0; n < count; n++) sum += parts[n].iov_len;
    return sum;
}

/* Begins to follow a file or folder that was opened or made. */
static struct file *follow(int fd, const char *path) {
    struct stat stat;
    const char *last = strrchr(path, '/');
    if (last && !strcmp(last, "/lock.mdb")) return NULL;
    struct file *file = find(fd, &stat);
    if (file || fstat(fd, &stat) || !(S_ISREG(stat.st_mode) || S_ISDIR(stat.st_mode))) return file;
    if (file_count == FILES_MAX) stop("too many files", path);
    file = &files[file_count];
    *file = (struct file){.dev = stat.st_dev, .ino = stat.st_ino, .reader = -1};
    if (S_ISDIR(stat.st_mode)) {
        file->path = strdup(path);
    } else if ((file->reader = real_open(path, O_RDONLY | O_CLOEXEC)) < 0) {
        stop("cannot read", path);
    }
    file_count++;
    return file;
}

/* The folder that a name is in, as something that holds unsynced changes. */
static struct file *folder_of(const char *path) {
    char folder[PATH_MAX];
    strcpy(folder, path);
    *strrchr(folder, '/') = 0;
    int fd = real_open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct file *file = fd < 0 ? NULL : follow(fd, folder);
    if (fd >= 0) close(fd);
    if (!file) stop("cannot follow the folder", folder);
    return file;
}

static void name_changed(enum kind kind, const char *path, const void *payload, size_t length) {
    struct file *folder = folder_of(path);
    append(kind, folder - files, 0, 0, 0, payload, length);
    folder->unsynced++;
    unsynced++;
}

/* Keeps what a name leads to under another one; the length of that one, 0 if there was nothing. */
static size_t keep(const char *path, char kept[PATH_MAX]) {
    int length = snprintf(kept, PATH_MAX, "%.4000s%llu", kept_prefix, (unsigned long long)++kept_count);
    if (link(path, kept)) {
        if (errno != ENOENT) stop("cannot keep what is about to be removed", path);
        length = 0;
    }
    kept[length] = 0;
    return length;
}

static int opened(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    enter();
    if (!below(at, name, path) || (flags & O_TMPFILE) == O_TMPFILE) {
        leave();
        return real_openat(at, name, flags, mode);
    }
    struct stat stat;
    int existed = !fstatat(AT_FDCWD, path, &stat, 0);
    int makes = (flags & O_CREAT) && !existed;
    if (makes) {
        count(0);
        maybe_cut(0, "create", -1, path);
    } else if (existed && (flags & O_TRUNC) && S_ISREG(stat.st_mode)) {
        int fd = real_open(path, O_RDONLY | O_CLOEXEC);
        struct file *file = fd < 0 ? NULL : follow(fd, path);
        if (file) remember(file, &stat, 0, stat.st_size);
        if (fd >= 0) close(fd);
    }
    int fd = real_openat(AT_FDCWD, path, flags, mode);
    if (fd >= 0) {
        if (makes) {
            name_changed(CREATED, path, path, strlen(path));
            maybe_cut(1, "create", -1, path);
            maybe_cut(2, "create", -1, path);
        }
        follow(fd, path);
    }
    leave();
    return fd;
}

#define OPENS(name)                                          \
    int name(const char *path, int flags, ...) {             \
        va_list rest;                                        \
        va_start(rest, flags);                               \
        mode_t mode = va_arg(rest, mode_t);                  \
        va_end(rest);                                        \
        return opened(AT_FDCWD, path, flags, mode);          \
    }
#define OPENS_AT(name)                                       \
    int name(int at, const char *path, int flags, ...) {     \
        va_list rest;                                        \
        va_start(rest, flags);                               \
        mode_t mode = va_arg(rest, mode_t);                  \
        va_end(rest);                                        \
        return opened(at, path, flags, mode);                \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

/* One write of any kind. `offset` below 0: where the descriptor stands. */
static ssize_t wrote(const char *call, int fd, const struct iovec *parts, int count_, off_t offset, int flags) {
    struct stat stat;
    enter();
    struct file *file = find(fd, &stat);
    ssize_t done;
    if (!file) {
        leave();
        if (offset < 0) return count_ == 1 ? real_write(fd, parts[0].iov_base, parts[0].iov_len) : real_writev(fd, parts, count_);
        return flags ? real_pwritev2(fd, parts, count_, offset, flags) : real_pwritev(fd, parts, count_, offset);
    }
    int status = fcntl(fd, F_GETFL);
    int durable = (status & O_DSYNC) || (flags & (RWF_DSYNC | RWF_SYNC));
    uint64_t from = offset >= 0 ? offset : status & O_APPEND ? stat.st_size : lseek(fd, 0, SEEK_CUR);
    count(0);
    maybe_cut(0, call, fd, NULL);
    remember(file, &stat, from, from + octets_of(parts, count_));
    done = offset < 0 ? real_writev(fd, parts, count_)
           : flags    ? real_pwritev2(fd, parts, count_, offset, flags)
                      : real_pwritev(fd, parts, count_, offset);
    maybe_cut(1, call, fd, NULL);
    if (durable && done >= 0 && !lying) {
        append(WROTE_SYNCED, file - files, from, done, 0, NULL, 0);
        forget(file, 1);
    }
    maybe_cut(2, call, fd, NULL);
    leave();
    return done;
}

ssize_t write(int fd, const void *octets, size_t length) {
    struct iovec part = {(void *)octets, length};
    return wrote("write", fd, &part, 1, -1, 0);
}

ssize_t writev(int fd, const struct iovec *parts, int count) { return wrote("writev", fd, parts, count, -1, 0); }

#define PWRITES(suffix)                                                                               \
    ssize_t pwrite##suffix(int fd, const void *octets, size_t length, off_t offset) {                 \
        struct iovec part = {(void *)octets, length};                                                 \
        return wrote("pwrite", fd, &part, 1, offset, 0);                                              \
    }                                                                                                 \
    ssize_t pwritev##suffix(int fd, const struct iovec *parts, int count, off_t offset) {             \
        return wrote("pwritev", fd, parts, count, offset, 0);                                         \
    }                                                                                                 \
    ssize_t pwritev##suffix##v2(int, const struct iovec *, int, off_t, int);                          \
    int ftruncate##suffix(int fd, off_t length) { return resized("ftruncate", fd, 0, 0, length); }    \
    int fallocate##suffix(int fd, int mode, off_t offset, off_t length) {                             \
        return resized("fallocate", fd, 1, mode, offset + length);                                    \
    }

static int resized(const char *call, int fd, int allocates, int mode, off_t length) {
    struct stat stat;
    enter();
    struct file *file = find(fd, &stat);
    int done;
    if (!file) {
        leave();
        return allocates ? real_fallocate(fd, mode, 0, length) : real_ftruncate(fd, length);
    }
    if (allocates && mode) stop("a mode of fallocate that is not followed", call);
    count(0);
    maybe_cut(0, call, fd, NULL);
    /* What is cut off must be there again when the cut is lost. */
    remember(file, &stat, length, allocates || length > stat.st_size ? length : stat.st_size);
    done = allocates ? real_fallocate(fd, mode, 0, length) : real_ftruncate(fd, length);
    maybe_cut(1, call, fd, NULL);
    maybe_cut(2, call, fd, NULL);
    leave();
    return done;
}

PWRITES()
PWRITES(64)

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return wrote("pwritev2", fd, parts, count, offset, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return wrote("pwritev2", fd, parts, count, offset, flags);
}

static int synced(const char *call, int fd, int (*sync)(int)) {
    struct stat stat;
    enter();
    struct file *file = find(fd, &stat);
    if (!file) {
        leave();
        return sync(fd);
    }
    count(1);
    maybe_cut(0, call, fd, NULL);
    maybe_cut(1, call, fd, NULL);
    int done = sync(fd);
    if (fail_at && syncs == fail_at) {
        if (file->reader >= 0) {
            failed_once = 1;
            name(file);
            append(FAILED, file - files, 0, 0, 0, NULL, 0);
        }
        done = -1;
        errno = EIO;
    } else if (!done && !lying) {
        if (file->path) {
            append(DIR_SYNCED, file - files, 0, 0, 0, file->path, strlen(file->path));
        } else {
            name(file);
            append(SYNCED, file - files, 0, 0, 0, NULL, 0);
        }
        forget(file, file->unsynced);
    }
    int saved = errno;
    maybe_cut(2, call, fd, NULL);
    errno = saved;
    leave();
    return done;
}

int fsync(int fd) {
    pthread_once(&once, begin);
    return synced("fsync", fd, real_fsync);
}

int fdatasync(int fd) {
    pthread_once(&once, begin);
    return synced("fdatasync", fd, real_fdatasync);
}

static int renamed(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char old[PATH_MAX], new[PATH_MAX], kept[PATH_MAX], payload[3 * PATH_MAX];
    enter();
    int inside = below(to_at, to, new) + below(from_at, from, old);
    if (!inside) {
        leave();
        return real_renameat2(from_at, from, to_at, to, flags);
    }
    if (inside != 2 || flags) stop("a rename that is not followed", to);
    count(0);
    maybe_cut(0, "rename", -1, old);
    keep(new, kept);
    int length = snprintf(payload, sizeof payload, "%s%c%s%c%s", old, 0, new, 0, kept);
    name_changed(RENAMED, new, payload, length);
    int done = real_renameat2(AT_FDCWD, old, AT_FDCWD, new, 0);
    maybe_cut(1, "rename", -1, new);
    maybe_cut(2, "rename", -1, new);
    leave();
    return done;
}

int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return renamed(a, from, b, to, flags); }

static int removed(int at, const char *name, int flags) {
    char path[PATH_MAX], kept[PATH_MAX], payload[2 * PATH_MAX];
    struct stat stat;
    enter();
    /* Sockets are of no use after a loss of power; folders are not removed by the daemon. */
    if (!below(at, name, path) || fstatat(AT_FDCWD, path, &stat, AT_SYMLINK_NOFOLLOW) || !S_ISREG(stat.st_mode)) {
        leave();
        return real_unlinkat(at, name, flags);
    }
    count(0);
    maybe_cut(0, "unlink", -1, path);
    if (keep(path, kept)) {
        int length = snprintf(payload, sizeof payload, "%s%c%s", path, 0, kept);
        name_changed(REMOVED, path, payload, length);
    }
    int done = real_unlinkat(at, name, flags);
    maybe_cut(1, "unlink", -1, path);
    maybe_cut(2, "unlink", -1, path);
    leave();
    return done;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }

static int made_dir(int at, const char *name, mode_t mode) {
    char path[PATH_MAX];
    enter();
    if (!below(at, name, path)) {
        leave();
        return real_mkdirat(at, name, mode);
    }
    int done = real_mkdirat(AT_FDCWD, path, mode);
    if (!done && strlen(path) > dir_length) {
        count(0);
        name_changed(MADE_DIR, path, path, strlen(path));
        maybe_cut(1, "mkdir", -1, path);
        maybe_cut(2, "mkdir", -1, path);
    }
    leave();
    return done;
}

int mkdir(const char *path, mode_t mode) { return made_dir(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return made_dir(at, path, mode); }

/* Calls that would change a followed file behind our back. */
static void refuse(int fd, const char *call) {
    struct stat stat;
    enter();
    if (find(fd, &stat)) stop("a call that is not followed", call);
    leave();
}

static void *mapped(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE)) refuse(fd, "mmap");
    pthread_once(&once, begin);
    return real_mmap(at, length, protection, flags, fd, offset);
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return mapped(at, length, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return mapped(at, length, protection, flags, fd, offset);
}

#define REFUSED(result, name, to, parameters, ...)                              \
    result name parameters {                                                    \
        refuse(to, #name);                                                      \
        return ((result(*) parameters)dlsym(RTLD_NEXT, #name))(__VA_ARGS__);    \
    }
REFUSED(ssize_t, sendfile, out, (int out, int in, off_t *offset, size_t length), out, in, offset, length)
REFUSED(ssize_t, sendfile64, out, (int out, int in, off_t *offset, size_t length), out, in, offset, length)
REFUSED(ssize_t, copy_file_range, out, (int in, off_t *a, int out, off_t *b, size_t length, unsigned flags), in, a, out, b, length, flags)
REFUSED(int, posix_fallocate, fd, (int fd, off_t offset, off_t length), fd, offset, length)
REFUSED(int, posix_fallocate64, fd, (int fd, off_t offset, off_t length), fd, offset, length)
REFUSED(int, syncfs, fd, (int fd), fd)
