/*
 * Loaded into a tracer with LD_PRELOAD: who is to be attached to is killed just before.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

long ptrace(enum __ptrace_request request, ...)
{
    __builtin_va_list list;
    __builtin_va_start(list, request);
    pid_t pid = __builtin_va_arg(list, pid_t);
    void *addr = __builtin_va_arg(list, void *);
    void *data = __builtin_va_arg(list, void *);
    __builtin_va_end(list);
    if (request == PTRACE_SEIZE) {
        siginfo_t info;
        kill(pid, SIGKILL);
        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | __WALL);
    }
    long (*next)(int, pid_t, void *, void *) =
        (long (*)(int, pid_t, void *, void *))dlsym(RTLD_NEXT, "ptrace");
    return next(request, pid, addr, data);
}
