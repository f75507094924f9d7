/* mkdir(2), rmdir(2), mknod(2): modes, set-group-ID inheritance, removed directories, errors. */
#include "guest.h"
#include <sys/sysmacros.h>

static void show_mode(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == -1)
        say("%s: %s", path, guest_errno_name(errno));
    else
        say("%s: %o", path, st.st_mode);
}

static void node(void)
{
    become_ordinary();
    CHECK(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
    CHECK(mknod("block", S_IFBLK | 0666, makedev(7, 0)));
}

int main(void)
{
    SECTION("modes");
    umask(022);
    CHECK(mkdir("dir", 0777));
    show_mode("dir");
    CHECK(mkdir("private", 0700));
    show_mode("private");
    CHECK(mkdir("sticky", 01777));
    show_mode("sticky");
    umask(0);
    CHECK(mkdir("wide", 07777));
    SHOW(chmod("wide", 02775));
    CHECK(mkdir("wide/inherits", 0755));
    show_mode("wide/inherits");
    umask(077);
    CHECK(mkdir("masked", 0777));
    show_mode("masked");
    umask(022);

    SECTION("mkdir errors");
    put_file("file", "x");
    CHECK(mkdir("dir", 0755));
    CHECK(mkdir("file", 0755));
    CHECK(mkdir("file/x", 0755));
    CHECK(mkdir("absent/x", 0755));
    CHECK(mkdir("", 0755));
    CHECK(mkdir(".", 0755));
    CHECK(mkdir("/", 0755));
    CHECK(mkdir("slash/", 0755));
    CHECK(mkdir("dir/.", 0755));
    CHECK(mkdir("dir/new/.", 0755));
    MUST(symlink("gone", "dangling"));
    CHECK(mkdir("dangling", 0755));
    CHECK(mkdir("dangling/", 0755));
    CHECK(syscall(SYS_mkdir, 8, 0755));

    SECTION("rmdir");
    put_file("dir/file", "x");
    CHECK(rmdir("dir"));
    CHECK(rmdir("file"));
    CHECK(rmdir("absent"));
    CHECK(rmdir("private/."));
    CHECK(rmdir("private/.."));
    CHECK(rmdir("."));
    CHECK(rmdir("/"));
    CHECK(rmdir("dangling"));
    CHECK(rmdir("private/"));
    CHECK(rmdir("private"));
    CHECK(syscall(SYS_rmdir, 8));

    SECTION("a removed working directory");
    char buf[64];
    MUST(mkdir("gone-soon", 0755));
    int parent = (int)MUST(open(".", O_RDONLY));
    MUST(chdir("gone-soon"));
    CHECK(rmdir("../gone-soon"));
    SHOW(syscall(SYS_getcwd, buf, sizeof buf));
    say("%s", guest_errno_name(errno));
    CHECK(open("x", O_CREAT | O_WRONLY, 0600));
    CHECK(mkdir("x", 0700));
    CHECK(chdir("."));
    MUST(fchdir(parent));

    SECTION("mknod");
    CHECK(mknod("regular", S_IFREG | 0640, 0));
    show_mode("regular");
    CHECK(mknod("untyped", 0600, 0));
    show_mode("untyped");
    CHECK(mknod("fifo", S_IFIFO | 0666, 0));
    show_mode("fifo");
    CHECK(mknod("socket", S_IFSOCK | 0666, 0));
    show_mode("socket");
    CHECK(mknod("file", S_IFREG | 0600, 0));
    CHECK(mknod("dir2", S_IFDIR | 0600, 0));
    CHECK(mknod("odd", 0170000 | 0600, 0));
    CHECK(open("socket", O_RDONLY));
    MUST(chmod(".", 0777));
    in_child("devices", node);
    return 0;
}
