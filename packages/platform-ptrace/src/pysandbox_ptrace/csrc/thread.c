/*
 * Stub threads and stub processes: found by tid, cloned, pooled, waited for, ended.
 *
 * Interface: a space's process is started by its first use. When one thread of a process is seen to
 * die, all of them are ended and reaped at once, and the space is `dying` from then on: contexts
 * that ran in it stop as PT_STOP_KILLED, those that are resumed in it later too.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { POOL_MAX = 8 };          /* threads that a space keeps for contexts to come */

static pt_thread **bucket(pt_platform *p, pid_t tid)
{
    return &p->buckets[(unsigned)tid % PT_BUCKETS];
}

pt_thread *thread_find(const pt_platform *p, pid_t tid)
{
    pt_thread *t = p->buckets[(unsigned)tid % PT_BUCKETS];
    while (t && t->tid != tid)
        t = t->next_in_bucket;
    return t;
}

/*
 * A stopped tracee becomes a thread of the space; `cpu` is its parent's, whose affinity it has. NULL
 * when memory is out.
 */
pt_thread *thread_adopt(pt_space *s, pid_t tid, int cpu)
{
    pt_platform *p = s->platform;
    pt_thread *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->tid = tid;
    t->space = s;
    t->cpu = cpu;
    t->next_in_space = s->threads;
    s->threads = t;
    t->next_in_bucket = *bucket(p, tid);
    *bucket(p, tid) = t;
    s->nthreads++;
    p->nthreads++;
    return t;
}

static void forget(pt_thread *t)
{
    pt_platform *p = t->space->platform;
    pt_thread **at = bucket(p, t->tid);
    while (*at != t)
        at = &(*at)->next_in_bucket;
    *at = t->next_in_bucket;
    int status;
    thread_take_status(t, &status);
    t->dead = true;
    t->space->nthreads--;
    p->nthreads--;
}

/* Its exit status was taken: the whole process goes. */
void thread_died(pt_thread *t, int status)
{
    pthread_mutex_lock(&t->space->platform->kick_lock);
    forget(t);
    pthread_mutex_unlock(&t->space->platform->kick_lock);
    space_died(t->space, status);
}

void thread_running(pt_thread *t)
{
    pt_platform *p = t->space->platform;
    t->running = true;
    t->next_running = p->running;
    if (p->running)
        p->running->prev_running = &t->next_running;
    p->running = t;
    t->prev_running = &p->running;
    p->nrunning++;
}

void thread_stopped(pt_thread *t)
{
    if (!t->running)
        return;
    t->running = false;
    *t->prev_running = t->next_running;
    if (t->next_running)
        t->next_running->prev_running = t->prev_running;
    t->space->platform->nrunning--;
}

/* Keeps a status for later: handling it may inject, and so may whoever waits for another. */
static void stash(pt_thread *t, int status)
{
    pt_platform *p = t->space->platform;
    t->status = status;
    if (t->has_status)
        return;
    t->has_status = true;
    t->next_stashed = p->stashed;
    p->stashed = t;
}

/* The status that was taken from a thread while another was waited for. */
bool thread_take_status(pt_thread *t, int *status)
{
    if (!t->has_status)
        return false;
    t->has_status = false;
    pt_thread **at = &t->space->platform->stashed;
    while (*at != t)
        at = &(*at)->next_stashed;
    *at = t->next_stashed;
    *status = t->status;
    return true;
}

/*
 * The first thread of a process runs contexts only while it is the only one: its exit is reported
 * after all others', so waiting for it alone would not notice that the process was killed. Beside
 * others it stays stopped, where it is of use for whatever is to be injected.
 */
bool thread_is_parked(const pt_thread *t)
{
    return t->tid == t->space->pid && t->space->nthreads > 1;
}

/* Waits for one status of this thread; -ESRCH when its process is found dead and was reaped. */
int thread_wait(pt_thread *t, int *status)
{
    pt_space *s = t->space;
    pt_platform *p = s->platform;
    if (thread_take_status(t, status))
        return 0;
    if (!thread_is_parked(t))
        return tracee_wait(t->tid, status);
    for (;;) {
        int got = tracee_wait_any(status, 0);
        if (got == -EINTR)
            continue;
        if (got < 0)
            return got;
        if (got == t->tid)
            return 0;
        pt_thread *other = thread_find(p, got);
        if (!other) {
            p->newborn.tid = got;
            p->newborn.status = *status;
        } else if (other->space == s && !WIFSTOPPED(*status)) {
            thread_died(other, *status);
            return -ESRCH;      /* and reaped already, this one too */
        } else {
            stash(other, *status);
        }
    }
}

/* A thread without a context: from the pool, or a new one. -ESRCH when the process is gone. */
int thread_take(pt_space *s, pt_thread **taken)
{
    pt_thread *t = s->pool;
    if (t) {
        s->pool = t->next_in_pool;
        s->npool--;
        *taken = t;
        return 0;
    }
    pt_thread *parent = s->threads;
    while (parent && parent->running)
        parent = parent->next_in_space;
    bool borrowed = !parent;
    if (borrowed) {
        /* All of them run: one stops for as long as it takes to clone another. */
        parent = s->threads;
        int error = thread_borrow(parent);
        if (error)
            return error;
    }
    pid_t tid = 0;
    int error = inject_clone(parent, PT_CLONE_THREAD, &tid);
    if (error && error != -ESRCH)
        pt_fail(s->platform, error, "a new stub thread: %s", strerror(-error));
    if (borrowed && !s->dying) {
        int again = thread_return(parent);
        error = error ? error : again;
    }
    if (error)
        return error;
    *taken = thread_adopt(s, tid, parent->cpu);
    if (!*taken)
        return pt_fail(s->platform, -ENOMEM, "out of memory");
    if (s->nthreads == 2)
        watch_begin(s, tid);
    return 0;
}

