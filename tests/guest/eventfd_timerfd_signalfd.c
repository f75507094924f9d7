/* eventfd(2), timerfd_create(2), signalfd(2), pidfd_open(2): descriptors that stand for events. */
#include "guest.h"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static int ready(int fd)
{
    struct pollfd entry = {fd, POLLIN | POLLOUT, 0};
    return poll(&entry, 1, 0) < 0 ? -1 : entry.revents;
}

static void events(void)
{
    SECTION("eventfd");
    uint64_t value = 0;
    int fd = (int)CHECK(eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC));
    CHECK(fcntl(fd, F_GETFD));
    SHOW(ready(fd));
    CHECK(read(fd, &value, 8));
    SHOW(value);
    CHECK(read(fd, &value, 8));
    SHOW(ready(fd));
    value = 5;
    CHECK(write(fd, &value, 8));
    CHECK(write(fd, &value, 8));
    CHECK(read(fd, &value, 8));
    SHOW(value);
    value = UINT64_MAX;
    CHECK(write(fd, &value, 8));
    value = UINT64_MAX - 1;
    CHECK(write(fd, &value, 8));
    SHOW(ready(fd));
    value = 1;
    CHECK(write(fd, &value, 8));
    CHECK(read(fd, &value, 4));
    CHECK(write(fd, &value, 4));
    CHECK(read(fd, (void *)8, 8));
    CHECK(pread(fd, &value, 8, 0));
    CHECK(eventfd(0, 0x1000));
    int semaphore = (int)MUST(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    CHECK(read(semaphore, &value, 8));
    SHOW(value);
    CHECK(read(semaphore, &value, 8));
    CHECK(read(semaphore, &value, 8));
    int blocking = (int)MUST(eventfd(0, 0));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        value = 7;
        MUST(write(blocking, &value, 8));
        _exit(0);
    }
    CHECK(read(blocking, &value, 8));
    SHOW(value);
    reap("writer", pid);
}

static void timers(void)
{
    SECTION("timerfd");
    uint64_t value = 0;
    struct itimerspec once = {{0, 0}, {0, 2000000}}, current, off = {{0, 0}, {0, 0}};
    struct itimerspec far = {{100, 0}, {1000, 0}}, past = {{0, 0}, {1, 0}};
    struct itimerspec invalid = {{0, 0}, {0, 1000000000}};
    int fd = (int)CHECK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    SHOW(ready(fd));
    CHECK(read(fd, &value, 8));
    CHECK(timerfd_settime(fd, 0, &once, NULL));
    struct pollfd entry = {fd, POLLIN, 0};
    CHECK(poll(&entry, 1, -1));
    CHECK(read(fd, &value, 8));
    SHOW(value);
    CHECK(read(fd, &value, 8));
    CHECK(timerfd_settime(fd, 0, &far, &current));
    SHOW(current.it_value.tv_sec == 0 && current.it_value.tv_nsec == 0);
    CHECK(timerfd_gettime(fd, &current));
    SHOW(current.it_value.tv_sec >= 998 && current.it_value.tv_sec <= 1000);
    SHOW(current.it_interval.tv_sec);
    CHECK(timerfd_settime(fd, 0, &off, NULL));
    CHECK(timerfd_gettime(fd, &current));
    SHOW(current.it_value.tv_sec);
    CHECK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &past, NULL));
    CHECK(poll(&entry, 1, -1));
    CHECK(read(fd, &value, 8));
    struct itimerspec repeated = {{0, 1000000}, {0, 1000000}};
    MUST(timerfd_settime(fd, 0, &repeated, NULL));
    uint64_t total = 0;
    while (total < 5) {
        MUST(poll(&entry, 1, -1));
        MUST(read(fd, &value, 8));
        total += value;
    }
    SHOW(total >= 5);
    CHECK(read(fd, &value, 4));
    CHECK(timerfd_settime(fd, 0, &invalid, NULL));
    CHECK(timerfd_settime(fd, 0x100, &once, NULL));
    CHECK(timerfd_settime(999, 0, &once, NULL));
    CHECK(timerfd_settime(0, 0, &once, NULL));
    CHECK(syscall(SYS_timerfd_settime, fd, 0, 8, NULL));
    CHECK(syscall(SYS_timerfd_gettime, fd, 8));
    CHECK(timerfd_create(99, 0));
    CHECK(timerfd_create(CLOCK_THREAD_CPUTIME_ID, 0));
    CHECK(timerfd_create(CLOCK_REALTIME, 1));
    CHECK(write(fd, &value, 8));
    OK(timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC));
}

