/*
 * Contexts: starting them, and what becomes of them when they stop.
 *
 * Interface: a context keeps its stub thread from one resume to the next and while it is stopped;
 * its registers are in `view.regs` whenever it is stopped, its extended state in its thread, or in
 * `xstate` while it has none.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Queues a stop for pt_wait(). */
void context_ready(pt_ctx *c, int stop)
{
    c->stop = stop;
    c->state = PT_READY;
    list_push(&c->platform->ready, c);
}

void context_killed(pt_ctx *c)
{
    c->killed = true;
    c->view.exit_status = c->space ? c->space->exit_status : -1;
    context_ready(c, PT_STOP_KILLED);
}

static uint64_t data_selector(uint64_t value)
{
    return value == USER_DS ? USER_DS : 0;
}

/*
 * Makes any 27 words safe to load. orig_rax is -1, "not in a system call", or the host would apply
 * its own restart rules to the program's registers. False when no such program could exist: a base
 * that is not canonical.
 */
static bool sanitise(const uint64_t *from, struct user_regs_struct *to)
{
    memcpy(to, from, sizeof *to);
    to->orig_rax = (uint64_t)-1;
    to->eflags = (to->eflags & EFLAGS_USER) | EFLAGS_FIXED;
    to->cs = to->cs == USER32_CS ? USER32_CS : USER_CS;
    to->ss = USER_DS;
    to->ds = data_selector(to->ds);
    to->es = data_selector(to->es);
    to->fs = data_selector(to->fs);
    to->gs = data_selector(to->gs);
    int64_t fs = (int64_t)to->fs_base, gs = (int64_t)to->gs_base, rip = (int64_t)to->rip;
    return fs << 16 >> 16 == fs && gs << 16 >> 16 == gs && rip << 16 >> 16 == rip;
}

/* What Linux does when it can't return to such registers: SIGSEGV, as after a #GP. */
static void refuse_regs(pt_ctx *c)
{
    c->view.signo = SIGSEGV;
    c->view.code = SI_KERNEL;
    c->view.fault_addr = 0;
    context_ready(c, PT_STOP_EXCEPTION);
}

/* PTRACE_SETREGS takes no base in the upper half, though WRFSBASE does: set these in the stub. */
static int set_odd_bases(pt_thread *t, const struct user_regs_struct *regs)
{
    int error = inject_bases(t, regs->fs_base, regs->gs_base);
    for (size_t i = 0; !error && i < sizeof *regs / 8; i++)
        if (i != offsetof(struct user_regs_struct, fs_base) / 8 &&
            i != offsetof(struct user_regs_struct, gs_base) / 8)
            error = tracee_poke_reg(t->tid, i, ((const uint64_t *)regs)[i]);
    return error;
}

/* Loads the registers and lets the program go; the thread is the context's and stopped. */
int context_continue(pt_ctx *c)
{
    pt_thread *t = c->thread;
    struct user_regs_struct regs;
    if (!sanitise(c->view.regs, &regs)) {
        refuse_regs(c);
        return 0;
    }
    int error = 0;
    if (!t->regs_known || memcmp(&regs, &t->regs, sizeof regs)) {
        error = tracee_set_regs(t->tid, &regs);
        if (error == -EIO)
            error = set_odd_bases(t, &regs);
        if (error == -EFAULT) {
            refuse_regs(c);
            return 0;
        }
    }
    t->regs_known = false;
    t->generation = t->space->generation;
    if (!error)
        error = tracee_sysemu(t->tid);
    if (error == -ESRCH) {
        bool queued = c->state == PT_RUNNING;
        space_died(t->space, -1);
        if (!queued)
            context_killed(c);
        return 0;
    }
    if (error)
        return pt_fail(c->platform, error, "letting a stub go on: %s", strerror(-error));
    t->clean_xstate = false;
    c->state = PT_RUNNING;
    thread_running(t);
    return 0;
}

/* Parts a stopped context from its thread, which goes back to its pool. -ESRCH: it was killed. */
int context_detach(pt_ctx *c)
{
    if (!c->thread)
        return 0;
    int error = xstate_save(c);
    if (error == -ESRCH) {
        space_died(c->thread->space, -1);
        return error;
    }
    if (error)
        return pt_fail(c->platform, error, "reading a stub's extended state: %s", strerror(-error));
    cpu_time_detach(c);
    thread_give(c->thread);
    c->thread = NULL;
    return 0;
}

