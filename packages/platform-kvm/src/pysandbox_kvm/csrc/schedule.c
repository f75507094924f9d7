/*
 * Contexts over vCPUs.
 *
 * The only runnable context runs on the kernel's own thread, inside kv_wait(): no hand-off. Several
 * run on worker threads, each with a vCPU of its own; where there are more contexts than workers,
 * helper.c makes them take turns. The kernel's thread has a few vCPUs, so that processes that take
 * turns with each other keep their extended state where it is.
 *
 * Interface: the queue, the ready list and the state of contexts belong to whoever has the lock.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Wakes a kv_wait() that sleeps; under the lock. */
void event_post(kv_platform *p)
{
    atomic_fetch_add(&p->event, 1);
    futex_wake(&p->event);
}

/* Queues a stop for kv_wait(); under the lock. */
void context_ready(kv_ctx *c, int stop)
{
    c->stop = stop;
    c->state = KV_READY;
    c->runs_on = NULL;
    list_push(&c->platform->ready, c);
}

/* One turn of a context on a vCPU; under the lock, which is not held meanwhile. */
static int turn(kv_vcpu *v, kv_ctx *c)
{
    kv_platform *p = v->platform;
    int result = xstate_attach(v, c);
    if (result)
        return result;
    c->state = KV_RUNNING;
    c->runs_on = v;
    v->current = c;
    c->cpu_started_ns = 0;
    atomic_store(&v->attention, c->interrupt);
    pthread_mutex_unlock(&p->lock);
    uint64_t started = thread_cpu_ns();
    atomic_store_explicit((_Atomic uint64_t *)&c->cpu_started_ns, started, memory_order_relaxed);
    result = context_run(v, c);
    uint64_t used = thread_cpu_ns() - started;
    pthread_mutex_lock(&p->lock);
    c->cpu_ns += used;
    v->current = NULL;
    c->runs_on = NULL;
    if (result == 1) {
        context_ready(c, c->stop);
    } else if (result == 0 && c->interrupt) {
        context_ready(c, KV_STOP_INTERRUPTED);
    } else {
        c->state = KV_QUEUED;
        list_push(&p->queue, c);
        p->nqueued++;
    }
    return result;
}

static kv_ctx *take(kv_platform *p)
{
    kv_ctx *c = list_pop(&p->queue);
    if (c)
        p->nqueued--;
    return c;
}

static void *worker(void *argument)
{
    kv_vcpu *v = argument;
    kv_platform *p = v->platform;
    v->tid = (pid_t)syscall(SYS_gettid);
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        kv_ctx *c = take(p);
        if (!c) {
            p->nidle++;
            pthread_cond_wait(&p->work, &p->lock);
            p->nidle--;
            continue;
        }
        p->nworkers_running++;
        int result = turn(v, c);
        p->nworkers_running--;
        if (result < 0) {
            p->worker_error = result;
            p->stop = true;
        }
        if (result || c->state == KV_READY)
            event_post(p);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* A thread that takes no signal but the platform's own: the others are Python's. */
static int start_thread(kv_vcpu *v)
{
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGRTMIN + 1);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&v->thread, NULL, worker, v);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -error;
}

static int worker_new(kv_platform *p)
{
    kv_vcpu *v;
    int error = vcpu_new(p, &v);
    if (error)
        return error;
    if ((error = start_thread(v))) {
        vcpu_free(v);
        return kv_fail(p, error, "starting a thread: %s", strerror(-error));
    }
    p->workers[p->nworkers++] = v;
    return 0;
}

/* What is queued is for the workers; under the lock. */
int schedule_hand_out(kv_platform *p)
{
    int wanted = p->nqueued - p->nidle;
    while (wanted-- > 0 && p->nworkers - p->nidle < p->nqueued + p->nworkers_running &&
           p->nworkers < p->max_workers) {
        int error = worker_new(p);
        if (error)
            return error;
    }
    pthread_cond_broadcast(&p->work);
    return p->nqueued > p->nidle ? helper_start(p) : 0;
}

/* One of the kernel's own vCPUs: the one that ran the context last, a free one, or the oldest. */
static kv_vcpu *choose(const kv_platform *p, const kv_ctx *c)
{
    kv_vcpu *best = p->main_vcpus[0];
    for (int i = 0; i < MAIN_VCPUS; i++) {
        kv_vcpu *v = p->main_vcpus[i];
        if (v == c->vcpu)
            return v;
        if (best->holder && (!v->holder || v->last_use < best->last_use))
            best = v;
    }
    return best;
}

/* Runs a context that was taken from the queue on this thread; under the lock. */
int schedule_inline(kv_platform *p, kv_ctx *c)
{
    kv_vcpu *v = choose(p, c);
    v->last_use = ++p->uses;
    p->inline_vcpu = v;
    int result = turn(v, c);
    p->inline_vcpu = NULL;
    return result;
}

/* Ends the workers. In a fork of the process that opened the platform there are none. */
void schedule_close(kv_platform *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    for (int i = 0; i < p->nworkers; i++)
        if (p->workers[i]->current)
            vcpu_kick(p->workers[i]);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->nworkers; i++) {
        pthread_join(p->workers[i]->thread, NULL);
        vcpu_free(p->workers[i]);
    }
    for (int i = 0; i < MAIN_VCPUS && p->main_vcpus[i]; i++)
        vcpu_free(p->main_vcpus[i]);
    p->nworkers = 0;
}
