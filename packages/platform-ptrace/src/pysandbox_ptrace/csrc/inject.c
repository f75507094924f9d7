/*
 * Making a stopped stub thread run the platform's own code: batches of system calls, a base.
 *
 * Interface: the thread is stopped and stays so; its registers are lost (regs_known is false), its
 * extended state is kept. It may be stopped meanwhile by an interrupt or a signal from outside:
 * that is passed over, and an interrupt that was wanted may be lost with it. -ESRCH: the process is
 * gone, space_died() was called.
 *
 * Injected code runs under PTRACE_CONT, so its system calls reach the host. Other threads of the
 * space run the program's code at the same time, but can't reach what matters: the code page and
 * the batch pages are read-only in every stub and no program can change that, and the registers are
 * the thread's own. The batch pages are one set for all stubs, since one batch runs at a time.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int lost(pt_thread *t)
{
    space_died(t->space, -1);
    return -ESRCH;
}

/*
 * A clone under way: takes the child's first stop, so that it can be used. thread_wait() may have
 * taken it already: the child runs at once, its parent may be held up.
 */
static int take_newborn(pt_thread *t, pid_t *child)
{
    pt_platform *p = t->space->platform;
    unsigned long tid = 0;
    int status = p->newborn.status;
    int error = tracee_get_event_message(t->tid, &tid);
    if (!error && p->newborn.tid != (pid_t)tid)
        error = tracee_wait((pid_t)tid, &status);
    if (error)
        return error;
    if (!WIFSTOPPED(status))
        return -ESRCH;
    *child = (pid_t)tid;
    return 0;
}

/*
 * Runs from regs->rip to the int3 before `end`; `regs` then holds the registers there. -EFAULT when
 * the code itself faulted.
 */
static int run(pt_thread *t, struct user_regs_struct *regs, const uint8_t *end, pid_t *child)
{
    if (!t->space->platform->nrunning)
        affinity_inject(t->space->platform, t);
    t->regs_known = false;
    regs->cs = USER_CS;
    regs->ss = USER_DS;
    regs->eflags = EFLAGS_FIXED;
    regs->orig_rax = (uint64_t)-1;
    int error = tracee_set_regs(t->tid, regs);
    if (error)
        return error == -ESRCH ? lost(t) : error;
    for (;;) {
        int status;
        if ((error = tracee_cont(t->tid)) || (error = thread_wait(t, &status)))
            return error == -ESRCH ? lost(t) : error;
        if (!WIFSTOPPED(status)) {
            thread_died(t, status);
            return -ESRCH;
        }
        int event = status >> 16;
        if (event == PTRACE_EVENT_CLONE && child) {
            if ((error = take_newborn(t, child)))
                return error == -ESRCH ? lost(t) : error;
            continue;
        }
        if (event)
            continue;
        if ((error = tracee_get_regs(t->tid, regs)))
            return error == -ESRCH ? lost(t) : error;
        if (WSTOPSIG(status) == SIGTRAP && regs->rip == stub_address(end))
            return 0;
        siginfo_t info;
        if ((error = tracee_get_siginfo(t->tid, &info)))
            return error == -ESRCH ? lost(t) : error;
        if (info.si_code <= 0)
            continue;           /* sent by someone: a kick that came late, or from outside */
        return -EFAULT;
    }
}

/*
 * As run(), for a program that denied itself the stub's pages with WRPKRU: protection keys are part
 * of the extended state, so the code runs with the initial one, and the program's is put back.
 */
static int run_with_initial_xstate(pt_thread *t, struct user_regs_struct *regs, const uint8_t *end,
                                   pid_t *child)
{
    pt_platform *p = t->space->platform;
    uint8_t saved[p->xstate.kernel_size];
    size_t size = sizeof saved;
    int error = tracee_get_xstate(t->tid, saved, &size);
    if (!error)
        error = tracee_set_xstate(t->tid, p->xstate.initial, size);
    if (error)
        return error;
    error = run(t, regs, end, child);
    if (error == -ESRCH)
        return error;
    int again = tracee_set_xstate(t->tid, saved, size);
    return error ? error : again;
}

