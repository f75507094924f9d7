/* link(2), linkat, unlink(2), unlinkat: link counts, open files that are unlinked, errors. */
#include "guest.h"

static long links_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == -1 ? -1 : (long)st.st_nlink;
}

int main(void)
{
    char buf[16] = {0};
    SECTION("link");
    put_file("file", "contents");
    CHECK(link("file", "second"));
    CHECK(links_of("file"));
    put_file("second", "changed");
    show_file("file");
    CHECK(unlink("file"));
    CHECK(links_of("second"));
    show_file("second");

    SECTION("link errors");
    MUST(mkdir("dir", 0755));
    MUST(symlink("second", "symlink"));
    MUST(symlink("gone", "dangling"));
    CHECK(link("second", "symlink"));
    CHECK(link("absent", "new"));
    CHECK(link("second", "absent/new"));
    CHECK(link("second", "second"));
    CHECK(link("dir", "dirlink"));
    CHECK(link("second", "new/"));
    CHECK(link("", "new"));
    CHECK(link("second", ""));
    CHECK(link("second/x", "new"));
    CHECK(syscall(SYS_link, 8, "new"));
    CHECK(syscall(SYS_link, "second", 8));
    CHECK(link("/dev/null", "null"));
    CHECK(linkat(AT_FDCWD, "second", AT_FDCWD, "third", 0x40));

    SECTION("symbolic links");
    CHECK(link("symlink", "symlink2"));
    CHECK(links_of("symlink"));
    CHECK(linkat(AT_FDCWD, "symlink", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    CHECK(links_of("second"));
    CHECK(linkat(AT_FDCWD, "dangling", AT_FDCWD, "no", AT_SYMLINK_FOLLOW));
    CHECK(unlink("dangling"));
    CHECK(unlink("symlink"));
    show_file("second");

    SECTION("unlink errors");
    CHECK(unlink("absent"));
    CHECK(unlink("dir"));
    CHECK(unlink("dir/"));
    CHECK(unlink("second/"));
    CHECK(unlink("second/x"));
    CHECK(unlink(""));
    CHECK(unlink("."));
    CHECK(unlink("/"));
    CHECK(syscall(SYS_unlink, 8));

    SECTION("open and unlinked");
    int fd = (int)MUST(open("second", O_RDWR));
    CHECK(unlink("second"));
    CHECK(access("second", F_OK));
    CHECK(read(fd, buf, sizeof buf));
    CHECK(write(fd, "more", 4));
    CHECK(pread(fd, buf, sizeof buf, 0));
    show_bytes("unlinked", buf, 11);
    put_file("second", "another file");
    CHECK(pread(fd, buf, 4, 0));
    show_bytes("unlinked", buf, 4);

    SECTION("permissions");
    MUST(mkdir("sticky", 01777));
    MUST(chmod("sticky", 01777));
    put_file("sticky/mine", "x");
    MUST(mkdir("closed", 0755));
    put_file("closed/file", "x");
    MUST(chmod("closed", 0555));
    become_ordinary();
    CHECK(unlink("closed/file"));
    return 0;
}
