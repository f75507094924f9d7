/* pread64(2) and pwrite64(2): the position does not move; checks and their order. */
#include "guest.h"

int main(void)
{
    char buf[32] = {0};
    int pipefd[2];
    put_file("file", "0123456789");
    int fd = (int)MUST(open("file", O_RDWR));
    MUST(pipe(pipefd));

    SECTION("positions");
    CHECK(pread(fd, buf, 4, 3));
    show_bytes("pread", buf, 4);
    CHECK(lseek(fd, 0, SEEK_CUR));
    CHECK(pread(fd, buf, 20, 8));
    CHECK(pread(fd, buf, 20, 10));
    CHECK(pread(fd, buf, 20, 1000));
    CHECK(pread(fd, buf, 20, LONG_MAX));
    CHECK(pwrite(fd, "AB", 2, 4));
    CHECK(pwrite(fd, "end", 3, 12));
    CHECK(lseek(fd, 0, SEEK_CUR));
    show_file("file");

    SECTION("append wins over the offset");
    int append = (int)MUST(open("file", O_WRONLY | O_APPEND));
    CHECK(pwrite(append, "++", 2, 0));
    show_file("file");

    SECTION("errors");
    CHECK(pread(fd, buf, 1, -1));
    CHECK(pwrite(fd, buf, 1, -1));
    CHECK(pread(999, buf, 1, -1));
    CHECK(pread(999, buf, 1, 0));
    CHECK(pread(pipefd[0], buf, 1, 0));
    CHECK(pwrite(pipefd[1], buf, 1, 0));
    CHECK(pread(pipefd[0], buf, 1, -1));
    CHECK(pread(append, buf, 1, 0));
    CHECK(syscall(SYS_pread64, fd, 8, 4, 0));
    CHECK(syscall(SYS_pwrite64, fd, 8, 4, 0));
    CHECK(syscall(SYS_pread64, fd, buf, (size_t)-1, 0));
    CHECK(pwrite(fd, "x", 1, LONG_MAX));
    return 0;
}
