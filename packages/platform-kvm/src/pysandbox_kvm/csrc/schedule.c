/*
 * Which context runs where, and when.
 *
 * Handing a context to another thread costs two changes of thread; moving its extended state to
 * another vCPU two calls of KVM. So the kernel's own thread runs contexts itself, inside kv_wait():
 * the only runnable one for as long as it likes, and beside others those that stop soon, as
 * programs do that make system calls. Workers (workers.c) take what is left: contexts that compute,
 * and those for which there is another processor.
 *
 * A context is known by its last burst, the processor time from its resume to its stop. The
 * kernel's thread errs for BESIDE_NS at most: a context that stays so long computes, and goes to a
 * worker. Where more compute than there are workers, helper.c makes them take turns.
 *
 * Every thread has a few vCPUs, made when first needed, and contexts stay with the thread that has
 * their extended state, unless it is busy and another one is not.
 *
 * Interface: everything here is under the lock.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>

#define LONG_NS UINT64_C(250000)        /* a longer burst is computing */
#define BESIDE_NS INT64_C(1000000)

enum { REACH = 8 };                     /* contexts of a list that are looked at */
enum { PATIENCE = 4 };                  /* times that the first may be passed over */

static kv_list *list_of(kv_platform *p, const kv_ctx *c)
{
    return c->computes ? &p->computing : &p->queue;
}

void queue_push(kv_ctx *c)
{
    kv_platform *p = c->platform;
    c->state = KV_QUEUED;
    c->passed_over = 0;
    list_push(list_of(p, c), c);
    p->nqueued++;
    p->ncomputing += c->computes;
}

void queue_remove(kv_ctx *c)
{
    kv_platform *p = c->platform;
    list_remove(list_of(p, c), c);
    p->nqueued--;
    p->ncomputing -= c->computes;
}

/* Queues a stop for kv_wait(). */
void context_ready(kv_ctx *c, int stop)
{
    c->stop = stop;
    c->state = KV_READY;
    list_push(&c->platform->ready, c);
}

static bool is_held_by(const kv_ctx *c, const kv_runner *r)
{
    return c->vcpu && c->vcpu->runner == r;
}

/* The first, or one close behind it whose extended state the thread has. */
static kv_ctx *first_for(const kv_list *l, const kv_runner *r)
{
    kv_ctx *c = l->head;
    if (!c || c->passed_over >= PATIENCE)
        return c;
    for (int i = 0; c && i < REACH; i++, c = c->next) {
        if (is_held_by(c, r)) {
            l->head->passed_over += c != l->head;
            return c;
        }
    }
    return l->head;
}

/* Has the kernel's thread other things to do than to run what is queued? */
static bool is_busy(const kv_platform *p)
{
    return p->ready.head || p->main.running;
}

/*
 * How many of those that stop soon the kernel's thread leaves to workers. It takes one itself, at
 * once or, if it is one of its own, when it has looked at the stops that there are.
 */
static int left_over(const kv_platform *p)
{
    int n = p->nqueued - p->ncomputing;
    if (!n || p->main.running)
        return n;
    if (!p->ready.head)
        return n - 1;
    const kv_ctx *c = p->queue.head;
    for (int i = 0; c && i < REACH; i++, c = c->next)
        if (is_held_by(c, &p->main))
            return n - 1;
    return n;
}

static int at_most(int n, int limit)
{
    return limit < 0 ? 0 : n < limit ? n : limit;
}

/* How many more contexts workers should run. */
static int wanted(const kv_platform *p)
{
    if (p->nqueued == 1 && !p->nrunning && !is_busy(p))
        return 0;                       /* the only one */
    int soon = at_most(left_over(p), p->ncpus - 1 - p->nrunning);
    return at_most(soon + p->ncomputing, p->max_workers - p->nrunning);
}

/* What a worker is to run next, taken from the queue; NULL for nothing. */
kv_ctx *schedule_take(kv_runner *r)
{
    kv_platform *p = r->platform;
    if (p->paused || wanted(p) <= 0)
        return NULL;
    kv_ctx *c = first_for(p->ncomputing ? &p->computing : &p->queue, r);
    queue_remove(c);
    return c;
}

