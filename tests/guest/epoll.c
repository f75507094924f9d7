/* epoll(7): level, edge, one-shot, nested, exclusive, closing, modes, errors. */
#include "guest.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int epfd;

static void control(const char *label, int op, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epfd, op, fd, &event) == -1)
        say("%s: %s", label, guest_errno_name(errno));
    else
        say("%s: ok", label);
}

static int compare(const void *a, const void *b)
{
    return ((const struct epoll_event *)a)->data.fd - ((const struct epoll_event *)b)->data.fd;
}

static void show_ready(const char *label)
{
    struct epoll_event events[8];
    int count = epoll_wait(epfd, events, 8, 0);
    printf("%s: %d", label, count);
    if (count > 0)
        qsort(events, (size_t)count, sizeof events[0], compare);
    for (int i = 0; i < count; i++)
        printf(" %d:%#x", events[i].data.fd, events[i].events);
    putchar('\n');
}

static void level(void)
{
    SECTION("level");
    int fds[2];
    char buf[8];
    MUST(pipe(fds));
    control("add reader", EPOLL_CTL_ADD, fds[0], EPOLLIN);
    control("add writer", EPOLL_CTL_ADD, fds[1], EPOLLOUT);
    control("add again", EPOLL_CTL_ADD, fds[0], EPOLLIN);
    show_ready("empty");
    MUST(write(fds[1], "data", 4));
    show_ready("data");
    show_ready("still");
    MUST(read(fds[0], buf, 2));
    show_ready("some left");
    MUST(read(fds[0], buf, 2));
    show_ready("drained");
    control("modify", EPOLL_CTL_MOD, fds[1], 0);
    show_ready("no events");
    close(fds[1]);
    show_ready("hang up");
    control("delete", EPOLL_CTL_DEL, fds[0], 0);
    control("delete again", EPOLL_CTL_DEL, fds[0], 0);
    show_ready("deleted");
    close(fds[0]);
}

static void edge(void)
{
    SECTION("edge");
    int pair[2];
    char buf[8];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    control("add", EPOLL_CTL_ADD, pair[0], EPOLLIN | EPOLLET);
    MUST(write(pair[1], "one", 3));
    show_ready("first");
    show_ready("no new edge");
    MUST(write(pair[1], "two", 3));
    show_ready("more data");
    MUST(read(pair[0], buf, 2));
    show_ready("partly read");
    control("modify rearms", EPOLL_CTL_MOD, pair[0], EPOLLIN | EPOLLOUT | EPOLLET);
    show_ready("rearmed");
    shutdown(pair[1], SHUT_WR);
    show_ready("shut down");
    close(pair[1]);
    show_ready("closed");
    close(pair[0]);
}

static void one_shot(void)
{
    SECTION("one-shot");
    int fd = (int)MUST(eventfd(1, 0));
    control("add", EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT);
    show_ready("first");
    show_ready("disarmed");
    control("rearm", EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
    show_ready("again");
    close(fd);
}

static void nested(void)
{
    SECTION("nested");
    int outer = epfd, inner = (int)MUST(epoll_create1(0)), fd = (int)MUST(eventfd(0, 0));
    control("add inner", EPOLL_CTL_ADD, inner, EPOLLIN);
    epfd = inner;
    control("add eventfd", EPOLL_CTL_ADD, fd, EPOLLIN);
    control("a loop", EPOLL_CTL_ADD, outer, EPOLLIN);
    control("itself", EPOLL_CTL_ADD, inner, EPOLLIN);
    epfd = outer;
    show_ready("nothing");
    eventfd_write(fd, 1);
    show_ready("inner is ready");
    close(fd);
    show_ready("nothing left");
    close(inner);
}

static void closing(void)
{
    SECTION("closing");
    int fd = (int)MUST(eventfd(1, 0)), copy = (int)MUST(dup(fd));
    control("add", EPOLL_CTL_ADD, fd, EPOLLIN);
    close(fd);
    show_ready("a copy keeps it");
    control("cannot be changed", EPOLL_CTL_MOD, fd, EPOLLIN);
    close(copy);
    show_ready("gone");
    fd = (int)MUST(eventfd(1, 0));
    control("the number again", EPOLL_CTL_ADD, fd, EPOLLIN);
    show_ready("new");
    close(fd);
}

static void waiting(void)
{
    SECTION("waiting");
    struct epoll_event events[4];
    int fd = (int)MUST(eventfd(0, 0));
    control("add", EPOLL_CTL_ADD, fd, EPOLLIN);
    CHECK(epoll_wait(epfd, events, 4, 2));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        eventfd_write(fd, 1);
        _exit(0);
    }
    CHECK(epoll_wait(epfd, events, 4, -1));
    reap("writer", pid);
    struct timespec zero = {0, 0}, invalid = {0, -1};
    CHECK(syscall(SYS_epoll_pwait2, epfd, events, 4, &zero, NULL, 8));
    CHECK(syscall(SYS_epoll_pwait2, epfd, events, 4, &invalid, NULL, 8));
    sigset_t empty;
    sigemptyset(&empty);
    CHECK(epoll_pwait(epfd, events, 4, 0, &empty));
    CHECK(syscall(SYS_epoll_pwait, epfd, events, 4, 0, &empty, 4));
    close(fd);
}

