/*
 * Takes the walls of the ptrace platform down, to show that a watcher of the host would notice:
 * loaded into the sentry with LD_PRELOAD. WALLS_DOWN has what is to go:
 *   sysemu   stubs go on with PTRACE_CONT, so that a program's system calls are the host's
 *   filter   the stub's seccomp program allows everything
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

enum { CONT = 7, SYSEMU = 31, HEADER = 16 };

static char down[64];                  /* a copy: the sentry forgets its environment */

__attribute__((constructor)) static void remember(void)
{
    const char *text = getenv("WALLS_DOWN");
    strncpy(down, text ? text : "", sizeof down - 1);
}

long ptrace(int request, ...)
{
    static long (*next)(int, ...);
    va_list list;
    va_start(list, request);
    pid_t pid = va_arg(list, pid_t);
    void *addr = va_arg(list, void *), *data = va_arg(list, void *);
    va_end(list);
    if (!next)
        next = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
    return next(request == SYSEMU && strstr(down, "sysemu") ? CONT : request, pid, addr, data);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    static ssize_t (*next)(int, const void *, size_t, off_t);
    uint16_t length;
    unsigned char copy[4096];
    if (!next)
        next = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    memcpy(&length, bytes, size >= sizeof length ? sizeof length : 0);
    if (strstr(down, "filter") && size <= sizeof copy && size > HEADER && size == HEADER + 8 * (size_t)length) {
        struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        memcpy(copy, bytes, size);
        memcpy(copy + HEADER, &all, sizeof all);
        bytes = copy;
    }
    return next(fd, bytes, size, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset)
{
    return pwrite(fd, bytes, size, offset);
}
