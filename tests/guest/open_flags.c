/* open(2) and creat(2): creation, exclusive, truncation, directories, links, umask and errors. */
#include "guest.h"

static int try_open(const char *path, int flags, mode_t mode)
{
    int fd = open(path, flags, mode);
    if (fd != -1)
        close(fd);
    return fd == -1 ? -1 : 0;
}

static void creation(void)
{
    SECTION("creation");
    struct stat st;
    umask(027);
    CHECK(try_open("absent", O_RDONLY, 0));
    CHECK(try_open("new", O_WRONLY | O_CREAT, 0666));
    MUST(stat("new", &st));
    say("mode %o", st.st_mode);
    CHECK(try_open("new", O_WRONLY | O_CREAT | O_EXCL, 0666));
    CHECK(try_open("readonly", O_RDWR | O_CREAT, 0400));
    MUST(stat("readonly", &st));
    say("mode %o", st.st_mode);
    CHECK(try_open("sticky", O_RDWR | O_CREAT, 07777));
    MUST(stat("sticky", &st));
    say("mode %o", st.st_mode);
    CHECK(creat("new", 0600) >= 0);
    umask(022);
}

static void truncation(void)
{
    SECTION("truncation");
    put_file("file", "contents");
    CHECK(try_open("file", O_RDONLY, 0));
    show_file("file");
    CHECK(try_open("file", O_WRONLY | O_TRUNC, 0));
    show_file("file");
    put_file("file", "contents");
    CHECK(try_open("file", O_CREAT | O_TRUNC | O_RDWR, 0));
    show_file("file");
}

static void directories(void)
{
    SECTION("directories");
    MUST(mkdir("dir", 0755));
    put_file("file", "x");
    CHECK(try_open("dir", O_RDONLY, 0));
    CHECK(try_open("dir", O_WRONLY, 0));
    CHECK(try_open("dir", O_RDWR, 0));
    CHECK(try_open("dir", O_RDONLY | O_CREAT, 0600));
    CHECK(try_open("dir", O_RDONLY | O_CREAT | O_EXCL, 0600));
    CHECK(try_open("dir", O_RDONLY | O_DIRECTORY, 0));
    CHECK(try_open("dir", O_WRONLY | O_DIRECTORY, 0));
    CHECK(try_open("file", O_RDONLY | O_DIRECTORY, 0));
    CHECK(try_open("absent", O_RDONLY | O_DIRECTORY, 0));
    CHECK(try_open("dir/", O_RDONLY, 0));
    CHECK(try_open("file/", O_RDONLY, 0));
    CHECK(try_open("new/", O_RDONLY | O_CREAT, 0600));
    CHECK(try_open("file/x", O_RDONLY, 0));
    CHECK(try_open("absent/x", O_RDONLY | O_CREAT, 0600));
    CHECK(try_open("dir/.", O_RDONLY, 0));
    CHECK(try_open("dir/../file", O_RDONLY, 0));
    CHECK(try_open("dir//..//./file", O_RDONLY, 0));
    CHECK(try_open("", O_RDONLY, 0));
    CHECK(try_open("/../../..", O_RDONLY, 0));
}

static void links(void)
{
    SECTION("symbolic links");
    put_file("target", "target");
    MUST(symlink("target", "link"));
    MUST(symlink("nowhere", "dangling"));
    MUST(symlink("loop2", "loop1"));
    MUST(symlink("loop1", "loop2"));
    CHECK(try_open("link", O_RDONLY, 0));
    CHECK(try_open("link", O_RDONLY | O_NOFOLLOW, 0));
    CHECK(try_open("link", O_PATH | O_NOFOLLOW, 0));
    CHECK(try_open("link", O_RDONLY | O_NOFOLLOW | O_DIRECTORY, 0));
    CHECK(try_open("dangling", O_RDONLY, 0));
    CHECK(try_open("dangling", O_WRONLY | O_CREAT | O_EXCL, 0600));
    CHECK(try_open("dangling", O_WRONLY | O_CREAT, 0600));
    CHECK(access("nowhere", F_OK));
    CHECK(try_open("loop1", O_RDONLY, 0));
    CHECK(try_open("link/", O_RDONLY, 0));
}

