/* Every call that takes pointers, with pointers that lead nowhere: EFAULT, never anything worse.
 *
 * A row of the table is a call and its arguments, in which BAD stands for each of the bad addresses
 * in turn; READABLE and WRITABLE are good memory. A row is about one pointer: its other arguments are
 * good, so that only the bad one decides.
 */
#include "guest.h"
#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

enum { BAD = 0x7ad00001, READABLE, WRITABLE, PATH, PROGRAM, NAME, FILE_FD, PIPE_IN, PIPE_OUT, SOCKET, EPOLL, TIMER,
       DIRECTORY, INOTIFY };

struct row {
    const char *name;
    int number;
    int write; /* the kernel writes there, so read-only memory is as bad */
    long arguments[6];
};

#define READS(call, ...) {#call, SYS_##call, 0, {__VA_ARGS__}}
#define WRITES(call, ...) {#call, SYS_##call, 1, {__VA_ARGS__}}

static const struct row rows[] = {
    WRITES(read, FILE_FD, BAD, 16),
    READS(write, FILE_FD, BAD, 16),
    WRITES(pread64, FILE_FD, BAD, 16, 0),
    READS(pwrite64, FILE_FD, BAD, 16, 0),
    READS(readv, FILE_FD, BAD, 1),
    READS(writev, FILE_FD, BAD, 1),
    READS(preadv, FILE_FD, BAD, 1, 0),
    READS(pwritev, FILE_FD, BAD, 1, 0),
    READS(write, PIPE_OUT, BAD, 16),
    READS(open, BAD, 0, 0),
    READS(openat, AT_FDCWD, BAD, 0, 0),
    READS(openat2, AT_FDCWD, BAD, READABLE, 24),
    READS(creat, BAD, 0600),
    READS(stat, BAD, WRITABLE),
    WRITES(stat, PATH, BAD),
    READS(lstat, BAD, WRITABLE),
    WRITES(lstat, PATH, BAD),
    WRITES(fstat, FILE_FD, BAD),
    WRITES(newfstatat, AT_FDCWD, PATH, BAD, 0),
    READS(newfstatat, AT_FDCWD, BAD, WRITABLE, 0),
    WRITES(statx, AT_FDCWD, PATH, 0, STATX_ALL, BAD),
    READS(access, BAD, 0),
    READS(faccessat, AT_FDCWD, BAD, 0),
    READS(mkdir, BAD, 0700),
    READS(rmdir, BAD),
    READS(unlink, BAD),
    READS(unlinkat, AT_FDCWD, BAD, 0),
    READS(rename, BAD, PATH),
    READS(rename, PATH, BAD),
    READS(link, BAD, PATH),
    READS(link, PATH, BAD),
    READS(symlink, BAD, PATH),
    READS(symlink, PATH, BAD),
    READS(readlink, BAD, WRITABLE, 10),
    READS(chmod, BAD, 0600),
    READS(chown, BAD, -1, -1),
    READS(lchown, BAD, -1, -1),
    READS(truncate, BAD, 0),
    READS(chdir, BAD),
    WRITES(getcwd, BAD, 4096),
    READS(mknod, BAD, S_IFREG | 0600, 0),
    READS(utimensat, AT_FDCWD, BAD, READABLE, 0),
    READS(utimensat, AT_FDCWD, PATH, BAD, 0),
    READS(utime, PATH, BAD),
    READS(utimes, PATH, BAD),
    READS(statfs, BAD, WRITABLE),
    WRITES(statfs, PATH, BAD),
    WRITES(fstatfs, FILE_FD, BAD),
    READS(setxattr, BAD, NAME, READABLE, 1, 0),
    READS(getxattr, BAD, NAME, WRITABLE, 1),
    READS(execve, BAD, 0, 0),
    READS(execve, PROGRAM, BAD, 0),
    READS(execve, PROGRAM, 0, BAD),
    WRITES(pipe, BAD),
    WRITES(pipe2, BAD, 0),
    WRITES(poll, BAD, 1, 0),
    READS(ppoll, WRITABLE, 1, BAD, 0, 8),
    READS(select, 1, BAD, 0, 0, READABLE),
    READS(select, 0, 0, 0, 0, BAD),
    WRITES(epoll_wait, EPOLL, BAD, 1, 0),
    READS(epoll_ctl, EPOLL, EPOLL_CTL_MOD, PIPE_OUT, BAD),
    READS(nanosleep, BAD, 0),
    READS(clock_nanosleep, CLOCK_MONOTONIC, 0, BAD, 0),
    WRITES(clock_gettime, CLOCK_MONOTONIC, BAD),
    WRITES(clock_getres, CLOCK_MONOTONIC, BAD),
    WRITES(gettimeofday, BAD, 0),
    WRITES(time, BAD),
    WRITES(times, BAD),
    READS(setitimer, ITIMER_REAL, BAD, 0),
    WRITES(getitimer, ITIMER_REAL, BAD),
    WRITES(timerfd_gettime, TIMER, BAD),
    READS(timerfd_settime, TIMER, 0, BAD, 0),
    READS(timer_create, CLOCK_MONOTONIC, BAD, WRITABLE),
    READS(rt_sigaction, SIGUSR1, BAD, 0, 8),
    WRITES(rt_sigaction, SIGUSR1, 0, BAD, 8),
    READS(rt_sigprocmask, SIG_BLOCK, BAD, 0, 8),
    WRITES(rt_sigprocmask, SIG_BLOCK, 0, BAD, 8),
    WRITES(rt_sigpending, BAD, 8),
    READS(rt_sigtimedwait, BAD, 0, READABLE, 8),
    READS(rt_sigsuspend, BAD, 8),
    READS(rt_sigqueueinfo, 1, SIGUSR1, BAD),
    READS(sigaltstack, BAD, 0),
    WRITES(sigaltstack, 0, BAD),
    READS(signalfd4, -1, BAD, 8, 0),
    READS(futex, BAD, FUTEX_WAIT, 0, 0),
    READS(futex, BAD, FUTEX_WAIT_PRIVATE, 0, 0),
    READS(futex, READABLE, FUTEX_WAIT_PRIVATE, 0, BAD),
    WRITES(uname, BAD),
    WRITES(sysinfo, BAD),
    WRITES(getrlimit, 7, BAD),
    READS(setrlimit, 7, BAD),
    WRITES(prlimit64, 0, 7, 0, BAD),
    READS(prlimit64, 0, 7, BAD, 0),
    WRITES(getrusage, 0, BAD),
    WRITES(getresuid, BAD, WRITABLE, WRITABLE),
    WRITES(getresuid, WRITABLE, BAD, WRITABLE),
    WRITES(getresgid, WRITABLE, WRITABLE, BAD),
    WRITES(getrandom, BAD, 16, 0),
    WRITES(sched_getaffinity, 0, 128, BAD),
    READS(sched_setaffinity, 0, 128, BAD),
    WRITES(sched_getparam, 0, BAD),
    READS(sched_setparam, 0, BAD),
    WRITES(sched_rr_get_interval, 0, BAD),
    WRITES(getcpu, BAD, 0, 0),
    WRITES(socketpair, AF_UNIX, SOCK_STREAM, 0, BAD),
    READS(bind, SOCKET, BAD, 16),
    READS(connect, SOCKET, BAD, 16),
    READS(sendto, SOCKET, BAD, 16, 0, 0, 0),
    READS(sendmsg, SOCKET, BAD, 0),
    READS(recvmsg, SOCKET, BAD, MSG_DONTWAIT),
    WRITES(getsockname, SOCKET, WRITABLE, BAD),
    READS(setsockopt, SOCKET, SOL_SOCKET, SO_PASSCRED, BAD, 4),
    WRITES(getsockopt, SOCKET, SOL_SOCKET, SO_TYPE, WRITABLE, BAD),
    WRITES(getdents64, DIRECTORY, BAD, 4096),
    READS(memfd_create, BAD, 0),
    READS(inotify_add_watch, INOTIFY, BAD, IN_OPEN),
    WRITES(capget, BAD, WRITABLE),
    READS(prctl, 15, BAD, 0, 0, 0),
    WRITES(prctl, 16, BAD, 0, 0, 0),
    WRITES(arch_prctl, 0x1003, BAD),
    WRITES(ioctl, PIPE_IN, 0x541b, BAD),
    READS(fcntl, FILE_FD, F_SETLK, BAD),
    READS(clone3, BAD, 88),
    READS(sendfile, FILE_FD, FILE_FD, BAD, 4),
    READS(vmsplice, PIPE_OUT, BAD, 1, 0),
    WRITES(mincore, WRITABLE, 4096, BAD),
    WRITES(get_robust_list, 0, BAD, WRITABLE),
    READS(chroot, BAD),
};

