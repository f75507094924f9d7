/*
 * Waiting for the next stop, and waking up who waits.
 *
 * Interface: one call per stop. kv_wait() gives (index << 3 | stop) of the context.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>

static int64_t report(kv_ctx *c)
{
    c->state = KV_IDLE;
    return (int64_t)c->view.index << 3 | c->stop;
}

/* The only runnable context, on this thread. */
static int64_t run_inline(kv_platform *p, int64_t deadline)
{
    int error = deadline == INT64_MAX ? 0 : helper_deadline(p, deadline);
    if (error)
        return error;
    kv_ctx *c = list_pop(&p->queue);
    p->nqueued--;
    int result = schedule_inline(p, c);
    p->helper.deadline = INT64_MAX;
    return result < 0 ? result : KV_NOTHING;
}

/* Under the lock. KV_NOTHING: not yet. */
static int64_t look(kv_platform *p, int64_t timeout_ns, int64_t deadline)
{
    kv_ctx *c = list_pop(&p->ready);
    if (c)
        return report(c);
    if (p->closed)
        return kv_fail(p, -EBADF, "the platform is closed");
    if (p->worker_error)
        return p->worker_error;
    if (atomic_load(&p->kicked) || timeout_ns == 0 || !p->nqueued)
        return KV_NOTHING;
    if (p->nqueued > 1 || p->nworkers_running)
        return KV_NOTHING;
    int64_t result = run_inline(p, deadline);
    c = result == KV_NOTHING ? list_pop(&p->ready) : NULL;
    return c ? report(c) : result;
}

int64_t kv_wait(kv_platform *p, int64_t timeout_ns)
{
    int64_t deadline = timeout_ns > 0 ? now_ns() + timeout_ns : timeout_ns == 0 ? 0 : INT64_MAX;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        bool was_inline = p->nqueued == 1 && !p->nworkers_running && !p->ready.head;
        int64_t result = look(p, timeout_ns, deadline);
        uint32_t seen = atomic_load(&p->event);
        bool kicked = result == KV_NOTHING && atomic_exchange(&p->kicked, 0);
        pthread_mutex_unlock(&p->lock);
        if (result != KV_NOTHING || kicked || timeout_ns == 0 || was_inline)
            return result;
        int error = futex_wait(&p->event, seen, deadline);
        if (error == -ETIMEDOUT || error == -EINTR)
            timeout_ns = 0;             /* a last look; Python may have a signal to handle */
    }
}

void kv_kick(kv_platform *p)
{
    if (atomic_exchange(&p->kicked, 1))
        return;                 /* whoever set it wakes the waiter */
    pthread_mutex_lock(&p->lock);
    if (p->inline_vcpu)
        vcpu_kick(p->inline_vcpu);
    event_post(p);
    pthread_mutex_unlock(&p->lock);
}