static void names(void)
{
    SECTION("long names");
    static char name[5000];
    memset(name, 'a', sizeof name);
    name[255] = 0;
    CHECK(try_open(name, O_RDWR | O_CREAT, 0600));
    CHECK(unlink(name) == 0);
    name[255] = 'a';
    name[256] = 0;
    say("256: %d %s", open(name, O_RDWR | O_CREAT, 0600), guest_errno_name(errno));
    name[256] = 'a';
    for (int i = 0; i < 4096; i += 2) {
        name[i] = '.';
        name[i + 1] = '/';
    }
    name[4094] = '.';
    name[4095] = 0;
    say("4095: %d", try_open(name, O_RDONLY, 0));
    name[4095] = '/';
    name[4096] = 0;
    say("4096: %d %s", try_open(name, O_RDONLY, 0), guest_errno_name(errno));
}

static void flags(void)
{
    SECTION("flags seen by fcntl");
    static const struct { const char *name; int flags; } table[] = {
        {"O_RDONLY", O_RDONLY}, {"O_WRONLY", O_WRONLY}, {"O_RDWR", O_RDWR},
        {"O_APPEND", O_RDWR | O_APPEND}, {"O_NONBLOCK", O_RDWR | O_NONBLOCK},
        {"O_CLOEXEC", O_RDWR | O_CLOEXEC}, {"O_SYNC", O_RDWR | O_SYNC},
        {"O_DSYNC", O_RDWR | O_DSYNC}, {"O_PATH", O_PATH}, {"O_PATH|O_RDWR", O_PATH | O_RDWR},
        {"O_NOCTTY", O_RDWR | O_NOCTTY}, {"O_CREAT|O_TRUNC", O_RDWR | O_CREAT | O_TRUNC},
        {"O_NOFOLLOW", O_RDONLY | O_NOFOLLOW}, {"accmode 3", 3},
    };
    put_file("file", "x");
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        int fd = (int)syscall(SYS_open, "file", table[i].flags, 0600);
        say("%s: fl %#o fd %d", table[i].name, (unsigned)fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
        close(fd);
    }
    CHECK(syscall(SYS_open, 8, O_RDONLY));
    CHECK(syscall(SYS_open, "file", O_TMPFILE | O_RDONLY, 0600));
}

static void tmpfile_flag(void)
{
    SECTION("O_TMPFILE");
    struct stat st;
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd == -1 && errno == EOPNOTSUPP) {
        skip("the file system has no O_TMPFILE");
        return;
    }
    SHOW(fd >= 0);
    CHECK(write(fd, "hidden", 6));
    MUST(fstat(fd, &st));
    say("mode %o nlink %ld size %ld", st.st_mode, (long)st.st_nlink, (long)st.st_size);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, path, AT_FDCWD, "visible", AT_SYMLINK_FOLLOW));
    show_file("visible");
    CHECK(open("absent", O_TMPFILE | O_RDWR, 0600));
    CHECK(open("file", O_TMPFILE | O_RDWR, 0600));
}

static void permissions(void)
{
    CHECK(try_open("secret", O_RDONLY, 0));
    CHECK(try_open("secret", O_WRONLY, 0));
    CHECK(try_open("public", O_RDONLY, 0));
    CHECK(try_open("public", O_WRONLY, 0));
    CHECK(try_open("closed/file", O_RDONLY, 0));
    CHECK(try_open("listed", O_RDONLY, 0));
    CHECK(try_open("listed/new", O_RDWR | O_CREAT, 0600));
}

int main(void)
{
    creation();
    truncation();
    directories();
    links();
    names();
    flags();
    tmpfile_flag();
    SECTION("permissions");
    put_file("secret", "s");
    put_file("public", "p");
    MUST(mkdir("closed", 0700));
    put_file("closed/file", "x");
    MUST(mkdir("listed", 0755));
    MUST(chmod("secret", 0000));
    MUST(chmod("public", 0444));
    MUST(chmod("closed", 0600));
    MUST(chmod("listed", 0555));
    MUST(chmod(".", 0755));
    if (geteuid() == 0) {
        become_ordinary();
    }
    permissions();
    return 0;
}
