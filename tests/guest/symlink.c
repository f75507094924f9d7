/* symlink(2), readlink(2): contents, truncation of the answer, loops, depth, relative and absolute. */
#include "guest.h"

int main(void)
{
    char buf[64];
    struct stat st;
    SECTION("readlink");
    put_file("file", "contents");
    CHECK(symlink("file", "link"));
    CHECK(readlink("link", buf, sizeof buf));
    show_bytes("link", buf, 4);
    CHECK(readlink("link", buf, 2));
    CHECK(syscall(SYS_readlink, "link", buf, 0));
    CHECK(syscall(SYS_readlink, "link", buf, -1));
    CHECK(readlink("file", buf, sizeof buf));
    CHECK(readlink("absent", buf, sizeof buf));
    CHECK(readlink(".", buf, sizeof buf));
    CHECK(readlink("link/", buf, sizeof buf));
    CHECK(syscall(SYS_readlink, "link", 8, 10));
    int fd = (int)MUST(open("link", O_PATH | O_NOFOLLOW));
    CHECK(readlinkat(fd, "", buf, sizeof buf));
    CHECK(readlinkat(AT_FDCWD, "", buf, sizeof buf));

    SECTION("symlink errors");
    CHECK(symlink("anything at all", "file"));
    CHECK(symlink("x", "link"));
    CHECK(symlink("", "empty"));
    CHECK(symlink("x", ""));
    CHECK(symlink("x", "absent/x"));
    CHECK(symlink("x", "trailing/"));
    CHECK(symlink("x", "file/x"));
    CHECK(syscall(SYS_symlink, 8, "x"));
    CHECK(syscall(SYS_symlink, "x", 8));

    SECTION("where they lead");
    MUST(mkdir("dir", 0755));
    put_file("dir/inner", "inner");
    CHECK(symlink("../file", "dir/up"));
    show_file("dir/up");
    CHECK(symlink("dir", "dirlink"));
    show_file("dirlink/inner");
    show_file("dirlink/../file");
    CHECK(lstat("dirlink", &st) == 0 && S_ISLNK(st.st_mode));
    CHECK(lstat("dirlink/", &st) == 0 && S_ISDIR(st.st_mode));
    CHECK(symlink("/dev/null", "absolute"));
    CHECK(stat("absolute", &st) == 0 && S_ISCHR(st.st_mode));
    CHECK(rmdir("dirlink"));
    CHECK(mkdir("dirlink", 0755));
    CHECK(chdir("dirlink"));
    CHECK(access("inner", F_OK));
    CHECK(chdir(".."));
    CHECK(access("dirlink", F_OK));

    SECTION("depth");
    char name[16], target[16];
    MUST(symlink("file", "s0"));
    for (int i = 1; i < 45; i++) {
        snprintf(target, sizeof target, "s%d", i - 1);
        snprintf(name, sizeof name, "s%d", i);
        MUST(symlink(target, name));
    }
    CHECK(access("s39", F_OK));
    CHECK(access("s40", F_OK));
    MUST(symlink("self", "self"));
    CHECK(access("self", F_OK));
    CHECK(access("self/x", F_OK));
    MUST(symlink(".", "here"));
    CHECK(access("here/here/here/file", F_OK));

    SECTION("a long target");
    static char longer[4200];
    memset(longer, 'x', sizeof longer);
    longer[4095] = 0;
    SHOW(symlink(longer, "long"));
    SHOW(lstat("long", &st) == 0 ? st.st_size : -1);
    longer[4095] = 'x';
    longer[4096] = 0;
    SHOW(symlink(longer, "longer"));
    say("%s", guest_errno_name(errno));
    return 0;
}
