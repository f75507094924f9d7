/* readv(2), writev(2), preadv(2), pwritev(2), preadv2(2): vectors, limits, partial transfers. */
#include "guest.h"
#include <sys/uio.h>

static int fd;

static void plain(void)
{
    SECTION("plain");
    char a[4] = {0}, b[3] = {0}, c[16] = {0};
    struct iovec out[] = {{"alpha", 5}, {"", 0}, {"beta", 4}, {NULL, 0}, {"gamma", 5}};
    struct iovec in[] = {{a, 4}, {b, 3}, {c, 16}};
    CHECK(writev(fd, out, 5));
    CHECK(lseek(fd, 0, SEEK_SET));
    CHECK(readv(fd, in, 3));
    show_bytes("a", a, 4);
    show_bytes("b", b, 3);
    show_bytes("c", c, 7);
    CHECK(readv(fd, in, 3));
    CHECK(preadv(fd, in, 2, 9));
    show_bytes("a", a, 4);
    CHECK(pwritev(fd, out, 1, 12));
    CHECK(lseek(fd, 0, SEEK_CUR));
    show_file("file");
    CHECK(readv(fd, in, 0));
    CHECK(writev(fd, out, 0));
}

static void errors(void)
{
    SECTION("errors");
    char a[4];
    struct iovec one = {a, 4};
    struct iovec negative[] = {{a, 4}, {a, (size_t)-1}};
    struct iovec bad[] = {{a, 4}, {(void *)8, 4}};
    struct iovec overflow[] = {{a, LONG_MAX}, {a, LONG_MAX}};
    MUST(lseek(fd, 0, SEEK_SET));
    CHECK(readv(fd, &one, -1));
    CHECK(readv(fd, &one, 1025));
    CHECK(syscall(SYS_readv, fd, 8, 1));
    CHECK(syscall(SYS_readv, fd, 8, 0));
    CHECK(readv(fd, negative, 2));
    CHECK(readv(999, negative, 2));
    CHECK(readv(fd, bad, 2));
    CHECK(lseek(fd, 0, SEEK_CUR));
    CHECK(readv(fd, bad + 1, 1));
    CHECK(writev(fd, bad + 1, 1));
    CHECK(syscall(SYS_writev, 999, 8, 1));
    CHECK(preadv(fd, &one, 1, -1));
    CHECK(pwritev(fd, &one, 1, -5));
    (void)overflow;
}

static void version2(void)
{
    SECTION("preadv2 and pwritev2");
    char a[4] = {0};
    struct iovec one = {a, 4};
    struct iovec out = {"ZZ", 2};
    MUST(lseek(fd, 2, SEEK_SET));
    CHECK(preadv2(fd, &one, 1, -1, 0));
    show_bytes("a", a, 4);
    CHECK(lseek(fd, 0, SEEK_CUR));
    CHECK(preadv2(fd, &one, 1, 0, 0));
    CHECK(lseek(fd, 0, SEEK_CUR));
    CHECK(pwritev2(fd, &out, 1, 0, RWF_APPEND));
    CHECK(pwritev2(fd, &out, 1, 1, RWF_SYNC | RWF_DSYNC));
    CHECK(preadv2(fd, &one, 1, -2, 0));
    CHECK(syscall(SYS_preadv2, fd, &one, 1, 0, 0, 0x40000000));
    show_file("file");
}

static void pipes(void)
{
    SECTION("pipes");
    int fds[2];
    char a[3] = {0}, b[3] = {0};
    struct iovec out[] = {{"12", 2}, {"345", 3}};
    struct iovec in[] = {{a, 3}, {b, 3}};
    MUST(pipe(fds));
    CHECK(writev(fds[1], out, 2));
    CHECK(readv(fds[0], in, 2));
    show_bytes("a", a, 3);
    show_bytes("b", b, 2);
    CHECK(preadv(fds[0], in, 2, 0));
    CHECK(preadv2(fds[0], in, 2, 0, 0));
    CHECK(writev(fds[1], out, 1));
    CHECK(preadv2(fds[0], in, 2, -1, 0));
}

int main(void)
{
    fd = (int)MUST(open("file", O_RDWR | O_CREAT, 0644));
    plain();
    errors();
    version2();
    pipes();
    return 0;
}