static void signals(void)
{
    SECTION("signalfd");
    struct signalfd_siginfo info[4];
    sigset_t set;
    union sigval value = {.sival_int = 321};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGRTMIN);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    int fd = (int)MUST(signalfd(-1, &set, SFD_NONBLOCK));
    SHOW(ready(fd));
    CHECK(read(fd, info, sizeof info));
    raise(SIGUSR1);
    SHOW(ready(fd));
    CHECK(read(fd, info, sizeof info));
    SHOW(info[0].ssi_signo);
    SHOW(info[0].ssi_pid == (uint32_t)getpid());
    raise(SIGUSR1);
    sigqueue(getpid(), SIGRTMIN, value);
    sigqueue(getpid(), SIGRTMIN, value);
    CHECK(read(fd, info, sizeof info[0]));
    SHOW(info[0].ssi_signo);
    CHECK(read(fd, info, sizeof info));
    SHOW(info[1].ssi_int);
    SHOW(info[1].ssi_code);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0)
        _exit(9);
    struct pollfd entry = {fd, POLLIN, 0};
    MUST(poll(&entry, 1, -1));
    CHECK(read(fd, info, sizeof info));
    SHOW(info[0].ssi_signo == SIGCHLD);
    SHOW(info[0].ssi_status);
    SHOW(info[0].ssi_pid == (uint32_t)pid);
    reap("child", pid);
    CHECK(read(fd, info, 10));
    sigdelset(&set, SIGUSR1);
    CHECK(signalfd(fd, &set, 0) == fd);
    raise(SIGUSR1);
    CHECK(read(fd, info, sizeof info));
    CHECK(signalfd(999, &set, 0));
    CHECK(signalfd(0, &set, 0));
    CHECK(signalfd(-1, &set, 1));
    CHECK(syscall(SYS_signalfd4, -1, 8, 8, 0));
    CHECK(syscall(SYS_signalfd4, -1, &set, 4, 0));
    CHECK(write(fd, info, sizeof info));
}

static void processes(void)
{
    SECTION("pidfd");
    struct latch go = new_latch();
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        wait_latch(&go);
        for (;;)
            pause();
    }
    int fd = (int)MUST(syscall(SYS_pidfd_open, pid, 0));
    CHECK(fcntl(fd, F_GETFD));
    SHOW(ready(fd));
    open_latch(&go);
    CHECK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    CHECK(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
    struct pollfd entry = {fd, POLLIN, 0};
    CHECK(poll(&entry, 1, -1));
    SHOW(entry.revents);
    CHECK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    reap("child", pid);
    CHECK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    CHECK(syscall(SYS_pidfd_open, pid, 0));
    CHECK(syscall(SYS_pidfd_open, 0, 0));
    CHECK(syscall(SYS_pidfd_open, -1, 0));
    CHECK(syscall(SYS_pidfd_open, getpid(), 1));
    CHECK(syscall(SYS_pidfd_send_signal, 0, 0, NULL, 0));
    CHECK(syscall(SYS_pidfd_send_signal, 999, 0, NULL, 0));
    CHECK(syscall(SYS_pidfd_send_signal, MUST(open("/proc/self", O_DIRECTORY)), 0, NULL, 0));
    CHECK(syscall(SYS_pidfd_send_signal, MUST(open("/proc/self/fd", O_DIRECTORY)), 0, NULL, 0));
    CHECK(read(fd, &pid, sizeof pid));
}

int main(void)
{
    events();
    timers();
    signals();
    processes();
    return 0;
}