/* Has it exit: the host is not to keep more threads than a program has, but for a few. */
static void end_thread(pt_thread *t)
{
    pt_space *s = t->space;
    pt_platform *p = s->platform;
    if (inject_exit(t))
        return;                 /* its process was killed, and it is gone with it; or it stays */
    pthread_mutex_lock(&p->kick_lock);
    forget(t);
    pthread_mutex_unlock(&p->kick_lock);
    pt_thread **at = &s->threads;
    while (*at != t)
        at = &(*at)->next_in_space;
    *at = t->next_in_space;
    free(t);
}

/* A thread whose context has left it. What the space is watched by stays, see watch.c. */
void thread_give(pt_thread *t)
{
    pt_space *s = t->space;
    t->context = NULL;
    if (thread_is_parked(t))
        return;
    if (s->npool >= POOL_MAX && t->tid != s->watched) {
        end_thread(t);
        return;
    }
    t->next_in_pool = s->pool;
    s->pool = t;
    s->npool++;
}

/*
 * Stops a running thread so that the platform can inject something. Its context may have stopped of
 * itself meanwhile: then that stop is queued for pt_wait() and thread_return() leaves it alone.
 */
int thread_borrow(pt_thread *t)
{
    pt_space *s = t->space;
    int error = tracee_interrupt(t->tid);
    if (error == -ESRCH) {
        space_died(s, -1);
        return error;
    }
    if (error)
        return pt_fail(s->platform, error, "PTRACE_INTERRUPT: %s", strerror(-error));
    while (t->running) {
        int status;
        error = thread_wait(t, &status);
        if (!error && WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP) {
            t->regs_known = false;
            if ((error = tracee_get_regs(t->tid, &t->regs)))
                break;
            thread_stopped(t);
            return 0;
        }
        if (!error)
            error = stop_handle(s->platform, t, status);
        if (s->dying)
            return -ESRCH;
        if (error < 0)
            return error;
    }
    return error < 0 ? error : 0;
}

/* Lets a borrowed thread go on, unless its context stopped while it was being borrowed. */
int thread_return(pt_thread *t)
{
    pt_ctx *c = t->context;
    if (!c || c->state != PT_RUNNING)
        return 0;
    memcpy(c->view.regs, &t->regs, sizeof c->view.regs);
    if (!c->interrupt)
        return context_continue(c);
    context_ready(c, PT_STOP_INTERRUPTED);
    return 0;
}

int space_start(pt_space *s)
{
    pt_platform *p = s->platform;
    if (s->pid || s->dying)
        return 0;
    pid_t pid = 0;
    int error = -ESRCH;
    if (!p->master_space.dying)
        error = inject_clone(p->master, PT_CLONE_PROCESS, &pid);
    if (error == -ESRCH)        /* no stop of a context: nothing can be started any more */
        return pt_fail(p, -ECHILD, "the first stub process was killed from outside");
    if (error)
        return pt_fail(p, error, "a new stub process: %s", strerror(-error));
    s->pid = pid;
    p->nprocesses++;
    pt_thread *t = thread_adopt(s, pid, p->master->cpu);
    if (!t) {
        space_end(s);
        return pt_fail(p, -ENOMEM, "out of memory");
    }
    t->clean_xstate = true;
    thread_give(t);
    watch_begin(s, pid);
    return 0;
}

/*
 * Takes the exit status of a process whose known threads are gone. It is to be had after that of
 * every other thread; one that was being cloned is found only by waiting for any.
 */
static void reap_leader(pt_space *s)
{
    int status, got;
    if (!s->cloning) {
        tracee_wait_exit(s->pid, &status);
        return;
    }
    do {
        got = tracee_wait_any(&status, 0);
        pt_thread *other = got > 0 && got != s->pid ? thread_find(s->platform, got) : NULL;
        if (other)
            stash(other, status);
    } while (got == -EINTR || (got > 0 && (got != s->pid || WIFSTOPPED(status))));
}

/* Ends the process and takes every exit status; its contexts lose their threads. */
void space_end(pt_space *s)
{
    pt_platform *p = s->platform;
    if (!s->pid || !platform_is_mine(p))
        return;
    if (!s->dying)
        watch_end(s);
    kill(s->pid, SIGKILL);
    pthread_mutex_lock(&p->kick_lock);
    pt_thread *leader = NULL;
    for (pt_thread *t = s->threads, *next; t; t = next) {
        next = t->next_in_space;
        int status;
        thread_stopped(t);
        if (t->context)
            t->context->thread = NULL;
        if (t->tid == s->pid) {
            leader = t;
            continue;
        }
        if (!t->dead)
            tracee_wait_exit(t->tid, &status);
        if (!t->dead)
            forget(t);
        free(t);
    }
    if (!leader || !leader->dead)
        reap_leader(s);
    if (leader) {
        if (!leader->dead)
            forget(leader);
        free(leader);
    }
    pthread_mutex_unlock(&p->kick_lock);
    s->threads = s->pool = NULL;
    s->npool = 0;
    s->pid = 0;
    p->nprocesses--;
}

/* The process was killed, not by the platform: `status` is that of the thread seen first, or -1. */
void space_died(pt_space *s, int status)
{
    if (s->dying)
        return;
    s->dying = true;
    s->exit_status = status;
    for (pt_thread *t = s->threads; t; t = t->next_in_space)
        if (t->context && t->context->state == PT_RUNNING)
            context_killed(t->context);
    space_end(s);
}
