/*
 * Waking the tracer: from another thread, or because the time is up.
 *
 * A tracer that sleeps in waitpid() can only be woken without a race by a tracee that stops. So the
 * tracer publishes the stub it waits for (`waiter`) before it looks at `kicked` a last time, and
 * pt_kick() sets `kicked` before it looks at `waiter`: one of the two sees the other. The kick is a
 * SIGURG to that stub, which stops it before the signal would be delivered; stops.c drops it. One
 * that comes late costs a spurious stop. With nothing running the tracer sleeps on `kicked` itself,
 * a futex.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { NOBODY = 0, ASLEEP = 1 };        /* `waiter`, beside pid << 32 | tid */

void waiter_set(pt_platform *p, const pt_thread *t)
{
    atomic_store(&p->waiter, (uint64_t)t->space->pid << 32 | (uint32_t)t->tid);
}

void waiter_clear(pt_platform *p)
{
    atomic_store_explicit(&p->waiter, NOBODY, memory_order_release);
}

/* The stub that the tracer waits for, 0 when it does not. Under kick_lock, it exists. */
pid_t waiter_tid(pt_platform *p)
{
    uint64_t waiter = atomic_load(&p->waiter);
    return waiter == ASLEEP ? 0 : (pid_t)waiter;
}

void pt_kick(pt_platform *p)
{
    if (atomic_exchange(&p->kicked, 1))
        return;                 /* whoever set it wakes the tracer */
    pthread_mutex_lock(&p->kick_lock);
    uint64_t waiter = atomic_load(&p->waiter);
    if (waiter == ASLEEP)
        futex_wake(&p->kicked);
    else if (waiter != NOBODY)
        syscall(SYS_tgkill, (pid_t)(waiter >> 32), (pid_t)waiter, SIGURG);
    pthread_mutex_unlock(&p->kick_lock);
}

/* Nothing runs: wait for the kick or the time alone. */
int kick_sleep(pt_platform *p, int64_t deadline)
{
    atomic_store(&p->waiter, ASLEEP);
    if (!p->kicked)
        futex_wait(&p->kicked, 0, deadline);
    waiter_clear(p);
    atomic_store(&p->kicked, 0);
    return PT_NOTHING;
}
