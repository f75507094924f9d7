/*
 * Loaded into a tracer with LD_PRELOAD: of a clone, the child's first stop is seen before the
 * parent's, as happens where the parent loses its CPU. KILL_IT=1 kills both in between.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

pid_t waitpid(pid_t pid, int *status, int flags)
{
    static pid_t (*next)(pid_t, int *, int), parent;
    static int held;
    if (!next)
        next = (pid_t (*)(pid_t, int *, int))dlsym(RTLD_NEXT, "waitpid");
    if (pid == -1 && parent) {
        pid_t got = parent;
        *status = held;
        parent = 0;
        return got;
    }
    pid_t got = next(pid, status, flags);
    if (pid != -1 || got <= 0 || *status >> 8 != (SIGTRAP | PTRACE_EVENT_CLONE << 8))
        return got;
    parent = got;
    held = *status;
    got = next(-1, status, flags & ~WNOHANG);
    if (getenv("KILL_IT"))
        kill(got, SIGKILL);
    return got;
}
