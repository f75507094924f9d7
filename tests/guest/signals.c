/* Signals: dispositions, masks, queues, SA_* flags, interrupted calls, waiting for them. */
#include "guest.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/time.h>

static volatile sig_atomic_t count;
static int trace[64], traced;
static struct latch handled = {{-1, -1}};

static void on_signal(int signo)
{
    count++;
    if (traced < 64)
        trace[traced++] = signo;
    if (handled.fds[1] != -1)
        open_latch(&handled);
}

static void install(int signo, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    MUST(sigaction(signo, &action, NULL));
}

static void show_trace(const char *label)
{
    printf("%s:", label);
    for (int i = 0; i < traced; i++)
        printf(" %s", signal_name(trace[i]));
    putchar('\n');
    traced = 0;
}

static sigset_t set_of(int first, int second)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, first);
    sigaddset(&set, second);
    return set;
}

static void dispositions(void)
{
    SECTION("dispositions");
    struct sigaction old;
    install(SIGUSR1, on_signal, SA_RESTART);
    MUST(sigaction(SIGUSR1, NULL, &old));
    SHOW(old.sa_handler == on_signal);
    SHOW((old.sa_flags & SA_RESTART) != 0);
    MUST(raise(SIGUSR1));
    SHOW(count);
    CHECK(sigaction(SIGKILL, NULL, &old));
    CHECK(sigaction(SIGKILL, &old, NULL));
    CHECK(sigaction(SIGSTOP, &old, NULL));
    CHECK(syscall(SYS_rt_sigaction, 0, &old, NULL, 8));
    CHECK(syscall(SYS_rt_sigaction, 65, &old, NULL, 8));
    CHECK(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
    CHECK(syscall(SYS_rt_sigaction, SIGUSR1, 8, NULL, 8));
    CHECK(syscall(SYS_rt_sigaction, SIGUSR1, NULL, 8, 8));
    install(SIGUSR1, SIG_IGN, 0);
    MUST(raise(SIGUSR1));
    SHOW(count);
    CHECK(kill(getpid(), 0));
    CHECK(kill(getpid(), 65));
    CHECK(kill(getpid(), -1));
    CHECK(kill(1 << 30, 0));
    CHECK(kill(INT_MIN, 0));
}

static void masks(void)
{
    SECTION("masks");
    sigset_t set = set_of(SIGUSR1, SIGUSR2), old, pending;
    install(SIGUSR1, on_signal, 0);
    install(SIGUSR2, on_signal, 0);
    count = traced = 0;
    CHECK(sigprocmask(SIG_BLOCK, &set, &old));
    SHOW(sigismember(&old, SIGUSR1));
    raise(SIGUSR2);
    raise(SIGUSR1);
    raise(SIGUSR1);
    SHOW(count);
    MUST(sigpending(&pending));
    SHOW(sigismember(&pending, SIGUSR1) && sigismember(&pending, SIGUSR2));
    SHOW(sigismember(&pending, SIGTERM));
    CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL));
    SHOW(count);
    show_trace("delivered");
    CHECK(syscall(SYS_rt_sigprocmask, 77, &set, NULL, 8));
    CHECK(syscall(SYS_rt_sigprocmask, 77, NULL, &old, 8));
    CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 4));
    CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, NULL, 8));
    CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, 8, 8));
    sigfillset(&set);
    MUST(sigprocmask(SIG_SETMASK, &set, NULL));
    MUST(sigprocmask(SIG_SETMASK, NULL, &old));
    SHOW(sigismember(&old, SIGKILL) || sigismember(&old, SIGSTOP));
    sigemptyset(&set);
    MUST(sigprocmask(SIG_SETMASK, &set, NULL));
    CHECK(syscall(SYS_rt_sigpending, 8, 8));
    CHECK(syscall(SYS_rt_sigpending, &set, 100));
}

static void nested(int signo)
{
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    say("in %s: own blocked %d, SIGUSR2 blocked %d", signal_name(signo), sigismember(&mask, signo),
        sigismember(&mask, SIGUSR2));
    if (signo == SIGUSR1) {
        raise(SIGUSR2);
        say("back in SIGUSR1");
    }
}

