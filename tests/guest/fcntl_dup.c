/* fcntl(2), dup(2), dup2, dup3, close_range(2): numbers, flags, limits, errors. */
#include "guest.h"
#include <linux/close_range.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

static void dups(void)
{
    SECTION("dup");
    int fd = (int)MUST(open("file", O_RDWR));
    CHECK(dup(fd));
    CHECK(dup2(fd, 20));
    CHECK(dup2(fd, fd));
    CHECK(dup2(fd, 4));
    CHECK(dup3(fd, 21, O_CLOEXEC));
    CHECK(fcntl(21, F_GETFD));
    CHECK(fcntl(20, F_GETFD));
    CHECK(dup3(fd, fd, 0));
    CHECK(dup3(fd, 22, O_APPEND));
    CHECK(dup(999));
    CHECK(dup2(999, 999));
    CHECK(dup2(999, 5));
    CHECK(dup2(fd, -1));
    CHECK(dup2(fd, 1 << 30));
    CHECK(fcntl(fd, F_DUPFD, 30));
    CHECK(fcntl(fd, F_DUPFD, 30));
    CHECK(fcntl(fd, F_DUPFD_CLOEXEC, 30));
    CHECK(fcntl(32, F_GETFD));
    CHECK(fcntl(fd, F_DUPFD, -1));
    CHECK(fcntl(fd, F_DUPFD, 1 << 30));
    CHECK(close(20));
    CHECK(close(20));
    CHECK(dup(fd));
}

static void flags(void)
{
    SECTION("flags");
    int fd = (int)MUST(open("file", O_RDWR | O_APPEND));
    int copy = (int)MUST(dup(fd));
    int on = 1;
    CHECK(fcntl(fd, F_SETFD, FD_CLOEXEC));
    CHECK(fcntl(fd, F_GETFD));
    CHECK(fcntl(copy, F_GETFD));
    CHECK(fcntl(fd, F_SETFD, -2));
    CHECK(fcntl(fd, F_GETFD));
    CHECK(ioctl(fd, FIOCLEX));
    CHECK(fcntl(fd, F_GETFD));
    CHECK(ioctl(fd, FIONCLEX));
    CHECK(fcntl(fd, F_GETFD));
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK));
    say("%#o", (unsigned)fcntl(copy, F_GETFL));
    CHECK(fcntl(fd, F_SETFL, O_APPEND | O_RDONLY | O_CREAT | O_EXCL));
    say("%#o", (unsigned)fcntl(copy, F_GETFL));
    CHECK(ioctl(fd, FIONBIO, &on));
    say("%#o", (unsigned)fcntl(copy, F_GETFL));
    on = 0;
    CHECK(ioctl(fd, FIONBIO, &on));
    say("%#o", (unsigned)fcntl(copy, F_GETFL));
    CHECK(fcntl(999, F_GETFL));
    CHECK(fcntl(fd, 12345, 0));
    CHECK(fcntl(999, 12345, 0));
    int path = (int)MUST(open("file", O_PATH));
    CHECK(fcntl(path, F_SETFL, O_NONBLOCK));
    CHECK(fcntl(path, F_GETFD));
    CHECK(fcntl(path, F_SETFD, FD_CLOEXEC));
    SHOW(fcntl(path, F_DUPFD, 0) >= 0);
}

static void owner(void)
{
    SECTION("owner");
    int fds[2];
    MUST(pipe(fds));
    CHECK(fcntl(fds[0], F_GETOWN));
    CHECK(fcntl(fds[0], F_SETOWN, getpid()));
    SHOW(fcntl(fds[0], F_GETOWN) == getpid());
    CHECK(fcntl(fds[0], F_GETSIG));
    CHECK(fcntl(fds[0], F_SETSIG, SIGUSR1));
    CHECK(fcntl(fds[0], F_GETSIG));
    CHECK(fcntl(fds[0], F_SETSIG, 200));
    CHECK(fcntl(fds[0], F_SETOWN, 0x7ffffff));
}

static void pipe_size(void)
{
    SECTION("pipe size");
    int fds[2];
    MUST(pipe(fds));
    CHECK(fcntl(fds[0], F_GETPIPE_SZ));
    CHECK(fcntl(fds[1], F_SETPIPE_SZ, 5000));
    CHECK(fcntl(fds[0], F_GETPIPE_SZ));
    CHECK(fcntl(fds[1], F_SETPIPE_SZ, 1));
    CHECK(fcntl(fds[1], F_SETPIPE_SZ, 0));
    CHECK(fcntl(MUST(open("file", O_RDONLY)), F_GETPIPE_SZ));
}

static void range(void)
{
    SECTION("close_range");
    for (int fd = 100; fd < 110; fd++)
        MUST(dup2(0, fd));
    CHECK(syscall(SYS_close_range, 102, 104, 0));
    CHECK(fcntl(101, F_GETFD));
    CHECK(fcntl(102, F_GETFD));
    CHECK(fcntl(104, F_GETFD));
    CHECK(fcntl(105, F_GETFD));
    CHECK(syscall(SYS_close_range, 105, 106, CLOSE_RANGE_CLOEXEC));
    CHECK(fcntl(106, F_GETFD));
    CHECK(fcntl(107, F_GETFD));
    CHECK(syscall(SYS_close_range, 107, ~0U, 0));
    CHECK(fcntl(109, F_GETFD));
    CHECK(syscall(SYS_close_range, 10, 9, 0));
    CHECK(syscall(SYS_close_range, 500, 600, 0));
    CHECK(syscall(SYS_close_range, 500, 600, 1 << 10));
}

static void limited(void)
{
    struct rlimit limit = {50, 50};
    int fds[2];
    MUST(syscall(SYS_close_range, 3, ~0U, 0));
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    int last = -1, fd;
    while ((fd = dup(0)) >= 0)
        last = fd;
    SHOW(last);
    say("%s", guest_errno_name(errno));
    CHECK(open("file", O_RDONLY));
    CHECK(pipe(fds));
    CHECK(fcntl(0, F_DUPFD, 50));
    CHECK(fcntl(0, F_DUPFD, 49));
    CHECK(dup2(0, 50));
    CHECK(dup2(0, 49));
    close(10);
    CHECK(pipe(fds));
    CHECK(dup(0));
}

int main(void)
{
    put_file("file", "0123456789");
    dups();
    flags();
    owner();
    pipe_size();
    range();
    SECTION("RLIMIT_NOFILE");
    in_child("limited", limited);
    return 0;
}
