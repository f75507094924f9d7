/* chdir(2), fchdir, getcwd, chroot(2): names, errors, inheritance, escape attempts. */
#include "guest.h"

static char top[PATH_MAX];

static void where(const char *label)
{
    char path[PATH_MAX] = {0};
    long length = syscall(SYS_getcwd, path, sizeof path);
    if (length == -1)
        say("%s: %s", label, guest_errno_name(errno));
    else if (strncmp(path, top, strlen(top)) == 0)
        say("%s: top%s", label, path + strlen(top));
    else
        say("%s: %s", label, strncmp(path, "(unreachable)", 13) == 0 ? "unreachable" : path);
}

static void ordinary(void)
{
    become_ordinary();
    CHECK(chroot("dir"));
    CHECK(chdir("closed"));
}

static void rooted(void)
{
    MUST(chroot("dir"));
    where("outside the new root");
    MUST(chdir("/"));
    where("inside");
    CHECK(access("/sub/file", F_OK));
    CHECK(access("/../../sub/file", F_OK));
    CHECK(access("/etc/passwd", F_OK));
    CHECK(access("/link", F_OK));
    CHECK(chdir("../../.."));
    where("after ../../..");
    CHECK(chroot("absent"));
    CHECK(chroot("/sub/file"));
}

int main(void)
{
    char buf[PATH_MAX];
    MUST((long)getcwd(top, sizeof top));
    MUST(mkdir("dir", 0755));
    MUST(mkdir("dir/sub", 0755));
    MUST(mkdir("closed", 0600));
    put_file("dir/sub/file", "x");
    MUST(symlink("dir/sub", "link"));
    MUST(symlink("/sub/file", "dir/link"));

    SECTION("chdir");
    where("start");
    CHECK(chdir("dir/sub"));
    where("dir/sub");
    CHECK(chdir("../.."));
    where("../..");
    CHECK(chdir("link"));
    where("link");
    CHECK(chdir(".."));
    where("..");
    CHECK(chdir(top));
    int fd = (int)MUST(open("dir", O_RDONLY));
    int path = (int)MUST(open("dir/sub", O_PATH));
    int file = (int)MUST(open("dir/sub/file", O_RDONLY));
    CHECK(fchdir(fd));
    where("fchdir");
    CHECK(fchdir(path));
    where("fchdir O_PATH");
    CHECK(chdir(top));

    SECTION("errors");
    CHECK(chdir("absent"));
    CHECK(chdir("dir/sub/file"));
    CHECK(chdir(""));
    CHECK(syscall(SYS_chdir, 8));
    CHECK(fchdir(file));
    CHECK(fchdir(999));
    CHECK(syscall(SYS_getcwd, buf, 1));
    CHECK(syscall(SYS_getcwd, buf, 0));
    CHECK(syscall(SYS_getcwd, 8, 1000));

    SECTION("root");
    MUST(chdir("/"));
    CHECK(syscall(SYS_getcwd, buf, 2));
    where("root");
    CHECK(chdir(".."));
    where("above root");
    MUST(chdir(top));

    SECTION("inheritance");
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        MUST(chdir("dir"));
        where("child");
        _exit(0);
    }
    reap("child", pid);
    where("parent");

    SECTION("ordinary");
    MUST(chmod(".", 0755));
    in_child("ordinary", ordinary);
    if (geteuid() == 0) {
        SECTION("chroot");
        in_child("chroot", rooted);
    }
    return 0;
}