static void flags(void)
{
    SECTION("flags");
    struct sigaction action = {.sa_handler = nested};
    sigset_t mask;
    MUST(sigaction(SIGUSR1, &action, NULL));
    MUST(sigaction(SIGUSR2, &action, NULL));
    raise(SIGUSR1);
    say("SIGUSR2 in sa_mask");
    sigaddset(&action.sa_mask, SIGUSR2);
    MUST(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    say("SA_NODEFER");
    action.sa_flags = SA_NODEFER;
    sigemptyset(&action.sa_mask);
    MUST(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    say("SA_RESETHAND");
    action.sa_flags = SA_RESETHAND;
    MUST(sigaction(SIGUSR2, &action, NULL));
    raise(SIGUSR2);
    MUST(sigaction(SIGUSR2, NULL, &action));
    SHOW(action.sa_handler == SIG_DFL);
    sigprocmask(SIG_BLOCK, NULL, &mask);
    SHOW(sigismember(&mask, SIGUSR1) || sigismember(&mask, SIGUSR2));
}

static void on_info(int signo, siginfo_t *info, void *context UNUSED)
{
    say("%s: signo %d code %d pid %d uid %d value %d", signal_name(signo), info->si_signo == signo,
        info->si_code, info->si_pid == getpid(), info->si_uid == getuid(),
        info->si_code == SI_QUEUE ? info->si_value.sival_int : 0);
}

static void information(void)
{
    SECTION("siginfo");
    struct sigaction action = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO};
    union sigval value = {.sival_int = 1234};
    for (int signo = SIGRTMIN; signo < SIGRTMIN + 3; signo++)
        MUST(sigaction(signo, &action, NULL));
    MUST(sigaction(SIGUSR1, &action, NULL));
    kill(getpid(), SIGUSR1);
    syscall(SYS_tkill, syscall(SYS_gettid), SIGUSR1);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
    sigqueue(getpid(), SIGUSR1, value);
    sigset_t set = set_of(SIGRTMIN, SIGRTMIN + 1), none;
    sigaddset(&set, SIGRTMIN + 2);
    sigemptyset(&none);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 3; i++) {
        value.sival_int = i;
        sigqueue(getpid(), SIGRTMIN + 2 - i, value);
        sigqueue(getpid(), SIGRTMIN, value);
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    siginfo_t forged = {.si_code = SI_KERNEL};
    CHECK(syscall(SYS_rt_sigqueueinfo, 1 << 29, SIGUSR1, &forged));
    CHECK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, 8));
    CHECK(syscall(SYS_tgkill, -1, 1, SIGUSR1));
    CHECK(syscall(SYS_tgkill, getpid(), 0, SIGUSR1));
    CHECK(syscall(SYS_tgkill, 1 << 29, syscall(SYS_gettid), SIGUSR1));
    CHECK(syscall(SYS_tkill, 1 << 29, SIGUSR1));
}

static void waiting(void)
{
    SECTION("waiting for signals");
    sigset_t set = set_of(SIGUSR1, SIGRTMIN), none;
    siginfo_t info;
    struct timespec zero = {0, 0}, moment = {0, 1000000}, invalid = {0, -1};
    union sigval value = {.sival_int = 99};
    int got;
    sigemptyset(&none);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    SHOW(sigwaitinfo(&set, &info) == SIGUSR1);
    SHOW(info.si_code);
    sigqueue(getpid(), SIGRTMIN, value);
    CHECK(sigtimedwait(&set, &info, &zero) == SIGRTMIN);
    SHOW(info.si_value.sival_int);
    CHECK(sigtimedwait(&set, &info, &zero));
    CHECK(sigtimedwait(&set, &info, &moment));
    CHECK(sigtimedwait(&set, &info, &invalid));
    CHECK(syscall(SYS_rt_sigtimedwait, 8, &info, &zero, 8));
    CHECK(syscall(SYS_rt_sigtimedwait, &set, &info, &zero, 4));
    raise(SIGUSR1);
    CODE(sigwait(&set, &got));
    SHOW(got == SIGUSR1);
    install(SIGUSR1, on_signal, 0);
    count = 0;
    raise(SIGUSR1);
    SHOW(count);
    CHECK(sigsuspend(&none));
    SHOW(count);
    SHOW(sigprocmask(SIG_BLOCK, NULL, &set) == 0 && sigismember(&set, SIGUSR1));
    CHECK(syscall(SYS_rt_sigsuspend, &none, 4));
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Let a child send SIGUSR1 once the caller has had time to block. */
static pid_t signal_soon(void)
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        struct timespec moment = {0, 50000000};
        nanosleep(&moment, NULL);
        kill(getppid(), SIGUSR1);
        _exit(0);
    }
    return pid;
}

