/* Clocks and timers: clock_gettime(2), clock_nanosleep, setitimer, timer_create, alarm, times. */
#include "guest.h"
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/timex.h>

static volatile sig_atomic_t count;
static volatile int value;

static void on_signal(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    count++;
    value = info->si_code == SI_TIMER ? info->si_value.sival_int : 0;
}

static long long nanoseconds(clockid_t clock)
{
    struct timespec now;
    MUST(clock_gettime(clock, &now));
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void clocks(void)
{
    SECTION("clocks");
    static const clockid_t ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW,
                                    CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME,
                                    CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_TAI};
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        struct timespec direct, resolution;
        long long before = nanoseconds(ids[i]);
        long result = syscall(SYS_clock_gettime, ids[i], &direct);
        long long middle = direct.tv_sec * 1000000000LL + direct.tv_nsec;
        long long after = nanoseconds(ids[i]);
        say("clock %d: %ld in order %d near %d resolution %d", ids[i], result,
            before <= middle && middle <= after, after - before < 5000000000LL,
            clock_getres(ids[i], &resolution));
    }
    struct timespec now;
    struct timeval tv;
    CHECK(clock_gettime(99, &now));
    CHECK(clock_gettime(-1, &now));
    CHECK(clock_getres(99, &now));
    CHECK(clock_getres(CLOCK_REALTIME, NULL));
    CHECK(syscall(SYS_clock_gettime, CLOCK_REALTIME, 8));
    CHECK(syscall(SYS_gettimeofday, &tv, NULL));
    CHECK(syscall(SYS_gettimeofday, 8, NULL));
    SHOW(labs(time(NULL) - tv.tv_sec) < 5);
    SHOW(labs(syscall(SYS_time, NULL) - time(NULL)) < 5);
    clockid_t clock;
    CHECK(clock_getcpuclockid(0, &clock));
    CHECK(clock_gettime(clock, &now));
}

static void sleeping(void)
{
    SECTION("sleeping");
    struct timespec moment = {0, 3000000}, zero = {0, 0}, past = {1, 0}, left = {7, 7};
    struct timespec invalid = {0, 1000000000}, negative = {-1, 0};
    long long before = nanoseconds(CLOCK_MONOTONIC);
    CHECK(nanosleep(&moment, &left));
    SHOW(nanoseconds(CLOCK_MONOTONIC) - before >= 3000000);
    SHOW(left.tv_sec);
    CHECK(nanosleep(&zero, NULL));
    CHECK(nanosleep(&invalid, NULL));
    CHECK(nanosleep(&negative, NULL));
    CHECK(syscall(SYS_nanosleep, 8, NULL));
    CODE(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, NULL));
    CODE(clock_nanosleep(CLOCK_REALTIME, 0, &moment, NULL));
    CODE(clock_nanosleep(CLOCK_BOOTTIME, 0, &zero, NULL));
    CODE(clock_nanosleep(CLOCK_REALTIME, 0, &invalid, NULL));
    CHECK(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &moment, NULL));
    CHECK(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC_RAW, 0, &moment, NULL));
    CHECK(syscall(SYS_clock_nanosleep, 99, 0, &moment, NULL));
    struct timespec target;
    clock_gettime(CLOCK_MONOTONIC, &target);
    target.tv_nsec += 2000000;
    if (target.tv_nsec >= 1000000000) {
        target.tv_sec++;
        target.tv_nsec -= 1000000000;
    }
    CODE(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &target, NULL));
    SHOW(nanoseconds(CLOCK_MONOTONIC) >= target.tv_sec * 1000000000LL + target.tv_nsec);
}

static void wait_for(int want)
{
    sigset_t none;
    sigemptyset(&none);
    while (count < want)
        sigsuspend(&none);
}

/* An alarm that came while nobody waited for one is not counted. */
static void count_from_now(void)
{
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    while (sigtimedwait(&alarms, NULL, &(struct timespec){0, 0}) > 0)
        ;
    count = value = 0;
}

static void interval_timers(void)
{
    SECTION("interval timers");
    struct itimerval once = {{0, 0}, {0, 2000}}, repeated = {{0, 1000}, {0, 1000}};
    struct itimerval off = {{0, 0}, {0, 0}}, current, far = {{0, 0}, {1000, 0}};
    struct itimerval invalid = {{0, 0}, {0, 1000000}};
    count_from_now();
    CHECK(setitimer(ITIMER_REAL, &once, NULL));
    wait_for(1);
    CHECK(getitimer(ITIMER_REAL, &current));
    SHOW(current.it_value.tv_sec + current.it_value.tv_usec);
    count_from_now();
    CHECK(setitimer(ITIMER_REAL, &repeated, NULL));
    wait_for(3);
    CHECK(setitimer(ITIMER_REAL, &off, &current));
    SHOW(current.it_interval.tv_usec);
    CHECK(setitimer(ITIMER_REAL, &far, NULL));
    CHECK(getitimer(ITIMER_REAL, &current));
    SHOW(current.it_value.tv_sec >= 998 && current.it_value.tv_sec <= 1000);
    SHOW(alarm(0) >= 998);
    SHOW(alarm(500));
    SHOW(alarm(0) >= 498);
    CHECK(setitimer(ITIMER_REAL, &invalid, NULL));
    CHECK(setitimer(99, &once, NULL));
    CHECK(getitimer(99, &current));
    CHECK(syscall(SYS_setitimer, ITIMER_REAL, 8, NULL));
    CHECK(syscall(SYS_getitimer, ITIMER_REAL, 8));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        MUST(setitimer(ITIMER_REAL, &once, NULL));
        for (;;)
            pause();
    }
    reap("alarmed", pid);
}

