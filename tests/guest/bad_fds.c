/* Every call that takes a descriptor, with one that is not open, one that is only a path, and one of
 * the wrong kind; and numbers no system call has. */
#include "guest.h"
#include <sys/socket.h>

struct row {
    const char *name;
    int number;
    long rest[4];
};

#define CALL(call, ...) {#call, SYS_##call, {__VA_ARGS__}}

static char buffer[4096];
static const char name[] = "x";

#define BUFFER (-1000)
#define NAME (-1001)

static const struct row rows[] = {
    CALL(read, BUFFER, 1), CALL(write, BUFFER, 1), CALL(close, 0), CALL(fstat, BUFFER),
    CALL(lseek, 0, SEEK_CUR), CALL(pread64, BUFFER, 1, 0), CALL(pwrite64, BUFFER, 1, 0),
    CALL(readv, BUFFER, 0), CALL(writev, BUFFER, 0), CALL(preadv, BUFFER, 0, 0),
    CALL(pwritev, BUFFER, 0, 0), CALL(ioctl, 0x5401, BUFFER), CALL(dup, 0), CALL(fcntl, F_GETFL),
    CALL(fcntl, F_GETFD), CALL(flock, 1), CALL(fsync, 0), CALL(fdatasync, 0), CALL(ftruncate, 0),
    CALL(getdents64, BUFFER, 4096), CALL(fchdir, 0), CALL(fchmod, 0600), CALL(fchown, -1, -1),
    CALL(fstatfs, BUFFER), CALL(fgetxattr, NAME, BUFFER, 10), CALL(flistxattr, BUFFER, 10),
    CALL(accept, 0, 0), CALL(accept4, 0, 0, 0), CALL(bind, BUFFER, 16), CALL(connect, BUFFER, 16),
    CALL(listen, 1), CALL(sendto, BUFFER, 1, 0, 0), CALL(recvfrom, BUFFER, 1, MSG_DONTWAIT),
    CALL(shutdown, 0), CALL(getsockname, BUFFER, BUFFER), CALL(getpeername, BUFFER, BUFFER),
    CALL(getsockopt, SOL_SOCKET, SO_TYPE, BUFFER), CALL(setsockopt, SOL_SOCKET, SO_PASSCRED, BUFFER),
    CALL(openat, NAME, O_RDONLY), CALL(mkdirat, NAME, 0700), CALL(unlinkat, NAME, 0),
    CALL(newfstatat, NAME, BUFFER, 0), CALL(fchmodat, NAME, 0600), CALL(faccessat, NAME, 0),
    CALL(epoll_wait, BUFFER, 1, 0), CALL(timerfd_gettime, BUFFER), CALL(inotify_rm_watch, 1),
    CALL(fallocate, 0, 0, 10), CALL(fadvise64, 0, 0, 0), CALL(readahead, 0, 10), CALL(syncfs, 0),
    CALL(sync_file_range, 0, 1, 0), CALL(pidfd_send_signal, 0, 0, 0), CALL(pidfd_getfd, 0, 0),
};

static long argument(long value)
{
    return value == BUFFER ? (long)buffer : value == NAME ? (long)name : value;
}

static void try_all(const char *label, int fd)
{
    SECTION(label);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        int copy = fd >= 0 && fd < 900 ? dup(fd) : fd;
        memset(buffer, 0, sizeof buffer);
        errno = 0;
        long result = syscall(row->number, copy, argument(row->rest[0]), argument(row->rest[1]),
                              argument(row->rest[2]), argument(row->rest[3]), 0);
        say("%s: %s", row->name, result == -1 ? guest_errno_name(errno) : "works");
        close(copy);
        if (row->number == SYS_dup && result >= 0)
            close((int)result);
    }
}

static void numbers(void)
{
    SECTION("numbers that are no system call");
    static const long unknown[] = {-1, -2, 400, 423, 512, 513, 600, 1000, 4095, 1 << 20,
                                   0x40000000, 0x40000001, LONG_MAX, LONG_MIN};
    for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
        errno = 0;
        long result = syscall(unknown[i], 1, 2, 3, 4, 5, 6);
        say("%ld: %ld %s", unknown[i], result, guest_errno_name(errno));
    }
    /* Numbers that Linux keeps for what it no longer has. */
    static const int gone[] = {134, 156, 174, 177, 178, 180, 181, 182, 183, 184, 185, 205, 211, 214,
                               215, 236};
    for (size_t i = 0; i < ARRAY_SIZE(gone); i++) {
        errno = 0;
        long result = syscall(gone[i], 0, 0, 0, 0, 0, 0);
        say("%d: %ld %s", gone[i], result, guest_errno_name(errno));
    }
}

int main(void)
{
    int fds[2];
    put_file("file", "contents");
    MUST(mkdir("dir", 0755));
    MUST(pipe(fds));
    MUST(fcntl(fds[0], F_SETFL, O_NONBLOCK));
    try_all("not open", 999);
    try_all("negative", -7);
    try_all("far too large", INT_MAX);
    try_all("O_PATH", (int)MUST(open("file", O_PATH)));
    try_all("pipe", fds[0]);
    try_all("regular file", (int)MUST(open("file", O_RDWR)));
    numbers();
    return 0;
}
