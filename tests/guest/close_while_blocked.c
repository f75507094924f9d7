/* A descriptor is closed while another thread is blocked in a call on it: the call goes on. close(2) */
#include "guest.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>

static char buffer[1 << 17];
static int fd, other, error;
static long result;
static volatile pid_t caller;
static pthread_t thread;

static void *run(void *call)
{
    caller = gettid();
    result = ((long (*)(void))call)();
    error = errno;
    return NULL;
}

static char state(void)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", caller);
    int stat = (int)MUST(open(path, O_RDONLY));
    line[MUST(read(stat, line, sizeof line - 1))] = 0;
    close(stat);
    return strrchr(line, ')')[2];
}

static void blocked_in(long (*call)(void))
{
    fflush(stdout);
    caller = 0;
    MUST(pthread_create(&thread, NULL, run, (void *)call));
    while (!caller || state() != 'S')
        sched_yield();
}

static void ended(void)
{
    pthread_join(thread, NULL);
    say("the call: %ld %s", result, result < 0 ? guest_errno_name(error) : "");
}

static long reads(void) { return read(fd, buffer, 5); }
static long writes(void) { return write(fd, buffer, sizeof buffer); }
static long receives(void) { return recv(fd, buffer, 5, 0); }
static long locks(void) { return flock(fd, LOCK_EX); }
static long locks_record(void)
{
    return fcntl(fd, F_SETLKW, &(struct flock){.l_type = F_WRLCK, .l_len = 5});
}
static long waits(void)
{
    struct epoll_event event;
    return epoll_wait(fd, &event, 1, -1);
}
static long accepts(void)
{
    int got = accept(fd, NULL, NULL);
    long written = got < 0 ? got : write(got, "hello", 5);
    close(got);
    return written;
}

static void pipes(void)
{
    SECTION("pipe, read end");
    int ends[2];
    MUST(pipe(ends));
    fd = ends[0];
    blocked_in(reads);
    CHECK(close(fd));
    CHECK(write(ends[1], "hello", 5));
    ended();
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(ends[1], "hello", 5));
    close(ends[1]);

    SECTION("pipe, write end");
    MUST(pipe(ends));
    fd = ends[1];
    blocked_in(writes);
    CHECK(close(fd));
    for (size_t left = sizeof buffer; left;)
        left -= (size_t)MUST(read(ends[0], buffer, left));
    ended();
    CHECK(read(ends[0], buffer, 1));
    close(ends[0]);

    SECTION("pipe, replaced");
    MUST(pipe(ends));
    fd = ends[0];
    blocked_in(reads);
    CHECK(dup2(ends[1], fd) == fd);
    CHECK(write(fd, "hello", 5));
    ended();
    close(ends[0]);
    close(ends[1]);
}

static void sockets(void)
{
    SECTION("sockets");
    int ends[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    fd = ends[0];
    blocked_in(receives);
    CHECK(close(fd));
    CHECK(write(ends[1], "hello", 5));
    ended();
    CHECK(read(ends[1], buffer, 5));
    close(ends[1]);

    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof name;
    fd = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(bind(fd, (struct sockaddr *)&name, length));
    MUST(listen(fd, 5));
    MUST(getsockname(fd, (struct sockaddr *)&name, &length));
    blocked_in(accepts);
    CHECK(close(fd));
    other = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    CHECK(connect(other, (struct sockaddr *)&name, length));
    ended();
    CHECK(read(other, buffer, 5));
    close(other);
    other = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    CHECK(connect(other, (struct sockaddr *)&name, length));
    close(other);
}

static void others(void)
{
    SECTION("others");
    fd = (int)MUST(epoll_create1(0));
    int event = (int)MUST(eventfd(0, 0));
    struct epoll_event wanted = {.events = EPOLLIN};
    MUST(epoll_ctl(fd, EPOLL_CTL_ADD, event, &wanted));
    blocked_in(waits);
    CHECK(close(fd));
    CHECK(write(event, &(uint64_t){1}, 8));
    ended();

    other = (int)MUST(open("locked", O_RDWR | O_CREAT, 0600));
    fd = (int)MUST(open("locked", O_RDWR));
    CHECK(flock(other, LOCK_EX));
    blocked_in(locks);
    CHECK(close(fd));
    CHECK(close(other));
    ended();
    other = (int)MUST(open("locked", O_RDWR));
    CHECK(flock(other, LOCK_EX | LOCK_NB));
    unlink("locked");
}

/* A process has no record lock on a file that it has closed. */
static void records(void)
{
    SECTION("record locks");
    int gate[2], ready[2];
    MUST(pipe(gate));
    MUST(pipe(ready));
    fd = (int)MUST(open("record", O_RDWR | O_CREAT, 0600));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        close(gate[1]);
        MUST(locks_record());
        MUST(write(ready[1], "r", 1));
        _exit(read(gate[0], buffer, 1) != 0);
    }
    MUST(read(ready[0], buffer, 1));
    blocked_in(locks_record);
    CHECK(close(fd));
    close(gate[1]);
    reap("holder", pid);
    ended();
    pid = (pid_t)MUST(fork());
    if (pid == 0) {
        fd = (int)MUST(open("record", O_RDWR));
        CHECK(fcntl(fd, F_SETLK, &(struct flock){.l_type = F_WRLCK, .l_len = 5}));
        fflush(stdout);
        _exit(0);
    }
    reap("another", pid);
    close(gate[0]);
    close(ready[0]);
    close(ready[1]);
    unlink("record");
}

int main(void)
{
    pipes();
    sockets();
    others();
    records();
    return 0;
}
