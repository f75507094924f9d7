/* ioctl(2) on what is no terminal, and the generic requests: FIONREAD, FIONBIO, FIOCLEX. */
#include "guest.h"
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

int main(void)
{
    int fds[2], pair[2], number = -1;
    struct termios termios;
    struct winsize winsize;
    put_file("file", "0123456789");
    int fd = (int)MUST(open("file", O_RDONLY));
    int null = (int)MUST(open("/dev/null", O_RDWR));
    MUST(pipe(fds));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));

    SECTION("not a terminal");
    CHECK(isatty(fd));
    CHECK(isatty(null));
    CHECK(isatty(fds[0]));
    CHECK(isatty(pair[0]));
    CHECK(isatty(999));
    CHECK(tcgetattr(fd, &termios));
    CHECK(ioctl(fds[0], TIOCGWINSZ, &winsize));
    CHECK(ioctl(fd, TIOCGPGRP, &number));

    SECTION("FIONREAD");
    MUST(lseek(fd, 4, SEEK_SET));
    CHECK(ioctl(fd, FIONREAD, &number));
    SHOW(number);
    MUST(write(fds[1], "12345", 5));
    CHECK(ioctl(fds[0], FIONREAD, &number));
    SHOW(number);
    CHECK(ioctl(fds[1], FIONREAD, &number));
    SHOW(number);
    MUST(write(pair[1], "123", 3));
    CHECK(ioctl(pair[0], FIONREAD, &number));
    SHOW(number);
    CHECK(ioctl(null, FIONREAD, &number));
    CHECK(ioctl(fds[0], FIONREAD, 8));

    SECTION("errors");
    CHECK(ioctl(fd, 0x12345678, 0));
    CHECK(ioctl(fds[0], 0x12345678, 0));
    CHECK(ioctl(999, FIONREAD, &number));
    CHECK(ioctl(MUST(open("file", O_PATH)), FIONREAD, &number));
    CHECK(ioctl(fds[0], FIONBIO, 8));
    return 0;
}
