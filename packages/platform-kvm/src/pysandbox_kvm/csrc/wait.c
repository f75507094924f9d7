/*
 * Waiting for the next stop, and waking up who waits.
 *
 * Interface: one call per stop. kv_wait() gives (index << 3 | stop) of the context. event_post()
 * and event_wait() are under the lock, which event_wait() gives up meanwhile.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>

/* Something happened that a kv_wait() waits for. */
void event_post(kv_platform *p)
{
    atomic_fetch_add(&p->event, 1);
    if (p->sleeping)
        futex_wake(&p->event);
}

/* Until something happens, or `deadline`. 0 or a negative errno. */
int event_wait(kv_platform *p, int64_t deadline)
{
    uint32_t seen = atomic_load(&p->event);
    p->sleeping = true;
    pthread_mutex_unlock(&p->lock);
    int error = futex_wait(&p->event, seen, deadline);
    pthread_mutex_lock(&p->lock);
    p->sleeping = false;
    return error;
}

/* What is there to be reported. */
static int64_t look(kv_platform *p)
{
    kv_ctx *c = list_pop(&p->ready);
    if (c) {
        c->state = KV_IDLE;
        return (int64_t)c->view.index << 3 | c->stop;
    }
    if (p->closed)
        return kv_fail(p, -EBADF, "the platform is closed");
    return p->worker_error ? p->worker_error : KV_NOTHING;
}

/*
 * Runs a context, or sleeps. 1: after one more look the wait is over, since the time is, or Python
 * may have a signal to handle.
 */
static int pass_time(kv_platform *p, int64_t deadline)
{
    int result = schedule_inline(p, deadline);
    if (result)
        return result;
    int error = event_wait(p, deadline);
    return error == -ETIMEDOUT || error == -EINTR;
}

/* INT64_MAX for none: that of a timeout too which time itself does not reach. */
static int64_t deadline_of(int64_t timeout_ns)
{
    int64_t now = timeout_ns > 0 ? now_ns() : 0;
    return timeout_ns > 0 && timeout_ns < INT64_MAX - now ? now + timeout_ns : INT64_MAX;
}

int64_t kv_wait(kv_platform *p, int64_t timeout_ns)
{
    int64_t deadline = deadline_of(timeout_ns);
    int last = timeout_ns == 0;
    pthread_mutex_lock(&p->lock);
    int64_t result = look(p);
    while (result == KV_NOTHING && !atomic_exchange(&p->kicked, 0) && !last) {
        last = pass_time(p, deadline);
        result = last < 0 ? last : look(p);
    }
    pthread_mutex_unlock(&p->lock);
    return result;
}

void kv_kick(kv_platform *p)
{
    if (atomic_exchange(&p->kicked, 1))
        return;                 /* whoever set it wakes the waiter */
    pthread_mutex_lock(&p->lock);
    if (p->main.running)
        vcpu_kick(p->main.running);
    event_post(p);
    pthread_mutex_unlock(&p->lock);
}
