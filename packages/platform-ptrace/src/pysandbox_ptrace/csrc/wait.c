/*
 * The hot path: start what was resumed, wait for one stop, say whose it was.
 *
 * Interface: one call per stop. pt_wait() gives (index << 3 | stop) of the context.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>

static int64_t report(pt_ctx *c)
{
    c->state = PT_IDLE;
    return (int64_t)c->view.index << 3 | c->stop;
}

/*
 * The one thread to wait for, or NULL for any. Waiting for one is cheaper, waitpid(-1) looks at
 * every tracee. Not for a first thread that has just got company and runs on until its next stop.
 */
static pt_thread *only_one(const pt_platform *p)
{
    return p->nrunning == 1 && !thread_is_parked(p->running) ? p->running : NULL;
}

/* A status that was seen while another thread was waited for. */
static int handle_stashed(pt_platform *p)
{
    pt_thread *t = p->stashed;
    int status;
    thread_take_status(t, &status);
    return stop_handle(p, t, status);
}

/* Waits for one status and handles it. 0, PT_NOTHING, or a negative errno. */
static int wait_once(pt_platform *p, int flags)
{
    if (p->stashed)
        return handle_stashed(p);
    pt_thread *t = only_one(p);
    int status, got;
    affinity_wait(p);
    waiter_set(p, p->running);
    if (p->kicked) {
        waiter_clear(p);
        return 0;
    }
    if (t) {
        pid_t result = waitpid(t->tid, &status, __WALL | flags);
        got = result < 0 ? -errno : result;
    } else {
        got = tracee_wait_any(&status, flags);
    }
    waiter_clear(p);
    if (got == -EINTR || got == 0)
        return PT_NOTHING;      /* Python may have a signal to handle; or WNOHANG */
    if (got < 0)
        return pt_fail(p, got, "waitpid: %s", strerror(-got));
    if (!t)
        t = thread_find(p, got);
    return t ? stop_handle(p, t, status) : 0;
}

static int64_t wait_until(pt_platform *p, int64_t timeout_ns, int64_t deadline)
{
    for (;;) {
        pt_ctx *c = list_pop(&p->ready);
        if (c)
            return report(c);
        if (p->kicked && atomic_exchange(&p->kicked, 0))
            return PT_NOTHING;
        if (p->closed)
            return pt_fail(p, -EBADF, "the platform is closed");
        if (!p->nrunning && !p->stashed)
            return timeout_ns == 0 ? PT_NOTHING : kick_sleep(p, deadline);
        int error = wait_once(p, timeout_ns == 0 ? WNOHANG : 0);
        if (error && !p->ready.head)
            return error;
    }
}

int64_t pt_wait(pt_platform *p, int64_t timeout_ns)
{
    int64_t deadline = timeout_ns > 0 ? now_ns() + timeout_ns : timeout_ns;
    int error = 0;
    while (p->deferred.head) {
        pt_ctx *c = list_pop(&p->deferred);
        if ((error = context_start(c)))
            return error;
    }
    if (deadline <= 0 || !p->nrunning)
        return wait_until(p, timeout_ns, deadline);
    if ((error = helper_deadline(p, deadline)))
        return error;
    int64_t result = wait_until(p, timeout_ns, deadline);
    p->helper.wanted = INT64_MAX;
    return result;
}
