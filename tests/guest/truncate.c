/* truncate(2), ftruncate(2), fallocate(2), posix_fadvise(2), sync family: sizes, zeros, errors. */
#include "guest.h"
#include <linux/falloc.h>
#include <sys/resource.h>

static long size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == -1 ? -1 : (long)st.st_size;
}

static void allocation(void)
{
    SECTION("fallocate");
    char buf[64];
    put_file("alloc", "0123456789");
    int fd = (int)MUST(open("alloc", O_RDWR));
    if (fallocate(fd, 0, 0, 20) == -1 && errno == EOPNOTSUPP) {
        skip("the file system has no fallocate");
        return;
    }
    CHECK(size_of("alloc"));
    CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 8192));
    CHECK(size_of("alloc"));
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 4));
    CHECK(read(fd, buf, 12));
    show_bytes("punched", buf, 12);
    CHECK(fallocate(fd, 0, 0, 0));
    CHECK(fallocate(fd, 0, -1, 10));
    CHECK(fallocate(fd, 0, 0, -1));
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
    CHECK(fallocate(fd, 0x8000, 0, 10));
    CHECK(fallocate(fd, 0, LONG_MAX, 10));
    CHECK(fallocate(999, 0, 0, 10));
    int reader = (int)MUST(open("alloc", O_RDONLY));
    CHECK(fallocate(reader, 0, 0, 10));
    int fds[2];
    MUST(pipe(fds));
    CHECK(fallocate(fds[1], 0, 0, 10));
    CHECK(fallocate(MUST(open(".", O_RDONLY)), 0, 0, 10));
}

static void limit(void)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {4096, 4096};
    MUST(setrlimit(RLIMIT_FSIZE, &limit));
    int fd = (int)MUST(open("limited", O_RDWR | O_CREAT, 0600));
    char buf[8192] = {0};
    CHECK(write(fd, buf, sizeof buf));
    CHECK(write(fd, buf, 1));
    CHECK(ftruncate(fd, 4096));
    CHECK(ftruncate(fd, 4097));
    CHECK(truncate("limited", 5000));
    CHECK(pwrite(fd, buf, 10, 4090));
}

static void limit_kills(void)
{
    struct rlimit limit = {0, 0};
    MUST(setrlimit(RLIMIT_FSIZE, &limit));
    int fd = (int)MUST(open("limited", O_RDWR | O_CREAT, 0600));
    write(fd, "x", 1) ? (void)0 : (void)0;
}

int main(void)
{
    char buf[64];
    int fds[2];
    SECTION("truncate");
    put_file("file", "0123456789");
    CHECK(truncate("file", 4));
    show_file("file");
    CHECK(truncate("file", 8));
    show_file("file");
    CHECK(truncate("file", 0));
    CHECK(truncate("file", 1L << 30));
    CHECK(size_of("file"));
    CHECK(truncate("file", 3));
    int fd = (int)MUST(open("file", O_RDWR));
    CHECK(lseek(fd, 100, SEEK_SET));
    CHECK(ftruncate(fd, 6));
    CHECK(lseek(fd, 0, SEEK_CUR));
    CHECK(pread(fd, buf, sizeof buf, 0));
    show_bytes("file", buf, 6);

    SECTION("errors");
    MUST(mkdir("dir", 0755));
    MUST(pipe(fds));
    CHECK(truncate("file", -1));
    CHECK(ftruncate(fd, -1));
    CHECK(ftruncate(999, -1));
    CHECK(ftruncate(999, 0));
    CHECK(truncate("dir", 0));
    CHECK(truncate("absent", 0));
    CHECK(truncate("file/", 0));
    CHECK(ftruncate(fds[0], 0));
    CHECK(ftruncate(MUST(open("file", O_RDONLY)), 0));
    CHECK(ftruncate(MUST(open("file", O_PATH)), 0));
    CHECK(syscall(SYS_truncate, 8, 0));
    CHECK(truncate("/dev/null", 0));

    allocation();

    SECTION("advice and sync");
    CHECK(fsync(fd));
    CHECK(fdatasync(fd));
    CHECK(fsync(fds[0]));
    CHECK(fsync(999));
    CHECK(syncfs(fd));
    CODE(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    CODE(posix_fadvise(fd, 0, 0, 77));
    CODE(posix_fadvise(fds[0], 0, 0, POSIX_FADV_NORMAL));
    CODE(posix_fadvise(999, 0, 0, POSIX_FADV_NORMAL));
    CHECK(readahead(fd, 0, 10));
    CHECK(sync_file_range(fd, 0, 10, SYNC_FILE_RANGE_WRITE));
    CHECK(sync_file_range(fd, -1, 10, 0));

    SECTION("RLIMIT_FSIZE");
    in_child("ignored", limit);
    in_child("default", limit_kills);
    return 0;
}
