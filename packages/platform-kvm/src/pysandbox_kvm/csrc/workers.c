/*
 * The threads that run contexts: the kernel's own, and workers.
 *
 * Interface: under the lock, but where it says otherwise. A worker sleeps until it is
 * woken up by worker_wake(), and then goes on for as long as schedule_take() gives it something. It
 * stays awake for a while before it sleeps: to sleep and to be woken up costs more than that while,
 * on a virtual machine above all.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#define AWAKE_NS INT64_C(100000)

enum { LOOKS_APART = 20 };              /* in pauses of the processor */

/* One more vCPU for a thread. Where there can be no more, it makes do with those that it has. */
int runner_add_vcpu(kv_runner *r, kv_vcpu **made)
{
    kv_vcpu *v;
    int error = vcpu_new(r->platform, &v);
    if (error)
        return *made ? 0 : error;
    v->runner = r;
    v->watch = &r->watch;
    r->vcpus[r->nvcpus++] = *made = v;
    return 0;
}

const kv_vcpu *runner_find_vcpu(const kv_runner *r, int id)
{
    for (int i = 0; i < r->nvcpus; i++)
        if (r->vcpus[i]->id == id)
            return r->vcpus[i];
    return NULL;
}

/* Two at least, since programs wait for each other by looking again and again. */
static void count_processors(kv_platform *p)
{
    cpu_set_t set;
    int known = sched_getaffinity(0, sizeof set, &set);
    p->ncpus = known ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    p->max_workers = p->ncpus < 2 ? 2 : p->ncpus;
    if (p->max_workers > p->max_vcpus - 1)
        p->max_workers = p->max_vcpus - 1;
}

/* The kernel's own thread, which calls it; there is no other yet. */
int runner_open(kv_platform *p)
{
    kv_vcpu *first = NULL;
    count_processors(p);
    p->main.platform = p;
    p->main.thread = pthread_self();
    p->main.tid = (pid_t)syscall(SYS_gettid);
    int error = watch_start(p, &p->main.watch);
    return error ? error : runner_add_vcpu(&p->main, &first);
}

/* They load CR3 with the next entry. */
static void forget_roots(kv_runner *r)
{
    for (int i = 0; i < r->nvcpus; i++)
        r->vcpus[i]->root = 0;
}

static void runner_free_vcpus(kv_runner *r)
{
    for (int i = 0; i < r->nvcpus; i++)
        vcpu_free(r->vcpus[i]);
    r->nvcpus = 0;
}

/* A worker can't go on, and `p->error` says why: the next kv_wait() fails. */
static void worker_failed(kv_platform *p, int error)
{
    p->worker_error = error;
    p->stop = true;
    event_post(p);
}

static void run_contexts(kv_runner *r)
{
    kv_platform *p = r->platform;
    kv_ctx *c;
    while (!p->stop && (c = schedule_take(r))) {
        p->nrunning++;
        int result = schedule_is_crowded(p) ? helper_turns(p) : 0;
        if (result)
            queue_push(c);
        else
            result = schedule_turn(r, c);
        p->nrunning--;
        if (result < 0)
            worker_failed(p, result);
        event_post(p);                  /* the context stopped, or may be the only one now */
    }
}

/* Looks for work for as long as it takes to answer a call, and to run another context up to one. */
static void stay_awake(kv_platform *p)
{
    p->nawake++;
    pthread_mutex_unlock(&p->lock);
    int64_t until = now_ns() + AWAKE_NS;
    while (!atomic_load(&p->woken) && now_ns() < until)
        for (int i = 0; i < LOOKS_APART; i++)
            _mm_pause();
    pthread_mutex_lock(&p->lock);
    p->nawake--;
}

/* Until there may be work. */
static void rest(kv_platform *p)
{
    if (p->ncpus > 1)
        stay_awake(p);
    while (!p->woken && !p->stop)
        pthread_cond_wait(&p->work, &p->lock);
}

static void *worker(void *argument)
{
    kv_runner *r = argument;
    kv_platform *p = r->platform;
    pthread_mutex_lock(&p->lock);
    r->tid = (pid_t)syscall(SYS_gettid);
    int error = watch_start(p, &r->watch);
    if (error)
        worker_failed(p, error);
    while (!p->stop) {
        if (!p->woken) {
            rest(p);
            continue;
        }
        p->woken--;
        p->nidle--;
        run_contexts(r);
        p->nidle++;
    }
    pthread_mutex_unlock(&p->lock);
    watch_stop(&r->watch);
    return NULL;
}

/* A thread that takes no signal but the platform's own: the others are Python's. */
static int start_thread(kv_runner *r)
{
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGRTMIN + 1);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&r->thread, NULL, worker, r);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -error;
}

static int worker_new(kv_platform *p)
{
    kv_runner *r = calloc(1, sizeof *r);
    if (!r)
        return kv_fail(p, -ENOMEM, "out of memory");
    r->platform = p;
    kv_vcpu *first = NULL;
    int error = runner_add_vcpu(r, &first);
    if (!error && (error = start_thread(r)))
        kv_fail(p, error, "starting a thread: %s", strerror(-error));
    if (error) {
        runner_free_vcpus(r);
        free(r);
        return error;
    }
    p->workers[p->nworkers++] = r;
    p->nidle++;
    return 0;
}

/* Wakes one up, which may be a new one; nothing if all are at work. */
int worker_wake(kv_platform *p)
{
    if (p->nidle == p->woken) {
        int error = p->nworkers < p->max_workers ? worker_new(p) : 0;
        if (error || p->nidle == p->woken)
            return error;
    }
    if (++p->woken > p->nawake)
        pthread_cond_signal(&p->work);
    return 0;
}

/* Makes them all leave the guest. */
void workers_kick(kv_platform *p)
{
    for (int i = 0; i < p->nworkers; i++)
        if (p->workers[i]->running)
            vcpu_kick(p->workers[i]->running);
}

/* From when it returns until workers_go_on(), no vCPU is in the guest. It takes the lock. */
void workers_pause(kv_platform *p)
{
    pthread_mutex_lock(&p->lock);
    p->paused = true;
    workers_kick(p);
    while (p->nrunning)
        event_wait(p, INT64_MAX);
}

/* Gives the lock back. Page tables may be others than before. */
int workers_go_on(kv_platform *p)
{
    forget_roots(&p->main);
    for (int i = 0; i < p->nworkers; i++)
        forget_roots(p->workers[i]);
    p->paused = false;
    int error = schedule_hand_out(p);
    pthread_mutex_unlock(&p->lock);
    return error;
}

/* Ends all that run contexts; it takes the lock. In a fork of the process that opened the platform there are none. */
void workers_close(kv_platform *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    workers_kick(p);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->nworkers; i++) {
        pthread_join(p->workers[i]->thread, NULL);
        runner_free_vcpus(p->workers[i]);
        free(p->workers[i]);
    }
    p->nworkers = 0;
    watch_stop(&p->main.watch);
    runner_free_vcpus(&p->main);
}
