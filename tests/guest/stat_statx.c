/* stat(2), lstat, fstat, newfstatat and statx(2): types, sizes, links, flags, errors. */
#include "guest.h"
#include <sys/sysmacros.h>

static void show_stat(const char *label, const struct stat *st)
{
    say("%s: mode %o nlink %ld size %ld owned %d", label, st->st_mode,
        S_ISDIR(st->st_mode) ? 0L : (long)st->st_nlink,
        S_ISREG(st->st_mode) || S_ISLNK(st->st_mode) ? (long)st->st_size : 0L,
        st->st_uid == geteuid());
}

static void kinds(void)
{
    SECTION("kinds");
    struct stat st, other;
    put_file("file", "12345");
    MUST(mkdir("dir", 0750));
    MUST(symlink("file", "link"));
    MUST(symlink("gone", "dangling"));
    MUST(link("file", "hard"));
    MUST(mkfifo("fifo", 0640));
    CHECK(stat("file", &st));
    show_stat("file", &st);
    CHECK(stat("hard", &other));
    SHOW(st.st_ino == other.st_ino && st.st_dev == other.st_dev);
    CHECK(stat("dir", &st));
    show_stat("dir", &st);
    CHECK(stat("link", &st));
    show_stat("link", &st);
    CHECK(lstat("link", &st));
    show_stat("link itself", &st);
    CHECK(stat("dangling", &st));
    CHECK(lstat("dangling", &st));
    CHECK(stat("fifo", &st));
    show_stat("fifo", &st);
    CHECK(stat("/dev/null", &st));
    say("null: type %o device %u:%u", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
    CHECK(stat("/dev/zero", &st));
    say("zero: type %o device %u:%u", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
}

static void errors(void)
{
    SECTION("errors");
    struct stat st;
    CHECK(stat("absent", &st));
    CHECK(stat("file/x", &st));
    CHECK(stat("file/", &st));
    CHECK(lstat("link/", &st));
    CHECK(stat("", &st));
    CHECK(fstat(999, &st));
    CHECK(syscall(SYS_stat, "file", 8));
    CHECK(syscall(SYS_stat, 8, &st));
    CHECK(syscall(SYS_stat, "absent", 8));
    CHECK(syscall(SYS_fstat, 0, 8));
}

static void descriptors(void)
{
    SECTION("descriptors");
    struct stat st;
    int fds[2];
    MUST(pipe(fds));
    CHECK(fstat(fds[0], &st));
    say("pipe: type %o size %ld", st.st_mode & S_IFMT, (long)st.st_size);
    int fd = (int)MUST(open("file", O_RDONLY));
    MUST(unlink("file"));
    CHECK(fstat(fd, &st));
    show_stat("unlinked once", &st);
    MUST(unlink("hard"));
    CHECK(fstat(fd, &st));
    show_stat("unlinked twice", &st);
    int path = (int)MUST(open("link", O_PATH | O_NOFOLLOW));
    CHECK(fstat(path, &st));
    show_stat("O_PATH link", &st);
}

static void at(void)
{
    SECTION("newfstatat");
    struct stat st;
    put_file("dir/inner", "abc");
    int dir = (int)MUST(open("dir", O_RDONLY));
    CHECK(fstatat(dir, "inner", &st, 0));
    show_stat("inner", &st);
    CHECK(fstatat(dir, "", &st, 0));
    CHECK(fstatat(dir, "", &st, AT_EMPTY_PATH));
    show_stat("empty path", &st);
    CHECK(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
    CHECK(fstatat(AT_FDCWD, "dangling", &st, AT_SYMLINK_NOFOLLOW));
    CHECK(fstatat(AT_FDCWD, "dangling", &st, 0x10000));
    CHECK(fstatat(999, "inner", &st, 0));
}

static void extended(void)
{
    SECTION("statx");
    struct statx stx;
    put_file("file", "123456");
    CHECK(statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS, &stx));
    SHOW((stx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    say("mode %o nlink %u size %lu", stx.stx_mode, stx.stx_nlink, (unsigned long)stx.stx_size);
    CHECK(statx(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &stx));
    say("type %o", stx.stx_mode & S_IFMT);
    CHECK(statx(AT_FDCWD, "absent", 0, STATX_ALL, &stx));
    CHECK(statx(AT_FDCWD, "file", 0, STATX__RESERVED, &stx));
    CHECK(statx(AT_FDCWD, "file", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_ALL, &stx));
    CHECK(statx(AT_FDCWD, "file", 1 << 30, STATX_ALL, &stx));
    CHECK(statx(0, "", AT_EMPTY_PATH, STATX_ALL, &stx));
    CHECK(syscall(SYS_statx, AT_FDCWD, "file", 0, STATX_ALL, 8));
    CHECK(syscall(SYS_statx, AT_FDCWD, 8, 0, STATX_ALL, &stx));
}

static void times(void)
{
    SECTION("times move forward");
    struct stat before, after;
    put_file("timed", "a");
    MUST(stat("timed", &before));
    struct timespec pause = {0, 20 * 1000 * 1000};
    nanosleep(&pause, NULL);
    put_file("timed", "b");
    MUST(stat("timed", &after));
    SHOW(after.st_mtim.tv_sec > before.st_mtim.tv_sec ||
         (after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
          after.st_mtim.tv_nsec > before.st_mtim.tv_nsec));
    SHOW(after.st_ino == before.st_ino);
    SHOW(after.st_mtim.tv_sec == after.st_ctim.tv_sec);
}

int main(void)
{
    umask(022);
    kinds();
    errors();
    descriptors();
    at();
    extended();
    times();
    return 0;
}
