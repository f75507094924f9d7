/*
 * Which CPU: the tracer and the one stub that runs share one, several stubs do not.
 *
 * A stop hands the CPU from stub to tracer and back. On one CPU that is a context switch; on two it is
 * a wake-up of an idle CPU by interrupt, several times dearer. The scheduler can't know that the two
 * never run at once, so while one context runs alone both threads are pinned to the CPU where the
 * tracer is. A context that starts beside a running one is let go.
 *
 * Pinning costs system calls and makes trouble when many sandboxes share a machine, hence: it begins
 * only after STREAK stops in a row with one context running, and ends every TERM stops, for another
 * streak in which the scheduler chooses anew. A failure to pin is no error, only slower.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

enum { STREAK = 16, TERM = 8192 };

void affinity_open(pt_platform *p)
{
    p->affinity.known = sched_getaffinity(0, sizeof p->affinity.original, &p->affinity.original) == 0;
}

static void let_go(pt_platform *p)
{
    if (p->affinity.pinned)
        sched_setaffinity(0, sizeof p->affinity.original, &p->affinity.original);
    p->affinity.pinned = false;
    p->affinity.alone = p->affinity.age = 0;
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
}

/* `t` is about to run, and nothing else is running. */
void affinity_alone(pt_platform *p, pt_thread *t)
{
    if (!p->affinity.pinned) {
        if (++p->affinity.alone < STREAK || !p->affinity.known)
            return;
        pin_tracer(p);
    } else if (++p->affinity.age > TERM) {
        let_go(p);
        free_thread(p, t);
        return;
    }
    if (p->affinity.pinned && t->cpu != p->affinity.cpu)
        pin_thread(p, t);
}

/* `t` is about to run beside others. */
void affinity_many(pt_platform *p, pt_thread *t)
{
    if (p->affinity.pinned || p->affinity.alone)
        let_go(p);
    free_thread(p, t);
}