static void many(void)
{
    SECTION("more ready than asked for");
    int fds[6];
    bool seen[64] = {false};
    struct epoll_event events[2];
    for (int i = 0; i < 6; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
        fds[i] = (int)MUST(eventfd(1, 0));
        MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, fds[i], &event));
    }
    for (int round = 0; round < 3; round++) {
        int count = (int)MUST(epoll_wait(epfd, events, 2, 0));
        for (int i = 0; i < count; i++)
            seen[events[i].data.u64] = true;
    }
    int total = 0;
    for (int i = 0; i < 6; i++)
        total += seen[i];
    SHOW(total);
    for (int i = 0; i < 6; i++)
        close(fds[i]);
}

static void paths(void)
{
    SECTION("so many ways up from one file");
    int leaf = (int)MUST(eventfd(0, 0)), levels[4][2];
    struct epoll_event event = {.events = EPOLLIN};
    for (int level = 0; level < 4; level++)
        for (int i = 0; i < 2; i++) {
            levels[level][i] = (int)MUST(epoll_create1(0));
            for (int below = 0; below < (level ? 2 : 1); below++)
                MUST(epoll_ctl(levels[level][i], EPOLL_CTL_ADD, level ? levels[level - 1][below] : leaf,
                               &event));
        }
    int top = (int)MUST(epoll_create1(0));
    CHECK(epoll_ctl(top, EPOLL_CTL_ADD, levels[3][0], &event));
    CHECK(epoll_ctl(top, EPOLL_CTL_ADD, levels[3][1], &event));
    CHECK(epoll_ctl(top, EPOLL_CTL_DEL, levels[3][1], &event));
    eventfd_write(leaf, 1);
    CHECK(epoll_wait(top, &event, 1, 0));
    CHECK(epoll_ctl(levels[3][1], EPOLL_CTL_ADD, leaf, &event));
    int other = (int)MUST(eventfd(0, 0)), added = 0;
    MUST(epoll_ctl(top, EPOLL_CTL_DEL, levels[3][0], &event));
    for (int i = 0; i < 12; i++) {
        int mid = (int)MUST(epoll_create1(0));
        MUST(epoll_ctl(mid, EPOLL_CTL_ADD, other, &event));
        added += epoll_ctl(levels[0][i % 2], EPOLL_CTL_ADD, mid, &event) == 0;
    }
    SHOW(added);
}

static void mesh(void)
{
    SECTION("a mesh of instances");
    enum { WIDTH = 30 }; /* the ways through it are 30 ^ 5 */
    static int levels[5][WIDTH];
    struct epoll_event event = {.events = EPOLLIN};
    int failed = 0;
    for (int level = 0; level < 5; level++)
        for (int i = 0; i < WIDTH; i++) {
            levels[level][i] = (int)MUST(epoll_create1(0));
            for (int below = 0; level && below < WIDTH; below++)
                failed += epoll_ctl(levels[level][i], EPOLL_CTL_ADD, levels[level - 1][below], &event);
        }
    SHOW(failed);
    CHECK(epoll_ctl(levels[0][0], EPOLL_CTL_ADD, (int)MUST(eventfd(1, 0)), &event));
    CHECK(epoll_wait(levels[4][0], &event, 1, 0));
    for (int level = 0; level < 5; level++)
        for (int i = 0; i < WIDTH; i++)
            close(levels[level][i]);
}

static void errors(void)
{
    SECTION("errors");
    struct epoll_event event = {.events = EPOLLIN};
    put_file("file", "x");
    int file = (int)MUST(open("file", O_RDONLY)), fd = (int)MUST(eventfd(0, 0));
    control("regular file", EPOLL_CTL_ADD, file, EPOLLIN);
    control("directory", EPOLL_CTL_ADD, (int)MUST(open(".", O_RDONLY)), EPOLLIN);
    control("bad fd", EPOLL_CTL_ADD, 999, EPOLLIN);
    control("not there", EPOLL_CTL_MOD, fd, EPOLLIN);
    control("bad operation", 77, fd, EPOLLIN);
    control("exclusive", EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLEXCLUSIVE);
    control("modify exclusive", EPOLL_CTL_MOD, fd, EPOLLIN);
    CHECK(epoll_ctl(999, EPOLL_CTL_ADD, fd, &event));
    CHECK(epoll_ctl(fd, EPOLL_CTL_ADD, epfd, &event));
    CHECK(syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, fd, 8));
    CHECK(epoll_wait(epfd, &event, 0, 0));
    CHECK(epoll_wait(epfd, &event, -1, 0));
    CHECK(epoll_wait(fd, &event, 1, 0));
    CHECK(epoll_wait(999, &event, 1, 0));
    CHECK(syscall(SYS_epoll_create, 0));
    CHECK(epoll_create1(1));
    CHECK(read(epfd, &event, 1));
    eventfd_write(fd, 1);
    CHECK(syscall(SYS_epoll_wait, epfd, 8, 1, 0));
    CHECK(syscall(SYS_epoll_wait, epfd, 0xffff800000000000, 1, 0));
    close(fd);
}

int main(void)
{
    epfd = (int)MUST(epoll_create1(EPOLL_CLOEXEC));
    level();
    edge();
    one_shot();
    nested();
    closing();
    waiting();
    many();
    paths();
    mesh();
    errors();
    return 0;
}
