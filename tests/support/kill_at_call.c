/* Preloaded into a test's process: kills it before or after its n-th call that changes a folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

static int left = -1; /* calls until the kill; below 0: never */
static int after_it;

/* From Python: the next calls count. */
void kill_at(int call, int after) { after_it = after; __atomic_store_n(&left, call, __ATOMIC_SEQ_CST); }

static int due(void) {
    if (__atomic_load_n(&left, __ATOMIC_SEQ_CST) < 0) return 0;
    int now = __atomic_fetch_sub(&left, 1, __ATOMIC_SEQ_CST) == 0;
    if (now && !after_it) kill(getpid(), SIGKILL);
    return now;
}

#define CHANGES(name, parameters, arguments)                        \
    int name parameters {                                           \
        int now = due();                                            \
        int (*real) parameters = dlsym(RTLD_NEXT, #name);           \
        int result = real arguments;                                \
        if (now) kill(getpid(), SIGKILL);                           \
        return result;                                              \
    }

CHANGES(rename, (const char *a, const char *b), (a, b))
CHANGES(renameat, (int d, const char *a, int e, const char *b), (d, a, e, b))
CHANGES(link, (const char *a, const char *b), (a, b))
CHANGES(linkat, (int d, const char *a, int e, const char *b, int flags), (d, a, e, b, flags))
CHANGES(unlink, (const char *a), (a))
CHANGES(unlinkat, (int d, const char *a, int flags), (d, a, flags))
CHANGES(rmdir, (const char *a), (a))
CHANGES(mkdir, (const char *a, mode_t mode), (a, mode))
CHANGES(mkdirat, (int d, const char *a, mode_t mode), (d, a, mode))

/* Files that come into being. */
#define OPENS(name, parameters, arguments)                                              \
    int name parameters {                                                               \
        mode_t mode = 0;                                                                \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                      \
            va_list rest;                                                               \
            va_start(rest, flags);                                                      \
            mode = va_arg(rest, mode_t);                                                \
            va_end(rest);                                                               \
        }                                                                               \
        int now = flags & O_CREAT ? due() : 0;                                          \
        int (*real)(OPENS_##name) = dlsym(RTLD_NEXT, #name);                            \
        int result = real arguments;                                                    \
        if (now) kill(getpid(), SIGKILL);                                               \
        return result;                                                                  \
    }
#define OPENS_open const char *, int, ...
#define OPENS_open64 const char *, int, ...
#define OPENS_openat int, const char *, int, ...
#define OPENS_openat64 int, const char *, int, ...
OPENS(open, (const char *a, int flags, ...), (a, flags, mode))
OPENS(open64, (const char *a, int flags, ...), (a, flags, mode))
OPENS(openat, (int d, const char *a, int flags, ...), (d, a, flags, mode))
OPENS(openat64, (int d, const char *a, int flags, ...), (d, a, flags, mode))
