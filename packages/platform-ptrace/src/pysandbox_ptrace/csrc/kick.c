/*
 * Waking the tracer: from another thread, or because the time is up.
 *
 * A tracer that sleeps in waitpid() can only be woken without a race by a tracee that stops. So the
 * tracer publishes the stub it waits for (`waiter`) before it looks at `kicked` a last time, and
 * pt_kick() sets `kicked` before it looks at `waiter`: one of the two sees the other. The kick is a
 * SIGURG to that stub, which stops it before the signal would be delivered; stops.c drops it. One that
 * comes late costs a spurious stop. With nothing running the tracer sleeps on `kicked` itself, a futex.
 *
 * Timeouts while something runs are kicks by a helper thread, made by the first of them. It is armed
 * lazily: a deadline that moves back is only noticed when the old one passes, so that a new deadline
 * at every stop costs no system call.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { NOBODY = 0, ASLEEP = 1 };        /* `waiter`, beside pid << 32 | tid */

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Until *word is not `value`, or the time (-1: never); spuriously too. */
static int futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline)
{
    struct timespec until = {deadline / 1000000000, deadline % 1000000000};
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value,
                          deadline < 0 || deadline == INT64_MAX ? NULL : &until, NULL,
                          FUTEX_BITSET_MATCH_ANY);
    return result < 0 ? -errno : 0;
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void waiter_set(pt_platform *p, const pt_thread *t)
{
    atomic_store(&p->waiter, (uint64_t)t->space->pid << 32 | (uint32_t)t->tid);
}

void waiter_clear(pt_platform *p)
{
    atomic_store_explicit(&p->waiter, NOBODY, memory_order_release);
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

static void *timer_main(void *arg)
{
    pt_platform *p = arg;
    while (!p->timer.stop) {
        uint32_t bell = p->timer.doorbell;
        int64_t armed = p->timer.armed;
        if (futex_wait(&p->timer.doorbell, bell, armed) != -ETIMEDOUT)
            continue;
        /* The mark goes up before `wanted` is read, timer_arm() does the two the other way round: a
         * deadline that is set meanwhile is seen here, or rings the bell. */
        p->timer.armed = INT64_MAX;
        int64_t wanted = p->timer.wanted, unarmed = INT64_MAX;
        if (wanted > now_ns())
            atomic_compare_exchange_strong(&p->timer.armed, &unarmed, wanted);
        else if (atomic_compare_exchange_strong(&p->timer.wanted, &wanted, INT64_MAX))
            pt_kick(p);
    }
    return NULL;
}

static int timer_start(pt_platform *p)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&p->timer.thread, NULL, timer_main, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return pt_fail(p, -error, "a thread for timeouts: %s", strerror(error));
    p->timer.started = true;
    if (p->affinity.pinned)
        pthread_setaffinity_np(p->timer.thread, sizeof p->affinity.original, &p->affinity.original);
    return 0;
}

int timer_arm(pt_platform *p, int64_t deadline)
{
    atomic_store(&p->timer.wanted, deadline);
    if (p->timer.started && p->timer.armed <= deadline)
        return 0;
    p->timer.armed = deadline;
    if (!p->timer.started)
        return timer_start(p);
    p->timer.doorbell++;
    futex_wake(&p->timer.doorbell);
    return 0;
}

void timer_close(pt_platform *p)
{
    if (!p->timer.started)
        return;
    p->timer.stop = true;
    p->timer.doorbell++;
    futex_wake(&p->timer.doorbell);
    pthread_join(p->timer.thread, NULL);
    p->timer.started = false;
}
