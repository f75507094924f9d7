/*
 * The requests that a tracer makes: one function each.
 *
 * Interface: 0 or a negative errno, saved at once. A tracee that was killed gives -ESRCH; its exit
 * status is still to be waited for.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <elf.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum {
    OPTIONS = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
              PTRACE_O_TRACEVFORK,
};

static int done(long result)
{
    return result < 0 ? -errno : 0;
}

int tracee_seize(pid_t tid)
{
    return done(ptrace(PTRACE_SEIZE, tid, NULL, OPTIONS));
}

int tracee_interrupt(pid_t tid)
{
    return done(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
}

int tracee_get_regs(pid_t tid, struct user_regs_struct *regs)
{
    return done(ptrace(PTRACE_GETREGS, tid, NULL, regs));
}

int tracee_set_regs(pid_t tid, const struct user_regs_struct *regs)
{
    return done(ptrace(PTRACE_SETREGS, tid, NULL, regs));
}

int tracee_poke_reg(pid_t tid, size_t index, uint64_t value)
{
    return done(ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, regs) + 8 * index, value));
}

int tracee_get_xstate(pid_t tid, void *state, size_t *size)
{
    struct iovec iov = {state, *size};
    int error = done(ptrace(PTRACE_GETREGSET, tid, (void *)NT_X86_XSTATE, &iov));
    *size = iov.iov_len;
    return error;
}

int tracee_set_xstate(pid_t tid, const void *state, size_t size)
{
    struct iovec iov = {(void *)(uintptr_t)state, size};
    return done(ptrace(PTRACE_SETREGSET, tid, (void *)NT_X86_XSTATE, &iov));
}

int tracee_get_siginfo(pid_t tid, siginfo_t *info)
{
    return done(ptrace(PTRACE_GETSIGINFO, tid, NULL, info));
}

int tracee_get_event_message(pid_t tid, unsigned long *message)
{
    return done(ptrace(PTRACE_GETEVENTMSG, tid, NULL, message));
}

int tracee_cont(pid_t tid)
{
    return done(ptrace(PTRACE_CONT, tid, NULL, NULL));
}

int tracee_sysemu(pid_t tid)
{
    return done(ptrace(PTRACE_SYSEMU, tid, NULL, NULL));
}

int tracee_wait(pid_t tid, int *status)
{
    pid_t got;
    do
        got = waitpid(tid, status, __WALL);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : 0;
}

/* For one that was sent SIGKILL: stops that were under way are passed over. */
int tracee_wait_exit(pid_t tid, int *status)
{
    int error;
    do
        error = tracee_wait(tid, status);
    while (!error && WIFSTOPPED(*status));
    return error;
}

/*
 * Any tracee of this thread: its tid, 0 with WNOHANG when there is none, or a negative errno.
 *
 * __WCLONE, and not __WALL, leaves the sentry's own children alone: tracees are waited for with
 * either, but a child that reports with SIGCHLD only without it. __WNOTHREAD leaves the children
 * and tracees of the sentry's other threads to them.
 */
int tracee_wait_any(int *status, int flags)
{
    pid_t got = waitpid(-1, status, __WCLONE | __WNOTHREAD | flags);
    return got < 0 ? -errno : got;
}
