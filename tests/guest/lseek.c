/* lseek(2): whence, errors, holes, directories. */
#include "guest.h"

int main(void)
{
    int pipefd[2];
    put_file("file", "0123456789");
    int fd = (int)MUST(open("file", O_RDWR));

    SECTION("whence");
    CHECK(lseek(fd, 3, SEEK_SET));
    CHECK(lseek(fd, 4, SEEK_CUR));
    CHECK(lseek(fd, -2, SEEK_CUR));
    CHECK(lseek(fd, -1, SEEK_END));
    CHECK(lseek(fd, 100, SEEK_END));
    CHECK(lseek(fd, 0, SEEK_CUR));

    SECTION("errors");
    CHECK(lseek(fd, -1, SEEK_SET));
    CHECK(lseek(fd, -1000, SEEK_CUR));
    CHECK(lseek(fd, -11, SEEK_END));
    CHECK(lseek(fd, 0, 5));
    CHECK(lseek(fd, 0, -1));
    CHECK(lseek(999, 0, SEEK_SET));
    MUST(pipe(pipefd));
    CHECK(lseek(pipefd[0], 0, SEEK_CUR));
    CHECK(lseek(pipefd[0], 0, 77));
    int path = (int)MUST(open("file", O_PATH));
    CHECK(lseek(path, 0, SEEK_SET));
    CHECK(lseek(fd, 0, SEEK_CUR));

    SECTION("data and holes");
    CHECK(lseek(fd, 0, SEEK_DATA));
    CHECK(lseek(fd, 0, SEEK_HOLE));
    CHECK(lseek(fd, 9, SEEK_DATA));
    CHECK(lseek(fd, 10, SEEK_DATA));
    CHECK(lseek(fd, 10, SEEK_HOLE));
    CHECK(lseek(fd, -1, SEEK_DATA));

    SECTION("directory");
    int directory = (int)MUST(open(".", O_RDONLY));
    CHECK(lseek(directory, 0, SEEK_SET));
    CHECK(lseek(directory, -1, SEEK_SET));

    SECTION("devices");
    int null = (int)MUST(open("/dev/null", O_RDWR));
    CHECK(lseek(null, 10, SEEK_SET));
    CHECK(lseek(null, 10, SEEK_END));
    return 0;
}
