/* clone(2), clone3(2), unshare(2): what is shared, the ids that are stored, exit signals, errors. */
#include "guest.h"
#include <linux/futex.h>
#include <linux/sched.h>

#define STACK_SIZE (64 * 1024)

static int value;
static int child_tid = -1, parent_tid = -1;

static int set_value(void *argument)
{
    value = (int)(intptr_t)argument;
    return 5;
}

static int close_descriptor(void *argument)
{
    return close((int)(intptr_t)argument);
}

static int change_directory(void *argument UNUSED)
{
    umask(077);
    return chdir("dir");
}

static void on_signal(int signo UNUSED)
{
}

static int change_action(void *argument UNUSED)
{
    return signal(SIGUSR1, on_signal) == SIG_ERR;
}

static int show_tids(void *argument UNUSED)
{
    say("child sees: own %d parent's %d", child_tid == (int)syscall(SYS_gettid),
        parent_tid == (int)syscall(SYS_gettid));
    return 0;
}

static int exit_only(void *argument UNUSED)
{
    return 0;
}

static pid_t start(int (*function)(void *), int flags, void *argument)
{
    char *stack = malloc(STACK_SIZE);
    return (pid_t)MUST(clone(function, stack + STACK_SIZE, flags, argument, &parent_tid, NULL,
                             &child_tid));
}

static void run(const char *label, int (*function)(void *), int flags, void *argument)
{
    reap(label, start(function, flags, argument));
}

static void sharing(void)
{
    SECTION("sharing");
    struct sigaction action;
    run("own memory", set_value, SIGCHLD, (void *)1);
    SHOW(value);
    run("CLONE_VM", set_value, CLONE_VM | SIGCHLD, (void *)2);
    SHOW(value);
    run("CLONE_VM|CLONE_VFORK", set_value, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)3);
    SHOW(value);
    int fd = (int)MUST(dup(0));
    run("own files", close_descriptor, SIGCHLD, (void *)(intptr_t)fd);
    CHECK(fcntl(fd, F_GETFD));
    run("CLONE_FILES", close_descriptor, CLONE_FILES | SIGCHLD, (void *)(intptr_t)fd);
    CHECK(fcntl(fd, F_GETFD));
    MUST(mkdir("dir", 0755));
    run("own fs", change_directory, SIGCHLD, NULL);
    CHECK(access("dir", F_OK));
    run("CLONE_FS", change_directory, CLONE_FS | SIGCHLD, NULL);
    CHECK(access("dir", F_OK));
    SHOW(umask(022));
    MUST(chdir(".."));
    run("own handlers", change_action, SIGCHLD, NULL);
    MUST(sigaction(SIGUSR1, NULL, &action));
    SHOW(action.sa_handler == SIG_DFL);
    run("CLONE_SIGHAND", change_action, CLONE_SIGHAND | CLONE_VM | SIGCHLD, NULL);
    MUST(sigaction(SIGUSR1, NULL, &action));
    SHOW(action.sa_handler == on_signal);
}

static void ids(void)
{
    SECTION("ids");
    int flags = CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
    pid_t pid = start(show_tids, flags, NULL);
    reap("child", pid);
    SHOW(parent_tid == pid);
    SHOW(child_tid);
    child_tid = -1;
    pid = start(exit_only, flags | CLONE_VM, NULL);
    reap("CLONE_VM child", pid);
    SHOW(child_tid);
    child_tid = -1;
}

static void thread_ids(void)
{
    SECTION("a bare thread");
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID;
    child_tid = 1;
    pid_t tid = start(set_value, flags, (void *)77);
    SHOW(parent_tid == tid);
    int seen;
    while ((seen = __atomic_load_n(&child_tid, __ATOMIC_SEQ_CST)) != 0)
        syscall(SYS_futex, &child_tid, FUTEX_WAIT, seen, NULL);
    SHOW(value);
    CHECK(waitpid(tid, NULL, 0));
    CHECK(waitpid(-1, NULL, __WALL));
}

static void exit_signals(void)
{
    SECTION("exit signals");
    int status;
    signal(SIGUSR1, SIG_IGN);
    pid_t pid = start(exit_only, SIGUSR1, NULL);
    siginfo_t info;
    CHECK(waitpid(pid, &status, 0));
    SHOW(waitpid(pid, &status, __WCLONE) == pid);
    pid = start(exit_only, 0, NULL);
    SHOW(waitpid(pid, &status, __WALL) == pid);
    pid = start(exit_only, SIGCHLD, NULL);
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | __WCLONE));
    SHOW(waitpid(pid, &status, 0) == pid);
}

static void extended(void)
{
    SECTION("clone3");
    struct clone_args args = {.exit_signal = SIGCHLD};
    int pidfd = -1;
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(21);
    SHOW(pid > 0);
    reap("clone3", pid);
    args.flags = CLONE_PIDFD | CLONE_PARENT_SETTID;
    args.pidfd = (uintptr_t)&pidfd;
    args.parent_tid = (uintptr_t)&parent_tid;
    pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(22);
    SHOW(parent_tid == pid);
    CHECK(fcntl(pidfd, F_GETFD));
    siginfo_t info;
    CHECK(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
    SHOW(info.si_status);
    memset(&args, 0, sizeof args);
    CHECK(syscall(SYS_clone3, &args, 8));
    CHECK(syscall(SYS_clone3, &args, 1 << 20));
    CHECK(syscall(SYS_clone3, 8, sizeof args));
    args.exit_signal = 200;
    CHECK(syscall(SYS_clone3, &args, sizeof args));
    args.exit_signal = SIGCHLD;
    args.flags = 1ULL << 40;
    CHECK(syscall(SYS_clone3, &args, sizeof args));
    args.flags = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;
    CHECK(syscall(SYS_clone3, &args, sizeof args));
    args.flags = 0;
    args.stack = 0x1000;
    CHECK(syscall(SYS_clone3, &args, sizeof args));
    args.stack = 0;
    args.stack_size = 0x1000;
    CHECK(syscall(SYS_clone3, &args, sizeof args));
}

static void errors(void)
{
    SECTION("errors");
    CHECK(syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0));
    CHECK(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0));
    CHECK(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0));
    CHECK(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0));
    CHECK(unshare(CLONE_FILES));
    CHECK(unshare(CLONE_FS));
    CHECK(unshare(0));
    CHECK(unshare(1));
    CHECK(unshare(CLONE_THREAD));
}

int main(void)
{
    sharing();
    ids();
    thread_ids();
    exit_signals();
    extended();
    errors();
    return 0;
}
