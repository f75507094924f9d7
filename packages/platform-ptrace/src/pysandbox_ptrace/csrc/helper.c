/*
 * The helper thread: for what has to happen while the tracer sleeps in waitpid().
 *
 * Interface: it is started by the first need, and does two things: it kicks the tracer when the
 * deadline of a wait has passed, and it lets affinity.c look at how the tracer fares. It never
 * touches a tracee by ptrace, and sleeps for good when neither is due.
 *
 * It is armed lazily: a deadline that moves back is only noticed when the old one passes, so that a
 * new deadline at every stop costs no system call.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Until *word is not `value`, or the time (-1: never); spuriously too. */
int futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline)
{
    struct timespec until = {deadline / 1000000000, deadline % 1000000000};
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value,
                          deadline < 0 || deadline == INT64_MAX ? NULL : &until, NULL,
                          FUTEX_BITSET_MATCH_ANY);
    return result < 0 ? -errno : 0;
}

void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* `wanted`, unless it has passed: then the kick. */
static int64_t check_deadline(pt_platform *p, int64_t now)
{
    int64_t wanted = p->helper.wanted;
    if (wanted > now)
        return wanted;
    if (atomic_compare_exchange_strong(&p->helper.wanted, &wanted, INT64_MAX))
        pt_kick(p);
    return INT64_MAX;
}

static void *helper_main(void *arg)
{
    pt_platform *p = arg;
    while (!p->helper.stop) {
        uint32_t bell = p->helper.doorbell;
        if (futex_wait(&p->helper.doorbell, bell, p->helper.armed) != -ETIMEDOUT)
            continue;
        /* The mark goes up before `wanted` is read, helper_deadline() does the two the other way
         * round: a deadline that is set meanwhile is seen here, or rings the bell. */
        p->helper.armed = INT64_MAX;
        int64_t now = now_ns(), unarmed = INT64_MAX;
        int64_t deadline = check_deadline(p, now), look = affinity_watch(p, now);
        int64_t next = deadline < look ? deadline : look;
        atomic_compare_exchange_strong(&p->helper.armed, &unarmed, next);
    }
    return NULL;
}

static int start(pt_platform *p)
{
    pthread_attr_t attributes;
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    if (p->affinity.known)
        pthread_attr_setaffinity_np(&attributes, sizeof(cpu_set_t), &p->affinity.original);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&p->helper.thread, &attributes, helper_main, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (error)
        return pt_fail(p, -error, "a thread for timeouts: %s", strerror(error));
    p->helper.started = true;
    return 0;
}

/* Makes the thread wake up at `when` at the latest. */
int helper_wake(pt_platform *p, int64_t when)
{
    if (p->helper.started && p->helper.armed <= when)
        return 0;
    p->helper.armed = when;
    if (!p->helper.started)
        return start(p);
    p->helper.doorbell++;
    futex_wake(&p->helper.doorbell);
    return 0;
}

/* The wait that begins is to end by then. */
int helper_deadline(pt_platform *p, int64_t deadline)
{
    atomic_store(&p->helper.wanted, deadline);
    return helper_wake(p, deadline);
}

void helper_close(pt_platform *p)
{
    if (!p->helper.started)
        return;
    p->helper.stop = true;
    p->helper.doorbell++;
    futex_wake(&p->helper.doorbell);
    pthread_join(p->helper.thread, NULL);
    p->helper.started = false;
}
