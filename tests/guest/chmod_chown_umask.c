/* chmod(2), fchmod, fchmodat, fchmodat2, chown(2) and its family, umask(2). */
#include "guest.h"

static void show_mode(const char *path)
{
    struct stat st;
    MUST(lstat(path, &st));
    say("%s: %o", path, st.st_mode);
}

static void others(void)
{
    become_ordinary();
    CHECK(chmod("/", 0755));
    CHECK(chown("/", 0, 0));
    CHECK(chown("/etc/passwd", -1, -1));
    CHECK(chmod("/etc/passwd", 0644));
    CHECK(chown("absent", -1, -1));
}

static void own(void)
{
    SECTION("an owner");
    become_ordinary();
    put_file("mine", "x");
    uid_t uid = getuid();
    gid_t gid = getgid();
    CHECK(chown("mine", uid, gid));
    CHECK(chown("mine", -1, gid));
    CHECK(chown("mine", uid + 1, -1));
    CHECK(chown("mine", -1, gid + 1));
    CHECK(chmod("mine", 06755));
    show_mode("mine");
    CHECK(chown("mine", -1, gid));
    show_mode("mine");
    CHECK(chmod("mine", 06711));
    int fd = (int)MUST(open("mine", O_WRONLY));
    MUST(write(fd, "y", 1));
    show_mode("mine");
    MUST(ftruncate(fd, 0));
    show_mode("mine");
    CHECK(chmod("mine", 02644));
    CHECK(chown("mine", -1, gid));
    show_mode("mine");
}

int main(void)
{
    SECTION("chmod");
    put_file("file", "x");
    MUST(symlink("file", "link"));
    MUST(mkdir("dir", 0755));
    CHECK(chmod("file", 0600));
    show_mode("file");
    CHECK(chmod("file", 07777));
    show_mode("file");
    CHECK(chmod("file", 0));
    show_mode("file");
    CHECK(chmod("file", 0100644));
    show_mode("file");
    CHECK(chmod("link", 0640));
    show_mode("file");
    CHECK(chmod("dir", 01750));
    show_mode("dir");
    int fd = (int)MUST(open("file", O_RDONLY));
    CHECK(fchmod(fd, 0611));
    show_mode("file");
    CHECK(fchmod(MUST(open("file", O_PATH)), 0600));
    CHECK(fchmod(999, 0600));
    CHECK(chmod("absent", 0600));
    CHECK(chmod("file/", 0600));
    CHECK(chmod("", 0600));
    CHECK(syscall(SYS_chmod, 8, 0600));
    CHECK(syscall(SYS_fchmodat, AT_FDCWD, "file", 0644));
    CHECK(syscall(SYS_fchmodat, 999, "file", 0644));

    SECTION("chown");
    uid_t uid = getuid();
    gid_t gid = getgid();
    CHECK(chown("file", uid, gid));
    CHECK(lchown("link", uid, gid));
    CHECK(fchown(fd, uid, gid));
    CHECK(fchownat(AT_FDCWD, "link", uid, gid, AT_SYMLINK_NOFOLLOW));
    CHECK(fchownat(fd, "", uid, gid, AT_EMPTY_PATH));
    CHECK(fchownat(fd, "", uid, gid, 0));
    CHECK(fchownat(fd, "", uid, gid, 0x20000));
    CHECK(chown("absent", uid, gid));
    CHECK(fchown(999, uid, gid));
    CHECK(syscall(SYS_chown, 8, uid, gid));
    in_child("others", others);

    SECTION("umask");
    SHOW(umask(0137));
    SHOW(umask(07777));
    SHOW(umask(022));
    umask(0137);
    close((int)MUST(open("masked", O_CREAT | O_WRONLY, 0777)));
    show_mode("masked");
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        say("inherited %o", umask(0));
        _exit(0);
    }
    reap("child", pid);
    umask(022);

    MUST(chmod(".", 0777));
    in_child("owner", own);
    return 0;
}
