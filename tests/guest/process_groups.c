/* setpgid(2), getpgid, setsid(2), getsid: groups, sessions, orphaned groups, who may be moved. */
#include "guest.h"

static pid_t child_waiting(void)
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0)
        for (;;)
            pause();
    return pid;
}

static void finish(pid_t pid)
{
    MUST(kill(pid, SIGKILL));
    MUST(waitpid(pid, NULL, 0));
}

static void groups(void)
{
    SECTION("groups");
    SHOW(getpgrp() == getpgid(0));
    SHOW(getpgid(getpid()) == getpgrp());
    pid_t one = child_waiting(), two = child_waiting();
    SHOW(getpgid(one) == getpgrp());
    CHECK(setpgid(one, 0));
    SHOW(getpgid(one) == one);
    CHECK(setpgid(two, one));
    SHOW(getpgid(two) == one);
    CHECK(setpgid(two, 1 << 29));
    CHECK(setpgid(two, -1));
    CHECK(setpgid(1 << 29, 0));
    CHECK(getpgid(1 << 29));
    CHECK(getpgid(-1));
    CHECK(kill(-one, SIGTERM));
    reap("one", one);
    reap("two", two);
    CHECK(kill(-one, 0));
}

static void sessions(void)
{
    pid_t pid = child_waiting();
    pid_t old = getsid(0);
    CHECK(setsid() == getpid());
    SHOW(getsid(0) == getpid());
    SHOW(getpgrp() == getpid());
    CHECK(setsid());
    SHOW(getsid(pid) == old);
    CHECK(setpgid(pid, getpgrp()));
    CHECK(setpgid(0, 0));
    CHECK(getsid(1 << 29));
    CHECK(open("/dev/tty", O_RDWR));
    finish(pid);
}

static void executed(void)
{
    int fds[2];
    char byte;
    MUST(pipe2(fds, O_CLOEXEC));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        execl("/bin/sleep", "sleep", "60", (char *)NULL);
        _exit(1);
    }
    close(fds[1]);
    CHECK(read(fds[0], &byte, 1));
    CHECK(setpgid(pid, 0));
    finish(pid);
}

static void job_control(void)
{
    /* In a session of its own, a group whose leader has a parent in another group is not orphaned. */
    int status;
    MUST(setsid());
    static const int signals[] = {SIGTSTP, SIGTTIN, SIGTTOU, SIGSTOP};
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        pid_t pid = child_waiting();
        MUST(setpgid(pid, pid));
        MUST(kill(pid, signals[i]));
        SHOW(waitpid(pid, &status, WUNTRACED) == pid);
        show_status("stop", status);
        MUST(kill(-pid, SIGCONT));
        SHOW(waitpid(pid, &status, WCONTINUED) == pid);
        finish(pid);
    }
    pid_t pid = child_waiting();
    CHECK(kill(pid, SIGTSTP));
    CHECK(kill(pid, SIGTERM));
    reap("in an orphaned group", pid);
}

static volatile sig_atomic_t hup, cont;

static void on_signal(int signo)
{
    *(signo == SIGHUP ? &hup : &cont) = 1;
}

static void orphaned(void)
{
    int fds[2];
    char answer[2];
    struct latch stopped = new_latch();
    MUST(pipe(fds));
    MUST(setsid());
    pid_t leader = (pid_t)MUST(fork());
    if (leader == 0) {
        MUST(setpgid(0, 0));
        pid_t pid = (pid_t)MUST(fork());
        if (pid == 0) {
            signal(SIGHUP, on_signal);
            signal(SIGCONT, on_signal);
            raise(SIGSTOP);
            while (!hup || !cont)
                ;
            MUST(write(fds[1], hup && cont ? "HC" : "??", 2));
            _exit(0);
        }
        MUST(waitpid(pid, NULL, WUNTRACED));
        open_latch(&stopped);
        _exit(0);
    }
    wait_latch(&stopped);
    reap("leader", leader);
    MUST(read(fds[0], answer, 2));
    show_bytes("a stopped group that becomes orphaned gets", answer, 2);
}

int main(void)
{
    groups();
    SECTION("sessions");
    in_child("sessions", sessions);
    SECTION("after execve");
    in_child("executed", executed);
    SECTION("job control");
    in_child("job control", job_control);
    in_child("orphaned", orphaned);
    return 0;
}