static int attach(pt_ctx *c)
{
    pt_space *s = c->space;
    int error = context_detach(c);
    if (!error)
        error = space_start(s);
    pt_thread *t;
    if (!error)
        error = thread_take(s, &t);
    if (error)
        return error;
    t->context = c;
    c->thread = t;
    cpu_time_attach(c);
    t->regs_known = false;
    return xstate_load(c);
}

static int start(pt_ctx *c)
{
    pt_space *s = c->space;
    if (c->interrupt) {
        context_ready(c, PT_STOP_INTERRUPTED);
        return 0;
    }
    if (!s || s->dying)
        return -ESRCH;
    int error = 0;
    if (!c->thread || c->thread->space != s || thread_is_parked(c->thread))
        error = attach(c);
    if (!error && s->nops)
        error = inject_queue(c->thread);
    if (error)
        return error;
    if (c->platform->nrunning)
        affinity_many(c->platform, c->thread);
    else
        affinity_alone(c->platform, c->thread);
    return context_continue(c);
}

/* Starts a context that was resumed. Its space may be gone; that is then its stop. */
int context_start(pt_ctx *c)
{
    int error = c->killed ? -ESRCH : start(c);
    if (error == -ESRCH) {
        context_killed(c);
        return 0;
    }
    return error;
}

int pt_resume(pt_context *view, pt_space *s)
{
    pt_ctx *c = (pt_ctx *)view;
    pt_platform *p = c->platform;
    if (!p || !s)
        return -EBADF;
    if (c->state != PT_IDLE)
        return pt_fail(p, -EBUSY, "resume of a context that is running");
    c->space = s;
    c->interrupt = false;
    c->state = PT_DEFERRED;
    /* Alone, it is started by the pt_wait() that follows; beside others that would waste time. */
    if (!p->nrunning && !p->deferred.head) {
        list_push(&p->deferred, c);
        return 0;
    }
    pt_ctx *first = list_pop(&p->deferred);
    int error = first ? context_start(first) : 0;
    return error ? error : context_start(c);
}

int pt_interrupt(pt_context *view)
{
    pt_ctx *c = (pt_ctx *)view;
    if (c->state == PT_DEFERRED)
        c->interrupt = true;
    if (c->state != PT_RUNNING)
        return 0;
    c->interrupt = true;
    int error = tracee_interrupt(c->thread->tid);
    if (error && error != -ESRCH)
        return pt_fail(c->platform, error, "PTRACE_INTERRUPT: %s", strerror(-error));
    return 0;               /* gone: its exit status is on the way */
}

static int add_index(pt_platform *p, pt_ctx *c)
{
    int i = p->first_free;
    while (i < p->ncontexts && p->contexts[i])
        i++;
    if (i == p->contexts_capacity) {
        int capacity = i ? i * 2 : 16;
        pt_ctx **grown = realloc(p->contexts, (size_t)capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        p->contexts = grown;
        p->contexts_capacity = capacity;
    }
    if (i == p->ncontexts)
        p->ncontexts++;
    p->contexts[i] = c;
    p->first_free = i + 1;
    c->view.index = i;
    return 0;
}

pt_context *pt_context_new(pt_platform *p)
{
    pt_ctx *c = calloc(1, sizeof *c);
    if (!c || add_index(p, c)) {
        free(c);
        pt_fail(p, -ENOMEM, "out of memory");
        return NULL;
    }
    struct user_regs_struct *regs = (struct user_regs_struct *)c->view.regs;
    regs->cs = USER_CS;
    regs->ss = USER_DS;
    regs->eflags = EFLAGS_FIXED;
    regs->orig_rax = (uint64_t)-1;
    c->platform = p;
    return &c->view;
}

void pt_context_release(pt_context *view)
{
    pt_ctx *c = (pt_ctx *)view;
    pt_platform *p = c->platform;
    if (!p)
        return;
    if (c->state == PT_RUNNING)
        thread_borrow(c->thread);       /* against the rules, but must not harm */
    list_remove(&p->deferred, c);
    list_remove(&p->ready, c);
    if (c->thread)
        thread_give(c->thread);
    c->thread = NULL;
    c->platform = NULL;
    p->contexts[c->view.index] = NULL;
    if (c->view.index < p->first_free)
        p->first_free = c->view.index;
}

void pt_context_free(pt_context *view)
{
    pt_ctx *c = (pt_ctx *)view;
    pt_context_release(view);
    free(c->xstate);
    free(c);
}

int pt_context_tid(const pt_context *view)
{
    const pt_ctx *c = (const pt_ctx *)view;
    return c->thread ? c->thread->tid : 0;
}