static void collect(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
        ;
    SHOW(count);
    count = 0;
}

/* Each call blocks; the signal comes; a call that is restarted ends because of what the child does
 * once the handler has run. */
static void interrupted(int flags)
{
    int fds[2], word = 0, status = 0;
    char byte;
    struct timespec half_minute = {30, 0}, left = {0, 0};
    install(SIGUSR1, on_signal, flags);
    MUST(pipe(fds));
    handled = new_latch();
    count = 0;
    pid_t helper = (pid_t)MUST(fork());
    if (helper == 0) {
        wait_latch(&handled);
        MUST(write(fds[1], "w", 1));
        _exit(0);
    }
    pid_t pid = signal_soon();
    CHECK(read(fds[0], &byte, 1));
    collect(pid);
    waitpid(helper, NULL, 0);
    pid = signal_soon();
    CHECK(nanosleep(&half_minute, &left));
    SHOW(left.tv_sec == 29);
    wait_latch(&handled);
    collect(pid);
    pid = signal_soon();
    CHECK(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &half_minute));
    wait_latch(&handled);
    collect(pid);
    pid = signal_soon();
    CHECK(pause());
    wait_latch(&handled);
    collect(pid);
    helper = (pid_t)MUST(fork());
    if (helper == 0) {
        wait_latch(&handled);
        _exit(6);
    }
    pid = signal_soon();
    SHOW(waitpid(helper, &status, 0) == helper ? WEXITSTATUS(status) : -errno);
    collect(pid);
    waitpid(helper, NULL, 0);
    handled.fds[1] = -1;
}

static void groups(void)
{
    MUST(setpgid(0, 0));
    install(SIGUSR1, on_signal, 0);
    struct latch ready = new_latch();
    for (int i = 0; i < 3; i++)
        if (fork() == 0) {
            signal(SIGUSR1, SIG_DFL);
            open_latch(&ready);
            for (;;)
                pause();
        }
    for (int i = 0; i < 3; i++)
        wait_latch(&ready);
    count = 0;
    CHECK(kill(0, SIGUSR1));
    SHOW(count);
    for (int i = 0; i < 3; i++) {
        int status;
        while (wait(&status) == -1 && errno == EINTR)
            ;
        show_status("member", status);
    }
    CHECK(kill(-getpid(), SIGUSR1));
    SHOW(count);
}

static void *receive(void *argument)
{
    sigset_t set = set_of(SIGUSR1, SIGUSR1);
    int signo;
    sigwait(&set, &signo);
    *(int *)argument = signo;
    return NULL;
}

static void directed(void)
{
    SECTION("directed at a thread");
    pthread_t thread;
    int got = 0;
    sigset_t set = set_of(SIGUSR1, SIGUSR1), pending;
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_create(&thread, NULL, receive, &got);
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, NULL);
    SHOW(got == SIGUSR1);
    sigpending(&pending);
    SHOW(sigismember(&pending, SIGUSR1));
    got = 0;
    pthread_create(&thread, NULL, receive, &got);
    kill(getpid(), SIGUSR1);
    pthread_join(thread, NULL);
    SHOW(got == SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void after_fork(void)
{
    SECTION("fork");
    sigset_t set = set_of(SIGUSR1, SIGUSR2), pending;
    install(SIGUSR1, on_signal, 0);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        sigpending(&pending);
        SHOW(sigismember(&pending, SIGUSR1));
        sigprocmask(SIG_BLOCK, NULL, &set);
        SHOW(sigismember(&set, SIGUSR2));
        _exit(0);
    }
    reap("child", pid);
    signal(SIGUSR1, SIG_IGN);
    sigpending(&pending);
    SHOW(sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int main(void)
{
    dispositions();
    masks();
    flags();
    information();
    waiting();
    SECTION("interrupted without SA_RESTART");
    interrupted(0);
    SECTION("interrupted with SA_RESTART");
    interrupted(SA_RESTART);
    SECTION("process groups");
    in_child("groups", groups);
    directed();
    after_fork();
    return 0;
}
