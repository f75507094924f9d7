/* utimensat(2), futimens, utimes, utime: values, UTIME_NOW, UTIME_OMIT, permissions, errors. */
#include "guest.h"
#include <sys/time.h>
#include <utime.h>

static void show_times(const char *path)
{
    struct stat st;
    MUST(lstat(path, &st));
    say("%s: atime %ld.%09ld mtime %ld.%09ld", path, (long)st.st_atim.tv_sec, st.st_atim.tv_nsec,
        (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void ordinary(void)
{
    struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
    struct timespec fixed[2] = {{1, 0}, {2, 0}};
    struct timespec omit[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    become_ordinary();
    CHECK(utimensat(AT_FDCWD, "/etc/passwd", NULL, 0));
    CHECK(utimensat(AT_FDCWD, "/etc/passwd", now, 0));
    CHECK(utimensat(AT_FDCWD, "/etc/passwd", fixed, 0));
    CHECK(utimensat(AT_FDCWD, "/etc/passwd", omit, 0));
}

int main(void)
{
    struct stat st;
    struct timespec both[2] = {{1000, 123456789}, {2000, 987654321}};
    struct timespec omit_one[2] = {{0, UTIME_OMIT}, {3000, 5}};
    struct timespec nothing[2] = {{7, UTIME_OMIT}, {7, UTIME_OMIT}};
    struct timespec invalid[2] = {{1, 1000000000}, {1, 0}};
    struct timespec early[2] = {{-5, 500}, {-1, 0}};
    put_file("file", "x");
    MUST(symlink("file", "link"));

    SECTION("values");
    CHECK(utimensat(AT_FDCWD, "file", both, 0));
    show_times("file");
    CHECK(utimensat(AT_FDCWD, "link", omit_one, 0));
    show_times("file");
    CHECK(utimensat(AT_FDCWD, "file", nothing, 0));
    show_times("file");
    CHECK(utimensat(AT_FDCWD, "link", both, AT_SYMLINK_NOFOLLOW));
    show_times("link");
    CHECK(utimensat(AT_FDCWD, "file", early, 0));
    show_times("file");
    int fd = (int)MUST(open("file", O_RDONLY));
    CHECK(futimens(fd, both));
    show_times("file");
    CHECK(utimensat(AT_FDCWD, "file", NULL, 0));
    MUST(stat("file", &st));
    SHOW(labs(time(NULL) - st.st_mtim.tv_sec) <= 2);

    SECTION("older calls");
    struct timeval tv[2] = {{100, 5}, {200, 6}};
    struct timeval bad_tv[2] = {{100, 1000000}, {200, 6}};
    struct utimbuf times = {11, 22};
    CHECK(syscall(SYS_utimes, "file", tv));
    show_times("file");
    CHECK(syscall(SYS_utimes, "file", bad_tv));
    CHECK(syscall(SYS_utime, "file", &times));
    show_times("file");
    CHECK(syscall(SYS_futimesat, AT_FDCWD, "file", tv));
    show_times("file");

    SECTION("errors");
    CHECK(utimensat(AT_FDCWD, "file", invalid, 0));
    CHECK(utimensat(AT_FDCWD, "absent", both, 0));
    CHECK(utimensat(AT_FDCWD, "absent", nothing, 0));
    CHECK(utimensat(AT_FDCWD, "file", both, 0x40));
    CHECK(utimensat(999, "file", both, 0));
    CHECK(futimens(999, both));
    CHECK(syscall(SYS_utimensat, AT_FDCWD, "file", 8, 0));
    CHECK(syscall(SYS_utimensat, AT_FDCWD, 8, both, 0));
    CHECK(syscall(SYS_utimensat, AT_FDCWD, NULL, both, 0));
    CHECK(syscall(SYS_utimensat, fd, NULL, both, 0));
    CHECK(syscall(SYS_utimensat, fd, NULL, both, AT_SYMLINK_NOFOLLOW));
    in_child("others", ordinary);

    SECTION("reading and writing move them");
    put_file("file", "abc");
    MUST(utimensat(AT_FDCWD, "file", both, 0));
    int writer = (int)MUST(open("file", O_WRONLY));
    MUST(write(writer, "x", 1));
    MUST(stat("file", &st));
    SHOW(st.st_mtim.tv_sec > 2000);
    SHOW(st.st_ctim.tv_sec > 2000);
    MUST(utimensat(AT_FDCWD, "file", both, 0));
    MUST(truncate("file", 0));
    MUST(stat("file", &st));
    SHOW(st.st_mtim.tv_sec > 2000);
    MUST(mkdir("dir", 0755));
    MUST(utimensat(AT_FDCWD, "dir", both, 0));
    put_file("dir/new", "");
    MUST(stat("dir", &st));
    SHOW(st.st_mtim.tv_sec > 2000);
    return 0;
}