/* One batch of at most PT_BATCH_MAX; `failed` is the index of the operation that did. */
static int run_batch(pt_thread *t, const pt_op *ops, size_t nops, size_t *failed, pid_t *child)
{
    pt_stub_shared *shared = t->space->platform->shared;
    memcpy(shared->ops, ops, nops * sizeof *ops);
    const struct user_regs_struct start = {
        .rip = stub_address(pt_image_batch),
        .r12 = PT_STUB_SHARED + offsetof(pt_stub_shared, ops),
        .r13 = nops,
    };
    struct user_regs_struct regs = start;
    int error = run(t, &regs, pt_image_batch_end, child);
    if (error == -EFAULT) {
        regs = start;
        error = run_with_initial_xstate(t, &regs, pt_image_batch_end, child);
    }
    memset(shared->ops, 0, nops * sizeof *ops);
    if (error)
        return error;
    *failed = nops - regs.r13;
    return regs.r13 ? (int)(int64_t)regs.rax : 0;
}

int inject_clone(pt_thread *t, unsigned long flags, pid_t *child)
{
    const pt_op op = {.nr = SYS_clone, .args = {flags}};
    pt_space *s = t->space;
    size_t failed;
    s->platform->newborn.tid = 0;
    s->cloning = true;
    int error = run_batch(t, &op, 1, &failed, child);
    s->cloning = false;
    return error;
}

static const char *op_name(uint64_t nr)
{
    return nr == SYS_mmap ? "mmap" : nr == SYS_munmap ? "munmap" : "mprotect";
}

/* Carries out everything that is queued in the thread's space. */
int inject_queue(pt_thread *t)
{
    pt_space *s = t->space;
    size_t done = 0;
    while (done < s->nops) {
        size_t n = s->nops - done, failed = 0;
        if (n > PT_BATCH_MAX)
            n = PT_BATCH_MAX;
        int error = run_batch(t, s->ops + done, n, &failed, NULL);
        const pt_op *op = s->ops + done + failed;
        if (error) {
            if (error == -ESRCH)
                return error;
            return pt_fail(s->platform, error,
                           "%s(%#lx, %#lx, prot %#lx, fd %d, offset %#lx) in a stub: %s",
                           op_name(op->nr), op->args[0], op->args[1], op->args[2],
                           (int)op->args[4], op->args[5], strerror(-error));
        }
        done += failed;
    }
    s->nops = 0;
    return 0;
}

/* Has the thread exit, and takes its exit status. */
int inject_exit(pt_thread *t)
{
    const struct user_regs_struct regs = {
        .rip = stub_address(pt_image_after_syscall) - 2,
        .rax = SYS_exit,
        .orig_rax = (uint64_t)-1,
        .cs = USER_CS,
        .ss = USER_DS,
        .eflags = EFLAGS_FIXED,
    };
    int status = 0;
    t->regs_known = false;
    int error = tracee_set_regs(t->tid, &regs);
    do {                        /* it stops for signals from outside, which are passed over */
        if (error || (error = tracee_cont(t->tid)) || (error = thread_wait(t, &status)))
            return error == -ESRCH ? lost(t) : error;
    } while (WIFSTOPPED(status));
    if (WIFEXITED(status))
        return 0;
    thread_died(t, status);
    return -ESRCH;
}

/* Sets bases that lie outside what PTRACE_SETREGS takes; -EFAULT when the processor refuses too. */
int inject_bases(pt_thread *t, uint64_t fs_base, uint64_t gs_base)
{
    struct user_regs_struct regs = {
        .rip = stub_address(pt_image_bases), .rdi = fs_base, .rsi = gs_base};
    return run(t, &regs, pt_image_bases_end, NULL);
}