static int file, pipes[2], sock[2], epoll, timer, directory, inotify;
static char *readable, *writable, *path;
static long bad_addresses[8];
static const char *const bad_names[] = {"unmapped", "kernel", "top", "wrapping", "non-canonical",
                                        "PROT_NONE", "read-only"};

static long substitute(long argument, long bad)
{
    switch (argument) {
    case BAD: return bad;
    case READABLE: return (long)readable;
    case WRITABLE: return (long)writable;
    case PATH: return (long)path;
    case PROGRAM: return (long)"/bin/true";
    case NAME: return (long)"user.x";
    case FILE_FD: return file;
    case PIPE_IN: return pipes[0];
    case PIPE_OUT: return pipes[1];
    case SOCKET: return sock[0];
    case EPOLL: return epoll;
    case TIMER: return timer;
    case DIRECTORY: return directory;
    case INOTIFY: return inotify;
    default: return argument;
    }
}

static void prepare(void)
{
    file = (int)MUST(open("file", O_RDWR | O_CREAT, 0600));
    MUST(write(file, "0123456789abcdef0123456789abcdef", 32));
    MUST(pipe(pipes));
    MUST(fcntl(pipes[1], F_SETFL, O_NONBLOCK));
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sock));
    epoll = (int)MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLOUT};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[1], &event));
    timer = (int)MUST(timerfd_create(CLOCK_MONOTONIC, 0));
    directory = (int)MUST(open(".", O_RDONLY));
    inotify = (int)MUST(inotify_init1(0));
    readable = pages(2);
    writable = pages(2);
    path = pages(1);
    strcpy(path, "file");
    char *unmapped = pages(3), *none = pages(1), *reader = pages(1);
    MUST(munmap(unmapped, 3 * PAGE));
    MUST(mprotect(none, PAGE, PROT_NONE));
    MUST(mprotect(reader, PAGE, PROT_READ));
    bad_addresses[0] = (long)unmapped + 64;
    bad_addresses[1] = (long)0xffff888000000000;
    bad_addresses[2] = -1;
    bad_addresses[3] = -8;
    bad_addresses[4] = 1L << 62;
    bad_addresses[5] = (long)none;
    bad_addresses[6] = (long)reader;
}

int main(void)
{
    prepare();
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        int count = row->write ? 7 : 6, at = 0;
        while (at < 6 && row->arguments[at] != BAD)
            at++;
        printf("%s argument %d:", row->name, at);
        for (int bad = 0; bad < count; bad++) {
            long a[6];
            MUST(lseek(file, 0, SEEK_SET));
            for (int n = 0; n < 6; n++)
                a[n] = substitute(row->arguments[n], bad_addresses[bad]);
            errno = 0;
            long result = syscall(row->number, a[0], a[1], a[2], a[3], a[4], a[5]);
            if (result == -1 && errno == EFAULT)
                continue;
            printf(" %s %s", bad_names[bad], result == -1 ? guest_errno_name(errno) : "works");
            if (result > 2 && row->number == SYS_openat)
                close((int)result);
        }
        putchar('\n');
    }
    return 0;
}
