/*
 * The watchdog: a vCPU that stays in the guest kernel is noticed.
 *
 * Ring 0 is an instruction or two on the way to a HLT. If it does not come to that, because the
 * guest kernel was damaged or KVM errs, KVM_RUN does not return, and nobody may be there to kick
 * it: the kernel waits for a stop without a timeout. So every thread that runs vCPUs has a timer
 * on its own processor time, whose signal ends KVM_RUN and counts a tick. run.c looks at the count
 * when KVM_RUN was ended, and only then; a thread that sleeps has no processor time to be counted.
 *
 * Interface: watch_start() and watch_stop() are called by the thread that is to be watched, but
 * for the end of a platform, which may be anywhere. The counters are static and are never given
 * back, since a signal may arrive after its timer is gone; watches that share one see time go by
 * faster, which takes hundreds of them.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define TICK_NS 500000000

enum { COUNTERS = 256 };

static _Atomic uint32_t counters[COUNTERS];
static _Atomic uint32_t given;

/* The handler of the platform's signal: other than a tick it only ends KVM_RUN. */
void watch_signal(int signo, siginfo_t *info, void *unused)
{
    (void)signo;
    (void)unused;
    if (info->si_code == SI_TIMER)
        atomic_fetch_add(&counters[(uint32_t)info->si_value.sival_int % COUNTERS], 1);
}

int watch_start(kv_platform *p, kv_watch *w)
{
    uint32_t index = atomic_fetch_add(&given, 1) % COUNTERS;
    struct sigevent event = {
        .sigev_notify = SIGEV_THREAD_ID,
        .sigev_signo = SIGRTMIN + 1,
        .sigev_value.sival_int = (int)index,
    };
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    const struct timespec tick = {TICK_NS / 1000000000, TICK_NS % 1000000000};
    const struct itimerspec always = {.it_interval = tick, .it_value = tick};
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &w->timer))
        return kv_fail(p, -errno, "timer_create: %s", strerror(errno));
    w->running = true;
    w->ticks = &counters[index];
    if (timer_settime(w->timer, 0, &always, NULL))
        return kv_fail(p, -errno, "timer_settime: %s", strerror(errno));
    return 0;
}

void watch_stop(kv_watch *w)
{
    if (w->running)
        timer_delete(w->timer);
    w->running = false;
}
