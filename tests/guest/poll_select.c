/* poll(2), ppoll, select(2), pselect6: readiness of every kind of file, sets, timeouts, errors. */
#include "guest.h"
#include <poll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>

static void show_poll(const char *label, int fd, short events)
{
    struct pollfd entry = {fd, events, 0x7777};
    int count = poll(&entry, 1, 0);
    say("%s: %d %#x", label, count, (unsigned)entry.revents);
}

static void kinds(void)
{
    SECTION("kinds of files");
    int fds[2], pair[2];
    const short all = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;
    put_file("file", "x");
    MUST(pipe(fds));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    show_poll("file", (int)MUST(open("file", O_RDONLY)), all);
    show_poll("directory", (int)MUST(open(".", O_RDONLY)), all);
    show_poll("null", (int)MUST(open("/dev/null", O_RDWR)), all);
    show_poll("zero", (int)MUST(open("/dev/zero", O_RDWR)), all);
    show_poll("O_PATH", (int)MUST(open("file", O_PATH)), all);
    show_poll("closed", 999, all);
    show_poll("negative", -1, all);
    show_poll("empty pipe, reader", fds[0], all);
    show_poll("empty pipe, writer", fds[1], all);
    MUST(write(fds[1], "x", 1));
    show_poll("pipe with data", fds[0], all);
    show_poll("nothing asked for", fds[0], 0);
    MUST(fcntl(fds[1], F_SETFL, O_NONBLOCK));
    char block[4096] = {0};
    while (write(fds[1], block, sizeof block) > 0)
        ;
    show_poll("full pipe, writer", fds[1], all);
    close(fds[0]);
    show_poll("no reader", fds[1], all);
    MUST(pipe(fds));
    close(fds[1]);
    show_poll("no writer", fds[0], all);
    show_poll("socket", pair[0], all);
    MUST(shutdown(pair[1], SHUT_WR));
    show_poll("socket, peer shut down", pair[0], all);
    close(pair[1]);
    show_poll("socket, peer closed", pair[0], all);
    show_poll("new stream socket", (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), all);
}

static void polling(void)
{
    SECTION("poll");
    int fds[2];
    MUST(pipe(fds));
    struct pollfd entries[3] = {{fds[0], POLLIN, 0}, {fds[1], POLLOUT, 0}, {-5, POLLIN, 0}};
    CHECK(poll(entries, 3, 0));
    CHECK(poll(entries, 1, 2));
    CHECK(poll(NULL, 0, 1));
    CHECK(poll(entries, 1u << 31, 0));
    CHECK(syscall(SYS_poll, 8, 1, 0));
    struct timespec zero = {0, 0}, invalid = {0, 1000000000}, moment = {0, 1000000};
    CHECK(ppoll(entries, 1, &zero, NULL));
    CHECK(syscall(SYS_ppoll, entries, 1, &moment, NULL, 8));
    SHOW(moment.tv_nsec);
    CHECK(ppoll(entries, 1, &invalid, NULL));
    CHECK(syscall(SYS_ppoll, entries, 1, 8, NULL, 8));
    CHECK(syscall(SYS_ppoll, entries, 1, &zero, entries, 4));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        MUST(write(fds[1], "x", 1));
        _exit(0);
    }
    CHECK(poll(entries, 1, -1));
    reap("writer", pid);
}

static void show_select(const char *label, int nfds, fd_set *in, fd_set *out, fd_set *except)
{
    struct timeval zero = {0, 0};
    int count = select(nfds, in, out, except, &zero);
    printf("%s: %d", label, count);
    if (count == -1)
        printf(" %s", guest_errno_name(errno));
    for (int fd = 0; count >= 0 && fd < nfds; fd++) {
        if (in != NULL && FD_ISSET(fd, in))
            printf(" in %d", fd);
        if (out != NULL && FD_ISSET(fd, out))
            printf(" out %d", fd);
        if (except != NULL && FD_ISSET(fd, except))
            printf(" except %d", fd);
    }
    putchar('\n');
}

static void selecting(void)
{
    SECTION("select");
    int fds[2];
    fd_set in, out, except;
    MUST(pipe(fds));
    MUST(dup2(fds[0], 40));
    MUST(dup2(fds[1], 41));
    close(fds[0]);
    close(fds[1]);
#define ALL_SETS() \
    do { FD_ZERO(&in); FD_SET(40, &in); FD_SET(41, &in); out = except = in; } while (0)
    ALL_SETS();
    show_select("empty", 42, &in, &out, &except);
    MUST(write(41, "x", 1));
    ALL_SETS();
    show_select("data", 42, &in, &out, &except);
    ALL_SETS();
    show_select("nfds too small to see it", 40, &in, &out, &except);
    ALL_SETS();
    show_select("only in", 42, &in, NULL, NULL);
    close(41);
    FD_ZERO(&in);
    FD_SET(40, &in);
    show_select("hung up", 42, &in, NULL, NULL);
    ALL_SETS();
    show_select("closed", 42, &in, &out, NULL);
    show_select("negative", -1, NULL, NULL, NULL);
    show_select("nothing", 0, NULL, NULL, NULL);
    struct timeval moment = {0, 2000}, invalid = {-1, 0};
    CHECK(syscall(SYS_select, 0, NULL, NULL, NULL, &moment));
    SHOW(moment.tv_sec + moment.tv_usec);
    CHECK(syscall(SYS_select, 0, NULL, NULL, NULL, &invalid));
    CHECK(syscall(SYS_select, 0, NULL, NULL, NULL, 8));
    CHECK(syscall(SYS_select, 10, 8, NULL, NULL, NULL));
    struct timespec zero = {0, 0};
    CHECK(pselect(0, NULL, NULL, NULL, &zero, NULL));
}

static volatile sig_atomic_t caught;

static void on_signal(int signo)
{
    caught = signo;
}

static void signal_masks(void)
{
    SECTION("signal masks");
    sigset_t set, none;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct timespec minute = {60, 0};
    MUST(sigaction(SIGUSR1, &action, NULL));
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    SHOW(caught);
    CHECK(ppoll(NULL, 0, &minute, &none));
    SHOW(caught);
    sigprocmask(SIG_BLOCK, NULL, &none);
    SHOW(sigismember(&none, SIGUSR1));
    sigemptyset(&none);
    caught = 0;
    raise(SIGUSR1);
    CHECK(pselect(0, NULL, NULL, NULL, &minute, &none));
    SHOW(caught);
}

int main(void)
{
    kinds();
    polling();
    selecting();
    signal_masks();
    return 0;
}