static void cpu_timers(void)
{
    SECTION("CPU timers");
    struct itimerval soon = {{0, 0}, {0, 5000}};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    MUST(sigaction(SIGVTALRM, &action, NULL));
    MUST(sigaction(SIGPROF, &action, NULL));
    count = 0;
    CHECK(setitimer(ITIMER_VIRTUAL, &soon, NULL));
    while (count < 1)
        ;
    CHECK(setitimer(ITIMER_PROF, &soon, NULL));
    while (count < 2)
        ;
    SHOW(count);
}

static void posix_timers(void)
{
    SECTION("POSIX timers");
    timer_t timer, other;
    struct itimerspec once = {{0, 0}, {0, 2000000}}, repeated = {{0, 1000000}, {0, 1000000}};
    struct itimerspec off = {{0, 0}, {0, 0}}, far = {{50, 0}, {1000, 0}}, current;
    struct itimerspec invalid = {{0, 0}, {0, 1000000000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    event.sigev_value.sival_int = 4711;
    count_from_now();
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer));
    CHECK(timer_settime(timer, 0, &once, NULL));
    wait_for(1);
    SHOW(value);
    CHECK(timer_getoverrun(timer));
    count_from_now();
    CHECK(timer_settime(timer, 0, &repeated, NULL));
    wait_for(3);
    CHECK(timer_settime(timer, 0, &far, &current));
    SHOW(current.it_interval.tv_nsec);
    CHECK(timer_gettime(timer, &current));
    SHOW(current.it_value.tv_sec >= 998 && current.it_interval.tv_sec == 50);
    CHECK(timer_settime(timer, 0, &invalid, NULL));
    CHECK(timer_settime(timer, 0, &off, NULL));
    CHECK(timer_gettime(timer, &current));
    SHOW(current.it_value.tv_sec);
    event.sigev_notify = SIGEV_NONE;
    CHECK(timer_create(CLOCK_REALTIME, &event, &other));
    CHECK(timer_settime(other, 0, &far, NULL));
    CHECK(timer_delete(other));
    CHECK(syscall(SYS_timer_delete, 12345));
    CHECK(syscall(SYS_timer_settime, 12345, 0, &once, NULL));
    CHECK(syscall(SYS_timer_gettime, 12345, &current));
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = 200;
    int id;
    CHECK(syscall(SYS_timer_create, CLOCK_REALTIME, &event, &id));
    CHECK(syscall(SYS_timer_create, 99, NULL, &id));
    CHECK(syscall(SYS_timer_create, CLOCK_REALTIME, 8, &id));
    CHECK(timer_delete(timer));
    count_from_now();
    CHECK(timer_create(CLOCK_MONOTONIC, NULL, &timer));
    CHECK(timer_settime(timer, 0, &once, NULL));
    wait_for(1);
    struct sigevent thread = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
    thread._sigev_un._tid = (int)syscall(SYS_gettid);
    count_from_now();
    CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &thread, &id));
    CHECK(syscall(SYS_timer_settime, id, 0, &once, NULL));
    wait_for(1);
    thread._sigev_un._tid = 1 << 29;
    CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &thread, &id));
}

static void ordinary(void)
{
    struct timespec now = {1000000000, 0};
    struct timeval tv = {1000000000, 0};
    struct timex timex = {.modes = 0};
    become_ordinary();
    CHECK(clock_settime(CLOCK_REALTIME, &now));
    CHECK(clock_settime(CLOCK_MONOTONIC, &now));
    CHECK(settimeofday(&tv, NULL));
    SHOW(adjtimex(&timex) >= 0);
    timex.modes = ADJ_FREQUENCY;
    CHECK(adjtimex(&timex));
}

static void usage(void)
{
    SECTION("usage");
    struct rusage self, children;
    struct tms tms;
    CHECK(getrusage(RUSAGE_SELF, &self));
    CHECK(getrusage(RUSAGE_CHILDREN, &children));
    CHECK(getrusage(RUSAGE_THREAD, &self));
    CHECK(getrusage(99, &self));
    CHECK(syscall(SYS_getrusage, RUSAGE_SELF, 8));
    SHOW(self.ru_utime.tv_sec < 100 && self.ru_stime.tv_sec < 100);
    OK(times(&tms));
    OK(times(NULL));
    SHOW(tms.tms_utime >= 0 && tms.tms_cutime >= 0);
    CHECK(syscall(SYS_times, 8));
    long long before = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    while (nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - before < 20000000)
        ;
    getrusage(RUSAGE_SELF, &self);
    SHOW(self.ru_utime.tv_sec * 1000000 + self.ru_utime.tv_usec + self.ru_stime.tv_sec * 1000000 +
             self.ru_stime.tv_usec >= 15000);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigset_t set;
    MUST(sigaction(SIGALRM, &action, NULL));
    clocks();
    sleeping();
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    interval_timers();
    posix_timers();
    cpu_timers();
    SECTION("setting clocks");
    in_child("ordinary", ordinary);
    usage();
    return 0;
}
