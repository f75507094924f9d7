/*
 * Contexts: making, resuming, interrupting, releasing them.
 *
 * Interface: registers are in `view.regs` whenever a context is not running; the extended state is
 * in the vCPU that ran it last, or in `xstate`.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int add_index(kv_platform *p, kv_ctx *c)
{
    int i = p->first_free;
    while (i < p->ncontexts && p->contexts[i])
        i++;
    if (i == p->contexts_capacity) {
        int capacity = i ? i * 2 : 16;
        kv_ctx **grown = realloc(p->contexts, (size_t)capacity * sizeof *grown);
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

kv_context *kv_context_new(kv_platform *p)
{
    kv_ctx *c = calloc(1, sizeof *c);
    if (!c || add_index(p, c)) {
        free(c);
        kv_fail(p, -ENOMEM, "out of memory");
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

/* Takes it from the vCPU or the list that it is in: it is idle afterwards. */
void context_withdraw(kv_ctx *c)
{
    kv_platform *p = c->platform;
    pthread_mutex_lock(&p->lock);
    while (c->state == KV_RUNNING) {
        c->interrupt = true;
        vcpu_kick(c->runs_on);
        event_wait(p, INT64_MAX);
    }
    if (c->state == KV_QUEUED)
        queue_remove(c);
    if (c->state == KV_READY)
        list_remove(&p->ready, c);
    c->state = KV_IDLE;
    pthread_mutex_unlock(&p->lock);
}

void kv_context_release(kv_context *view)
{
    kv_ctx *c = (kv_ctx *)view;
    kv_platform *p = c->platform;
    if (!p)
        return;
    if (getpid() == p->owner) {         /* in a fork of the sentry, vCPUs are the sentry's */
        context_withdraw(c);
        pthread_mutex_lock(&p->lock);
        if (c->vcpu)
            c->vcpu->holder = NULL;
        pthread_mutex_unlock(&p->lock);
    }
    c->vcpu = NULL;
    c->platform = NULL;
    p->contexts[c->view.index] = NULL;
    if (c->view.index < p->first_free)
        p->first_free = c->view.index;
}

void kv_context_free(kv_context *view)
{
    kv_ctx *c = (kv_ctx *)view;
    kv_context_release(view);
    free(c->xstate);
    free(c);
}

int kv_resume(kv_context *view, kv_space *s)
{
    kv_ctx *c = (kv_ctx *)view;
    kv_platform *p = c->platform;
    if (!p || !s)
        return -EBADF;
    if (c->state != KV_IDLE)
        return kv_fail(p, -EBUSY, "resume of a context that is running");
    int error = p->nstale || windows_are_many(p) ? stale_flush(p) : p->stale_error;
    if (error)
        return error;
    c->space = s;
    c->interrupt = false;
    pthread_mutex_lock(&p->lock);
    if (c->killed) {
        context_ready(c, KV_STOP_KILLED);
    } else {
        queue_push(c);
        error = schedule_hand_out(p);
    }
    pthread_mutex_unlock(&p->lock);
    return error;
}

int kv_interrupt(kv_context *view)
{
    kv_ctx *c = (kv_ctx *)view;
    kv_platform *p = c->platform;
    if (!p)
        return 0;
    pthread_mutex_lock(&p->lock);
    if (c->state == KV_QUEUED) {
        queue_remove(c);
        context_ready(c, KV_STOP_INTERRUPTED);
    } else if (c->state == KV_RUNNING) {
        c->interrupt = true;
        vcpu_kick(c->runs_on);
    }
    pthread_mutex_unlock(&p->lock);
    return 0;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time))
        return 0;
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

uint64_t thread_cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t kv_context_cpu_ns(const kv_context *view)
{
    const kv_ctx *c = (const kv_ctx *)view;
    kv_platform *p = c->platform;
    uint64_t used = c->cpu_ns;
    if (!p)
        return used;
    pthread_mutex_lock(&p->lock);
    used = c->cpu_ns;
    clockid_t clock;
    if (c->state == KV_RUNNING && c->cpu_started_ns &&
        !pthread_getcpuclockid(c->runs_on->runner->thread, &clock)) {
        uint64_t now = clock_ns(clock);
        if (now > c->cpu_started_ns)
            used += now - c->cpu_started_ns;
    }
    pthread_mutex_unlock(&p->lock);
    return used;
}
