/*
 * Which CPU: the tracer and the one stub that runs share one, several stubs do not.
 *
 * A stop hands the CPU from stub to tracer and back. On one CPU that is a context switch; on two it
 * is a wake-up of an idle CPU by interrupt, several times dearer. The scheduler can't know that the
 * two never run at once, so while one context runs alone both threads are pinned to the CPU where
 * the tracer is. A context that starts beside a running one is let go.
 *
 * A pinned thread can't evade another that wants the same CPU, so pinning must not last: it begins
 * after STREAK stops in a row with one context running (the first one excepted), and the helper
 * thread looks every LOOK_NS whether it still pays. A stub that made few stops since and is waited
 * for is let go at once; with nobody waiting the helper stops looking until somebody does. After
 * TERM looks the scheduler may choose anew, with a few stops to do so. A failure to pin is no
 * error, only slower.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <unistd.h>

enum {
    STREAK = 16,
    STREAK_AGAIN = 3,           /* after TERM */
    LOOK_NS = 10000000,
    FEW_STOPS = 32,             /* between two looks */
    TERM = 25,
};

static void pin_tracer(pt_platform *p)
{
    int cpu = sched_getcpu();
    cpu_set_t one;
    CPU_ZERO(&one);
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) < 0)
        return;
    p->affinity.cpu = cpu;
    p->affinity.pinned = true;
    p->affinity.looks = 0;
    p->affinity.end = p->affinity.freed = false;
}

/* Starting up is a conversation with one stub too. */
void affinity_open(pt_platform *p)
{
    cpu_set_t *original = &p->affinity.original;
    p->affinity.known = sched_getaffinity(0, sizeof *original, original) == 0;
    if (p->affinity.known)
        pin_tracer(p);
}

/* The stubs follow when they are started next. */
static void let_go(pt_platform *p)
{
    if (p->affinity.pinned)
        sched_setaffinity(0, sizeof p->affinity.original, &p->affinity.original);
    p->affinity.pinned = p->affinity.watched = false;
    p->affinity.alone = 0;
}

/* Started: until the first context runs, the tracer may make threads, which have its affinity. */
void affinity_opened(pt_platform *p)
{
    let_go(p);
    p->affinity.alone = STREAK - 1;
}

void affinity_close(pt_platform *p)
{
    let_go(p);
}

static void free_thread(pt_platform *p, pt_thread *t)
{
    if (t->cpu >= 0)
        sched_setaffinity(t->tid, sizeof p->affinity.original, &p->affinity.original);
    t->cpu = -1;
}

static void pin_thread(pt_platform *p, pt_thread *t)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(p->affinity.cpu, &one);
    if (sched_setaffinity(t->tid, sizeof one, &one) == 0)
        t->cpu = p->affinity.cpu;
}

/* `t` is about to run, and nothing else is running. */
void affinity_alone(pt_platform *p, pt_thread *t)
{
    p->affinity.stops++;
    if (p->affinity.pinned && p->affinity.end) {
        bool term = p->affinity.looks >= TERM;
        let_go(p);
        p->affinity.alone = term ? STREAK - STREAK_AGAIN : 0;
        free_thread(p, t);
    }
    if (!p->affinity.pinned) {
        if (++p->affinity.alone >= STREAK && p->affinity.known)
            pin_tracer(p);
        if (!p->affinity.pinned)
            return;
    }
    affinity_inject(p, t);
}

/* `t` is about to run beside others. */
void affinity_many(pt_platform *p, pt_thread *t)
{
    if (p->affinity.pinned || p->affinity.alone)
        let_go(p);
    free_thread(p, t);
}

/* The tracer is about to wait for `t`, and for nothing else. */
void affinity_inject(pt_platform *p, pt_thread *t)
{
    if (p->affinity.pinned && t->cpu != p->affinity.cpu)
        pin_thread(p, t);
}

/*
 * The tracer is about to wait for what runs. The helper may have stopped looking since that was
 * started: all that it sees is a tracer that waits.
 */
void affinity_wait(pt_platform *p)
{
    if (!p->affinity.pinned || p->affinity.watched || p->affinity.freed)
        return;
    p->affinity.watched = true;
    if (helper_wake(p, now_ns() + LOOK_NS)) {   /* nobody to end it */
        let_go(p);
        free_thread(p, p->running);
    }
}

/* The helper's look. Gives the time of the next one. */
int64_t affinity_watch(pt_platform *p, int64_t now)
{
    if (!p->affinity.watched)
        return INT64_MAX;
    uint32_t stops = p->affinity.stops, made = stops - p->affinity.stops_seen;
    p->affinity.stops_seen = stops;
    if (++p->affinity.looks >= TERM)
        p->affinity.end = true;
    if (made >= FEW_STOPS)
        return now + LOOK_NS;
    p->affinity.watched = false;
    pthread_mutex_lock(&p->kick_lock);
    pid_t tid = waiter_tid(p);
    if (tid) {
        sched_setaffinity(tid, sizeof p->affinity.original, &p->affinity.original);
        p->affinity.end = p->affinity.freed = true;
    }
    pthread_mutex_unlock(&p->kick_lock);
    return INT64_MAX;
}
