/* fork(2), vfork(2), wait4(2), waitid(2): statuses, options, stop and continue, orphans, errors. */
#include "guest.h"
#include <sys/prctl.h>
#include <sys/resource.h>

static pid_t child_exiting(int status)
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0)
        _exit(status);
    return pid;
}

static pid_t child_pausing(void)
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0)
        for (;;)
            pause();
    return pid;
}

static void show_info(const char *label, const siginfo_t *info, pid_t pid)
{
    static const char *const codes[] = {"?", "CLD_EXITED", "CLD_KILLED", "CLD_DUMPED",
                                        "CLD_TRAPPED", "CLD_STOPPED", "CLD_CONTINUED"};
    say("%s: signo %d code %s status %d pid %d uid %d", label, info->si_signo,
        info->si_code >= 0 && info->si_code <= 6 ? codes[info->si_code] : "?", info->si_status,
        info->si_pid == pid, info->si_uid == getuid());
}

static void statuses(void)
{
    SECTION("statuses");
    int status;
    reap("exit 0", child_exiting(0));
    reap("exit 255", child_exiting(255));
    reap("exit 256 + 7", child_exiting(256 + 7));
    reap("exit -1", child_exiting(-1));
    static const int signals[] = {SIGTERM, SIGKILL, SIGINT, SIGHUP, SIGUSR1, SIGALRM, SIGPIPE};
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        pid_t pid = child_pausing();
        MUST(kill(pid, signals[i]));
        reap("killed", pid);
    }
    pid_t pid = child_exiting(3);
    struct rusage usage;
    SHOW(wait4(pid, &status, 0, &usage) == pid);
    SHOW(WEXITSTATUS(status));
    SHOW(usage.ru_utime.tv_sec);
    pid = child_exiting(4);
    SHOW(wait4(pid, NULL, 0, NULL) == pid);
}

static void options(void)
{
    SECTION("which child");
    int status = 77;
    CHECK(wait(&status));
    CHECK(waitpid(-1, &status, WNOHANG));
    CHECK(waitpid(getpid(), &status, 0));
    CHECK(waitpid(1 << 30, &status, 0));
    CHECK(waitpid(INT_MIN, &status, 0));
    CHECK(waitpid(-1, &status, 0x100));
    pid_t pid = child_pausing();
    CHECK(waitpid(pid, &status, WNOHANG));
    SHOW(status);
    CHECK(waitpid(-1, &status, WNOHANG));
    CHECK(waitpid(0, &status, WNOHANG));
    CHECK(waitpid(-getpgrp(), &status, WNOHANG));
    CHECK(waitpid(-(pid + 12345), &status, WNOHANG));
    MUST(kill(pid, SIGKILL));
    CHECK(syscall(SYS_wait4, pid, 8, 0, NULL));
    CHECK(waitpid(pid, &status, 0));
    pid = child_exiting(1);
    pid_t second = child_exiting(2);
    SHOW(waitpid(second, &status, 0) == second);
    SHOW(WEXITSTATUS(status));
    SHOW(waitpid(-1, &status, 0) == pid);
    SHOW(WEXITSTATUS(status));
}

static void ids(void)
{
    SECTION("waitid");
    siginfo_t info;
    memset(&info, 0xff, sizeof info);
    CHECK(waitid(P_ALL, 0, &info, WEXITED));
    CHECK(waitid(P_ALL, 0, &info, 0));
    CHECK(waitid(77, 0, &info, WEXITED));
    CHECK(waitid(P_PID, 0, &info, WEXITED));
    pid_t pid = child_pausing();
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG));
    SHOW(info.si_pid);
    SHOW(info.si_signo);
    MUST(kill(pid, SIGKILL));
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    show_info("left", &info, pid);
    CHECK(waitid(P_PGID, (id_t)getpgrp(), &info, WEXITED));
    show_info("taken", &info, pid);
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED));
    pid = child_exiting(5);
    CHECK(waitid(P_ALL, 0, &info, WEXITED));
    show_info("exited", &info, pid);
    pid = child_exiting(6);
    CHECK(waitid(P_PGID, 0, &info, WEXITED));
    show_info("group 0", &info, pid);
    pid = child_exiting(7);
    int pidfd = (int)MUST(syscall(SYS_pidfd_open, pid, 0));
    CHECK(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
    show_info("pidfd", &info, pid);
    CHECK(waitid(P_PIDFD, (id_t)999, &info, WEXITED));
}

static void stopping(void)
{
    SECTION("stop and continue");
    int status;
    siginfo_t info;
    pid_t pid = child_pausing();
    MUST(kill(pid, SIGSTOP));
    SHOW(waitpid(pid, &status, WUNTRACED) == pid);
    show_status("stop", status);
    CHECK(waitpid(pid, &status, WUNTRACED | WNOHANG));
    MUST(kill(pid, SIGCONT));
    SHOW(waitpid(pid, &status, WCONTINUED) == pid);
    show_status("continue", status);
    CHECK(waitpid(pid, &status, WCONTINUED | WNOHANG));
    MUST(kill(pid, SIGSTOP));
    CHECK(waitid(P_PID, (id_t)pid, &info, WSTOPPED));
    show_info("stopped", &info, pid);
    MUST(kill(pid, SIGCONT));
    CHECK(waitid(P_PID, (id_t)pid, &info, WCONTINUED));
    show_info("continued", &info, pid);
    MUST(kill(pid, SIGSTOP));
    CHECK(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT));
    CHECK(waitid(P_PID, (id_t)pid, &info, WSTOPPED));
    MUST(kill(pid, SIGTERM));
    CHECK(waitpid(pid, &status, WNOHANG));
    MUST(kill(pid, SIGCONT));
    reap("terminated once continued", pid);
    pid = child_pausing();
    MUST(kill(pid, SIGSTOP));
    MUST(waitpid(pid, &status, WUNTRACED));
    MUST(kill(pid, SIGKILL));
    reap("killed while stopped", pid);
}

static void ignoring(void)
{
    signal(SIGCHLD, SIG_IGN);
    child_exiting(1);
    CHECK(wait(NULL));
    struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &action, NULL);
    pid_t pid = child_exiting(1);
    CHECK(waitpid(pid, NULL, 0));
}

static void orphan(void)
{
    int fds[2];
    MUST(pipe(fds));
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        pid_t parent = getpid();
        if (fork() == 0) {
            char byte;
            close(fds[1]);
            MUST(read(fds[0], &byte, 1) + 1);
            _exit(getppid() != parent ? 9 : 8);
        }
        _exit(0);
    }
    reap("child", pid);
    close(fds[0]);
    close(fds[1]);
    int status;
    SHOW(wait(&status) > 0);
    show_status("grandchild", status);
    CHECK(wait(NULL));
}

static void vforking(void)
{
    SECTION("vfork");
    volatile int shared = 1;
    pid_t pid = vfork();
    if (pid == 0) {
        shared = 2;
        _exit(11);
    }
    SHOW(shared);
    reap("child", pid);
    pid = vfork();
    if (pid == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    reap("exec", pid);
}

int main(void)
{
    statuses();
    options();
    ids();
    stopping();
    SECTION("ignored SIGCHLD");
    in_child("ignoring", ignoring);
    SECTION("subreaper");
    in_child("subreaper", orphan);
    vforking();
    return 0;
}
