/* pipe(2), pipe2(2), fifo(7): capacity, atomic writes, ends that close, O_NONBLOCK, SIGPIPE, FIONREAD. */
#include "guest.h"
#include <poll.h>
#include <sys/ioctl.h>

static volatile sig_atomic_t caught;

static void on_signal(int signo)
{
    caught = signo;
}

static void ends(void)
{
    SECTION("ends");
    int fds[2];
    char buf[64];
    CHECK(pipe(fds));
    SHOW(fds[0]);
    SHOW(fds[1]);
    CHECK(write(fds[1], "hello", 5));
    CHECK(write(fds[1], " there", 6));
    CHECK(read(fds[0], buf, 3));
    CHECK(read(fds[0], buf, sizeof buf));
    show_bytes("rest", buf, 8);
    CHECK(read(fds[1], buf, 1));
    CHECK(write(fds[0], "x", 1));
    CHECK(write(fds[1], "last", 4));
    close(fds[1]);
    CHECK(read(fds[0], buf, sizeof buf));
    CHECK(read(fds[0], buf, sizeof buf));
    CHECK(read(fds[0], buf, 0));
    close(fds[0]);
}

static void default_sigpipe(void)
{
    int fds[2];
    MUST(pipe(fds));
    close(fds[0]);
    MUST(write(fds[1], "x", 1));
}

static void broken(void)
{
    SECTION("broken pipe");
    int fds[2];
    MUST(pipe(fds));
    close(fds[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(fds[1], "x", 1));
    CHECK(write(fds[1], "", 0));
    signal(SIGPIPE, on_signal);
    CHECK(write(fds[1], "x", 1));
    say("caught %s", signal_name(caught));
    signal(SIGPIPE, SIG_DFL);
    close(fds[1]);
    in_child("default", default_sigpipe);
}

static void capacity(void)
{
    SECTION("capacity");
    static char block[70000];
    int fds[2], available = -1;
    memset(block, 'b', sizeof block);
    CHECK(pipe2(fds, O_NONBLOCK));
    CHECK(read(fds[0], block, 1));
    CHECK(write(fds[1], block, 65536));
    CHECK(ioctl(fds[0], FIONREAD, &available));
    SHOW(available);
    CHECK(write(fds[1], block, 10000));
    CHECK(write(fds[1], block, 1));
    CHECK(read(fds[0], block, 4096));
    CHECK(write(fds[1], block, 5000));
    CHECK(write(fds[1], block, 4096));
    long total = 0, got;
    while ((got = read(fds[0], block, sizeof block)) > 0)
        total += got;
    SHOW(total);
    say("%s", guest_errno_name(errno));
    close(fds[0]);
    close(fds[1]);
}

static void blocking(void)
{
    SECTION("blocking");
    static char block[200000];
    int fds[2];
    MUST(pipe(fds));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        close(fds[0]);
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = (char)(i % 251);
        CHECK(write(fds[1], block, sizeof block));
        _exit(0);
    }
    close(fds[1]);
    long total = 0, got;
    unsigned long sum = 0;
    while ((got = read(fds[0], block, 5000)) > 0) {
        for (long i = 0; i < got; i++)
            sum = sum * 31 + (unsigned char)block[i];
        total += got;
    }
    reap("writer", pid);
    SHOW(total);
    SHOW(sum % 1000000);
    close(fds[0]);
}

static void reader_goes(void)
{
    SECTION("the reader goes while a writer waits");
    static char block[100000];
    int fds[2];
    struct latch latch = new_latch();
    signal(SIGPIPE, SIG_IGN);
    MUST(pipe(fds));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        close(fds[0]);
        open_latch(&latch);
        CHECK(write(fds[1], block, sizeof block));
        CHECK(write(fds[1], block, sizeof block));
        _exit(0);
    }
    close(fds[1]);
    wait_latch(&latch);
    struct pollfd full = {fds[0], POLLIN, 0};
    poll(&full, 1, -1);
    usleep(20000);
    close(fds[0]);
    reap("writer", pid);
    signal(SIGPIPE, SIG_DFL);
}

static void flags(void)
{
    SECTION("flags");
    int fds[2];
    CHECK(pipe2(fds, O_CLOEXEC | O_NONBLOCK));
    CHECK(fcntl(fds[0], F_GETFD));
    say("%#o %#o", (unsigned)fcntl(fds[0], F_GETFL), (unsigned)fcntl(fds[1], F_GETFL));
    CHECK(pipe2(fds, O_APPEND));
    CHECK(pipe2(fds, O_CREAT));
    CHECK(syscall(SYS_pipe, 8));
    CHECK(pipe2(fds, O_DIRECT));
    char buf[64];
    CHECK(write(fds[1], "first", 5));
    CHECK(write(fds[1], "second", 6));
    CHECK(read(fds[0], buf, sizeof buf));
    CHECK(read(fds[0], buf, 2));
    CHECK(write(fds[1], "third", 5));
    CHECK(read(fds[0], buf, sizeof buf));
    show_bytes("packet", buf, 5);
}

static void fifo(void)
{
    SECTION("fifo");
    char buf[16];
    MUST(mkfifo("fifo", 0600));
    CHECK(open("fifo", O_WRONLY | O_NONBLOCK));
    int reader = (int)MUST(open("fifo", O_RDONLY | O_NONBLOCK));
    CHECK(read(reader, buf, sizeof buf));
    int writer = (int)MUST(open("fifo", O_WRONLY | O_NONBLOCK));
    CHECK(read(reader, buf, sizeof buf));
    CHECK(write(writer, "through", 7));
    CHECK(read(reader, buf, sizeof buf));
    close(writer);
    CHECK(read(reader, buf, sizeof buf));
    close(reader);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        int fd = (int)MUST(open("fifo", O_WRONLY));
        MUST(write(fd, "rendezvous", 10));
        _exit(0);
    }
    reader = (int)MUST(open("fifo", O_RDONLY));
    long total = 0, got;
    while ((got = read(reader, buf, sizeof buf)) > 0)
        total += got;
    SHOW(total);
    close(reader);
    reap("writer", pid);
    int both = (int)MUST(open("fifo", O_RDWR));
    CHECK(write(both, "self", 4));
    CHECK(read(both, buf, sizeof buf));
}

int main(void)
{
    ends();
    broken();
    capacity();
    blocking();
    reader_goes();
    flags();
    fifo();
    return 0;
}