/* Someone computes, or would, while all workers do. */
bool schedule_is_crowded(const kv_platform *p)
{
    return p->ncomputing && p->nrunning >= p->max_workers;
}

/* Wakes up workers for what was queued. */
int schedule_hand_out(kv_platform *p)
{
    int error = 0;
    for (int more = wanted(p) - p->woken; !error && more > 0; more--)
        error = worker_wake(p);
    return error || !schedule_is_crowded(p) ? error : helper_turns(p);
}

/*
 * One of the thread's vCPUs: the one that has the context's state, a free one, a new one, or the
 * one not used for longest.
 */
static int choose(kv_runner *r, const kv_ctx *c, kv_vcpu **chosen)
{
    kv_platform *p = r->platform;
    kv_vcpu *best = NULL;
    for (int i = 0; i < r->nvcpus; i++) {
        kv_vcpu *v = r->vcpus[i];
        if (v == c->vcpu) {
            *chosen = v;
            return 0;
        }
        if (!best || (best->holder && (!v->holder || v->last_use < best->last_use)))
            best = v;
    }
    *chosen = best;
    bool is_more_allowed = r->nvcpus < RUNNER_VCPUS &&
                           p->nvcpus + p->max_workers - p->nworkers < p->max_vcpus;
    if (best && (!best->holder || !is_more_allowed))
        return 0;
    return runner_add_vcpu(r, chosen);
}

/* Does it compute? Its burst goes on when it was only told to leave the guest. */
static void account(kv_ctx *c, uint64_t used, bool stopped)
{
    c->cpu_ns += used;
    c->burst_ns += used;
    c->computes = c->burst_ns > LONG_NS;
    if (stopped)
        c->burst_ns = 0;
}

/*
 * One turn of a context, which was taken from the queue, on this thread; the lock is not held
 * meanwhile. 1: it stopped, 0: it was told to leave the guest.
 */
int schedule_turn(kv_runner *r, kv_ctx *c)
{
    kv_platform *p = r->platform;
    kv_vcpu *v;
    int result = choose(r, c, &v);
    if (!result)
        result = xstate_attach(v, c);
    if (result) {
        queue_push(c);
        return result;
    }
    v->last_use = ++r->uses;
    c->state = KV_RUNNING;
    c->runs_on = r->running = v;
    atomic_store(&c->cpu_started_ns, 0);
    atomic_store(&v->attention, c->interrupt);
    pthread_mutex_unlock(&p->lock);
    uint64_t started = thread_cpu_ns();
    atomic_store_explicit(&c->cpu_started_ns, started, memory_order_relaxed);
    result = context_run(v, c);
    uint64_t used = thread_cpu_ns() - started;
    pthread_mutex_lock(&p->lock);
    c->runs_on = r->running = NULL;
    account(c, used, result == 1);
    if (result == 1)
        context_ready(c, c->stop);
    else if (result == 0 && c->interrupt)
        context_ready(c, KV_STOP_INTERRUPTED);
    else
        queue_push(c);
    return result;
}

/*
 * Runs what the kernel's thread runs itself, if there is anything, until `deadline` at most. 1: it
 * did, 0: there is nothing.
 */
int schedule_inline(kv_platform *p, int64_t deadline)
{
    bool alone = p->nqueued == 1 && !p->nrunning;
    kv_ctx *c = first_for(alone && p->ncomputing ? &p->computing : &p->queue, &p->main);
    if (!c)
        return 0;
    int64_t soon = alone ? INT64_MAX : now_ns() + BESIDE_NS;
    int error = helper_deadline(p, deadline < soon ? deadline : soon);
    if (error)
        return error;
    queue_remove(c);
    int result = schedule_turn(&p->main, c);
    p->helper.deadline = INT64_MAX;
    if (result == 0)
        result = schedule_hand_out(p);
    return result < 0 ? result : 1;
}
