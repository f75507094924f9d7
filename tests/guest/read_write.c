/* read(2) and write(2) on files, pipes and directories: counts, positions, errors and their order. */
#include "guest.h"

static void files(void)
{
    SECTION("files");
    char buf[64] = {0};
    int fd = (int)CHECK(open("file", O_RDWR | O_CREAT | O_EXCL, 0644));
    CHECK(write(fd, "hello world", 11));
    CHECK(write(fd, "", 0));
    CHECK(read(fd, buf, sizeof buf));
    CHECK(lseek(fd, 6, SEEK_SET));
    CHECK(read(fd, buf, 3));
    show_bytes("read", buf, 3);
    CHECK(read(fd, buf, sizeof buf));
    show_bytes("read", buf, 2);
    CHECK(read(fd, buf, 0));
    CHECK(lseek(fd, 20, SEEK_SET));
    CHECK(read(fd, buf, sizeof buf));
    CHECK(write(fd, "end", 3));
    CHECK(lseek(fd, 0, SEEK_SET));
    memset(buf, 'x', sizeof buf);
    CHECK(read(fd, buf, sizeof buf));
    show_bytes("hole filled", buf, 23);
    close(fd);
}

static void append(void)
{
    SECTION("append");
    char buf[64] = {0};
    put_file("log", "one\n");
    int fd = (int)CHECK(open("log", O_RDWR | O_APPEND));
    CHECK(write(fd, "two\n", 4));
    CHECK(lseek(fd, 0, SEEK_CUR));
    CHECK(lseek(fd, 0, SEEK_SET));
    CHECK(write(fd, "three\n", 6));
    CHECK(lseek(fd, 0, SEEK_CUR));
    CHECK(pread(fd, buf, sizeof buf, 0));
    show_bytes("log", buf, 14);
    close(fd);
}

static void modes(void)
{
    SECTION("access modes");
    char buf[8] = {0};
    put_file("file", "data");
    int reader = (int)MUST(open("file", O_RDONLY));
    int writer = (int)MUST(open("file", O_WRONLY));
    int path = (int)MUST(open("file", O_PATH));
    int directory = (int)MUST(open(".", O_RDONLY | O_DIRECTORY));
    CHECK(write(reader, "x", 1));
    CHECK(read(writer, buf, 1));
    CHECK(read(path, buf, 1));
    CHECK(write(path, buf, 1));
    CHECK(read(directory, buf, 1));
    CHECK(write(directory, buf, 1));
    CHECK(read(-1, buf, 1));
    CHECK(read(999, buf, 1));
    CHECK(write(999, buf, 1));
    CHECK(write(reader, "", 0));
    CHECK(read(writer, buf, 0));
    close(reader);
    close(writer);
    close(path);
    close(directory);
}

static void pointers(void)
{
    SECTION("pointers");
    put_file("file", "0123456789");
    int fd = (int)MUST(open("file", O_RDWR));
    char *memory = pages(2);
    MUST(munmap(memory + PAGE, PAGE));
    char *bad = (char *)8;
    CHECK(syscall(SYS_read, fd, bad, 4));
    CHECK(lseek(fd, 0, SEEK_CUR));
    CHECK(syscall(SYS_write, fd, bad, 4));
    CHECK(syscall(SYS_read, fd, bad, 0));
    CHECK(syscall(SYS_write, fd, bad, 0));
    CHECK(syscall(SYS_read, fd, (long)-1, 1));
    CHECK(syscall(SYS_read, fd, memory, (size_t)-1));
    CHECK(syscall(SYS_write, fd, memory, (size_t)LONG_MAX + 1));
    MUST(mprotect(memory, PAGE, PROT_READ));
    CHECK(syscall(SYS_read, fd, memory, 4));
    MUST(mprotect(memory, PAGE, PROT_NONE));
    CHECK(syscall(SYS_write, fd, memory, 4));
    close(fd);
}

static void shared_position(void)
{
    SECTION("position shared through fork and dup");
    char byte;
    put_file("file", "abcdef");
    int fd = (int)MUST(open("file", O_RDONLY));
    int copy = (int)MUST(dup(fd));
    int other = (int)MUST(open("file", O_RDONLY));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        MUST(read(fd, &byte, 1));
        _exit(byte);
    }
    reap("child", pid);
    CHECK(read(copy, &byte, 1));
    show_bytes("copy", &byte, 1);
    CHECK(read(fd, &byte, 1));
    show_bytes("fd", &byte, 1);
    CHECK(read(other, &byte, 1));
    show_bytes("other", &byte, 1);
}

static void large(void)
{
    SECTION("large");
    size_t size = 3 * 1024 * 1024 + 17;
    char *out = malloc(size), *in = malloc(size);
    for (size_t i = 0; i < size; i++)
        out[i] = (char)(i * 31 >> 3);
    int fd = (int)MUST(open("big", O_RDWR | O_CREAT, 0600));
    CHECK(write(fd, out, size) == (ssize_t)size);
    CHECK(lseek(fd, 0, SEEK_SET));
    CHECK(read(fd, in, size) == (ssize_t)size);
    SHOW(memcmp(in, out, size));
    close(fd);
}

int main(void)
{
    files();
    append();
    modes();
    pointers();
    shared_position();
    large();
    return 0;
}
