/*
 * The helper thread: ends an inline run whose time is up, and makes contexts take turns where there
 * are more than vCPUs. Futexes.
 *
 * Interface: it is started when first needed and sleeps while there is neither. A deadline that was
 * not reached costs no call: the thread wakes up at the old time and looks for the next.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TURN_NS INT64_C(10000000)

int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){ns / 1000000000, ns % 1000000000};
}

void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* `deadline` is of CLOCK_MONOTONIC; INT64_MAX for none. 0 or a negative errno. */
int futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline)
{
    struct timespec time = timespec_of(deadline);
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value,
                          deadline == INT64_MAX ? NULL : &time, NULL, FUTEX_BITSET_MATCH_ANY);
    return result ? -errno : 0;
}

static void *helper(void *argument)
{
    kv_platform *p = argument;
    int64_t next_turn = INT64_MAX;
    pthread_mutex_lock(&p->lock);
    while (!p->helper.stop) {
        int64_t now = now_ns();
        if (p->helper.deadline <= now) {
            p->helper.deadline = INT64_MAX;
            if (p->main.running)
                vcpu_kick(p->main.running);
        }
        if (!schedule_is_crowded(p)) {
            next_turn = INT64_MAX;
        } else if (next_turn == INT64_MAX) {
            next_turn = now + TURN_NS;
        } else if (next_turn <= now) {
            workers_kick(p);
            next_turn = now + TURN_NS;
        }
        int64_t until = next_turn < p->helper.deadline ? next_turn : p->helper.deadline;
        p->helper.armed = until;
        struct timespec time = timespec_of(until);
        if (until == INT64_MAX)
            pthread_cond_wait(&p->helper.wake, &p->lock);
        else
            pthread_cond_timedwait(&p->helper.wake, &p->lock, &time);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int helper_open(kv_platform *p)
{
    pthread_condattr_t attributes;
    p->helper.deadline = p->helper.armed = INT64_MAX;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    int error = pthread_cond_init(&p->helper.wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return error ? kv_fail(p, -error, "a condition variable: %s", strerror(error)) : 0;
}

/* Makes it look at its duties now. */
static int wake(kv_platform *p)
{
    pthread_cond_signal(&p->helper.wake);
    if (p->helper.started)
        return 0;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&p->helper.thread, NULL, helper, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return kv_fail(p, -error, "starting a thread: %s", strerror(error));
    p->helper.started = true;
    return 0;
}

/* The inline run that is about to begin ends then; under the lock. */
int helper_deadline(kv_platform *p, int64_t deadline)
{
    p->helper.deadline = deadline;
    return deadline < p->helper.armed ? wake(p) : 0;
}

/* Workers take turns from now on; under the lock. It ends by itself. */
int helper_turns(kv_platform *p)
{
    return p->helper.armed > now_ns() + TURN_NS ? wake(p) : 0;
}

void helper_close(kv_platform *p)
{
    if (!p->helper.started)
        return;
    pthread_mutex_lock(&p->lock);
    p->helper.stop = true;
    pthread_cond_signal(&p->helper.wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->helper.thread, NULL);
    p->helper.started = false;
}
