/*
 * From what waitpid(2) says to why a context stopped.
 *
 * Interface: the status is the thread's latest. A program can cause the signals of its exceptions
 * and no others; what else arrives was sent from outside and is dropped, it never reaches the
 * program.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

enum { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_EXEC = 4 };
enum { LONGEST_INSTRUCTION = 15 };

static struct user_regs_struct *regs_of(pt_ctx *c)
{
    return (struct user_regs_struct *)c->view.regs;
}

static void exception(pt_ctx *c, int signo, int code, uint64_t addr)
{
    c->view.signo = signo;
    c->view.code = code;
    c->view.fault_addr = addr;
    context_ready(c, PT_STOP_EXCEPTION);
}

/*
 * PTRACE_SYSEMU stops INT 0x80 and SYSENTER too. SYSCALL alone leaves RIP in RCX and RFLAGS in R11,
 * so a stop without that is one of the others, which Linux without 32-bit emulation answers as a
 * #GP. A program that sets RCX and R11 so before an INT 0x80 is taken at its word: there is no
 * difference left to see.
 */
static void syscall_stop(pt_ctx *c)
{
    struct user_regs_struct *regs = regs_of(c);
    if (regs->rcx == regs->rip && regs->r11 == regs->eflags && regs->cs == USER_CS) {
        context_ready(c, PT_STOP_SYSCALL);
        return;
    }
    regs->rip -= 2;
    regs->rax = regs->orig_rax;
    regs->orig_rax = (uint64_t)-1;
    exception(c, SIGSEGV, SI_KERNEL, 0);
}

/*
 * ptrace does not pass on the page fault's error code; what was mapped says it almost as well. The
 * table is what the thread ran with, handle_fault() has made sure. Only a write to the first byte
 * of a read-only page behind an executable one, by an instruction that ends just there, is
 * ambiguous.
 */
static int fault_access(const pt_ctx *c, uint64_t addr)
{
    uint64_t rip = c->view.regs[offsetof(struct user_regs_struct, rip) / 8];
    int prot = ranges_prot(c->space, addr);
    bool mapped = prot > 0, executable = mapped && prot & PROT_EXEC;
    bool writable = mapped && prot & PROT_WRITE;
    if (addr == rip)
        return executable ? ACCESS_WRITE : ACCESS_EXEC;
    bool behind = addr > rip && addr - rip < LONGEST_INSTRUCTION;
    bool fetch = behind && addr % PT_PAGE == 0 && !executable;
    if (mapped && !writable)
        return ACCESS_WRITE;
    if (fetch)
        return ACCESS_EXEC;
    return mapped ? ACCESS_WRITE : ACCESS_READ;
}

/* Changes of the space since the thread was let go may have cured the fault: it is tried again. */
static int handle_fault(pt_ctx *c, const siginfo_t *info)
{
    pt_space *s = c->space;
    if (c->thread->generation != s->generation) {
        int error = s->nops ? inject_queue(c->thread) : 0;
        if (error == -ESRCH) {
            context_killed(c);
            return 0;
        }
        return error ? error : context_continue(c);
    }
    c->view.signo = info->si_signo;
    c->view.code = info->si_code;
    c->view.fault_addr = (uintptr_t)info->si_addr;
    c->view.fault_access = fault_access(c, c->view.fault_addr);
    context_ready(c, PT_STOP_FAULT);
    return 0;
}

/*
 * The seccomp filter's answer to a call of the legacy vsyscall page. The host has carried out the
 * return of that call already; it is taken back, and the fetch reported as the fault that it is
 * without that page.
 */
static void vsyscall_stop(pt_ctx *c, const siginfo_t *info)
{
    struct user_regs_struct *regs = regs_of(c);
    regs->rip = (uintptr_t)info->si_call_addr;
    regs->rsp -= 8;
    regs->orig_rax = (uint64_t)-1;
    c->view.signo = SIGSEGV;
    c->view.code = SEGV_MAPERR;
    c->view.fault_addr = regs->rip;
    c->view.fault_access = ACCESS_EXEC;
    context_ready(c, PT_STOP_FAULT);
}

static int signal_stop(pt_ctx *c)
{
    pt_thread *t = c->thread;
    siginfo_t info;
    int error = tracee_get_siginfo(t->tid, &info);
    if (error == -ESRCH) {
        space_died(t->space, -1);
        context_killed(c);
        return 0;
    }
    if (error)
        return pt_fail(c->platform, error, "PTRACE_GETSIGINFO: %s", strerror(-error));
    if (info.si_code <= 0)
        return context_continue(c);     /* sent by someone: a kick, or from outside */
    switch (info.si_signo) {
    case SIGSEGV:
        if (info.si_code == SEGV_MAPERR || info.si_code == SEGV_ACCERR)
            return handle_fault(c, &info);
        break;
    case SIGBUS:
        if (info.si_code == BUS_ADRERR)
            return handle_fault(c, &info);
        break;
    case SIGSYS:
        if (info.si_code == SYS_SECCOMP)
            vsyscall_stop(c, &info);
        return 0;
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
        break;
    default:
        return context_continue(c);
    }
    exception(c, info.si_signo, info.si_code,
              info.si_code == SI_KERNEL ? 0 : (uintptr_t)info.si_addr);
    return 0;
}

/* Takes note of a status. The context, if the stop is one that it sees, is queued for pt_wait(). */
int stop_handle(pt_platform *p, pt_thread *t, int status)
{
    if (!WIFSTOPPED(status)) {
        thread_died(t, status);
        return 0;
    }
    thread_stopped(t);
    pt_ctx *c = t->context;
    if (!c || c->state != PT_RUNNING)
        return 0;
    int error = tracee_get_regs(t->tid, &t->regs);
    if (error == -ESRCH) {
        c->state = PT_IDLE;
        space_died(t->space, -1);
        context_killed(c);
        return 0;
    }
    if (error)
        return pt_fail(p, error, "PTRACE_GETREGS: %s", strerror(-error));
    memcpy(c->view.regs, &t->regs, sizeof t->regs);
    t->regs_known = true;
    c->state = PT_IDLE;
    if (status >> 8 == (SIGTRAP | 0x80)) {
        syscall_stop(c);
        return 0;
    }
    if (status >> 16 == 0)
        return signal_stop(c);
    if (c->interrupt)
        context_ready(c, PT_STOP_INTERRUPTED);
    else
        return context_continue(c);     /* job control, or an interrupt that is over */
    return 0;
}
