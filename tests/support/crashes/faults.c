// Counts the calls of libc that change the file system, and fails one of them.
//
// Loaded with LD_PRELOAD. `arm` chooses the number of a call and what happens there. Calls are
// counted in all threads of the process. Pipes and terminals are not files, so writing to them is
// not counted. The time of a file does not count either, because the lock of a run renews it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, KILL, TORN, FULL, FAIL };

static int mode = OFF;
static long chosen = 0, counted = 0;

void arm(int how, long number) {
    mode = how;
    chosen = number;
    __atomic_store_n(&counted, 0, __ATOMIC_SEQ_CST);
}

long count(void) { return __atomic_load_n(&counted, __ATOMIC_SEQ_CST); }

// Returns 1 if the call must fail. `needs_space`: it also fails on a disk that is full since the
// chosen call.
static int fails(int needs_space) {
    long number = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (mode == KILL && number == chosen) _exit(137);
    return (mode == FAIL && number == chosen) || (mode == FULL && number >= chosen && needs_space);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

// The process ends after the call: half of the bytes of a `write` are in the file.
#define AFTER(result)                                                       \
    do {                                                                    \
        if (mode == TORN && counted == chosen) _exit(137);                  \
        return result;                                                      \
    } while (0)

#define CALL(type, name, parameters, arguments, needs_space)                \
    type name parameters {                                                  \
        if (fails(needs_space)) {                                           \
            errno = ENOSPC;                                                 \
            return -1;                                                      \
        }                                                                   \
        type result = REAL(name) arguments;                                 \
        AFTER(result);                                                      \
    }

CALL(int, rename, (const char *from, const char *to), (from, to), 0)
CALL(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), 0)
CALL(int, unlink, (const char *path), (path), 0)
CALL(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), 0)
CALL(int, rmdir, (const char *path), (path), 0)
CALL(int, mkdir, (const char *path, mode_t permissions), (path, permissions), 1)
CALL(int, mkdirat, (int a, const char *path, mode_t permissions), (a, path, permissions), 1)
CALL(int, symlink, (const char *target, const char *path), (target, path), 1)
CALL(int, link, (const char *old, const char *path), (old, path), 1)
CALL(int, ftruncate, (int file, off_t length), (file, length), 0)
CALL(int, ftruncate64, (int file, off64_t length), (file, length), 0)
CALL(int, fchmod, (int file, mode_t permissions), (file, permissions), 0)
CALL(int, chmod, (const char *path, mode_t permissions), (path, permissions), 0)
CALL(int, fsync, (int file), (file), 1)
CALL(int, fdatasync, (int file), (file), 1)

static int is_file(int descriptor) {
    struct stat status;
    return !fstat(descriptor, &status) && S_ISREG(status.st_mode);
}

#define WRITE(name, parameters, all, half)                                  \
    ssize_t name parameters {                                               \
        if (!is_file(file)) return REAL(name) all;                          \
        if (fails(1)) {                                                     \
            if (mode == FULL && counted == chosen && length > 1)            \
                return REAL(name) half;                                     \
            errno = ENOSPC;                                                 \
            return -1;                                                      \
        }                                                                   \
        if (mode == TORN && counted == chosen) REAL(name) half;             \
        else return REAL(name) all;                                         \
        _exit(137);                                                         \
    }

// A full disk takes the first half of the bytes, and the next call fails.
WRITE(write, (int file, const void *bytes, size_t length), (file, bytes, length),
      (file, bytes, length / 2))
WRITE(pwrite, (int file, const void *bytes, size_t length, off_t at), (file, bytes, length, at),
      (file, bytes, length / 2, at))
WRITE(pwrite64, (int file, const void *bytes, size_t length, off64_t at),
      (file, bytes, length, at), (file, bytes, length / 2, at))

#define PERMISSIONS                                                         \
    mode_t permissions = 0;                                                 \
    if (flags & (O_CREAT | O_TMPFILE)) {                                  \
        va_list more;                                                       \
        va_start(more, flags);                                              \
        permissions = va_arg(more, mode_t);                                 \
        va_end(more);                                                       \
    }

#define OPEN(name, parameters, arguments)                                   \
    int name parameters {                                                   \
        PERMISSIONS                                                         \
        if (!(flags & (O_CREAT | O_TRUNC))) return REAL(name) arguments;    \
        if (fails(flags & O_CREAT)) {                                       \
            errno = ENOSPC;                                                 \
            return -1;                                                      \
        }                                                                   \
        int result = REAL(name) arguments;                                  \
        AFTER(result);                                                      \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, permissions))
OPEN(open64, (const char *path, int flags, ...), (path, flags, permissions))
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, permissions))
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, permissions))
