/* Smaller calls: process_vm_readv(2) and writev, pidfd_getfd(2), ids, what a program inherits. */
#include "guest.h"
#include <sys/uio.h>

static void vm_access(void)
{
    SECTION("process_vm_readv and process_vm_writev");
    static char data[] = "contents", buf[16];
    struct iovec local = {buf, 8}, remote = {data, 8}, bad = {(void *)8, 8};
    CHECK(process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
    show_bytes("own", buf, 8);
    struct latch ready = new_latch(), done = new_latch();
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        strcpy(data, "in child");
        open_latch(&ready);
        wait_latch(&done);
        say("child has %s", data);
        _exit(0);
    }
    wait_latch(&ready);
    CHECK(process_vm_readv(pid, &local, 1, &remote, 1, 0));
    show_bytes("child's", buf, 8);
    memcpy(buf, "replaced", 8);
    CHECK(process_vm_writev(pid, &local, 1, &remote, 1, 0));
    CHECK(process_vm_readv(pid, &local, 1, &bad, 1, 0));
    CHECK(process_vm_readv(pid, &local, 1, &remote, 1, 1));
    CHECK(process_vm_readv(1 << 29, &local, 1, &remote, 1, 0));
    open_latch(&done);
    reap("child", pid);
}

static void descriptors(void)
{
    SECTION("pidfd_getfd");
    char buf[16];
    int fds[2];
    struct latch done = new_latch();
    MUST(pipe(fds));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        wait_latch(&done);
        _exit(0);
    }
    int pidfd = (int)MUST(syscall(SYS_pidfd_open, pid, 0));
    int copy = (int)CHECK(syscall(SYS_pidfd_getfd, pidfd, fds[0], 0));
    MUST(write(fds[1], "through", 7));
    CHECK(read(copy, buf, sizeof buf));
    CHECK(fcntl(copy, F_GETFD));
    CHECK(syscall(SYS_pidfd_getfd, pidfd, 999, 0));
    CHECK(syscall(SYS_pidfd_getfd, pidfd, 0, 1));
    CHECK(syscall(SYS_pidfd_getfd, 0, 0, 0));
    open_latch(&done);
    reap("child", pid);
    CHECK(syscall(SYS_pidfd_getfd, pidfd, fds[0], 0));
}

static void thread_areas(void)
{
    SECTION("ids of threads and processes");
    SHOW(getpid() == syscall(SYS_gettid));
    SHOW(getppid() == syscall(SYS_getppid));
    SHOW(syscall(SYS_set_tid_address, NULL) == getpid());
    CHECK(syscall(SYS_restart_syscall));
    SHOW(getpid() == syscall(SYS_getpid));
}

static void handles(void)
{
    SECTION("close-on-exec and inheritance");
    int fd = (int)MUST(open("/dev/null", O_RDONLY | O_CLOEXEC)), kept = (int)MUST(dup(fd));
    char command[128];
    snprintf(command, sizeof command,
             "test -e /proc/self/fd/%d && echo kept; test -e /proc/self/fd/%d || echo closed", kept, fd);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    reap("sh", pid);
}

int main(void)
{
    vm_access();
    descriptors();
    thread_areas();
    handles();
    return 0;
}
