/* rename(2), renameat2: files, directories, replacement, RENAME_NOREPLACE and _EXCHANGE, errors. */
#include "guest.h"

static void files(void)
{
    SECTION("files");
    put_file("a", "contents of a");
    put_file("b", "contents of b");
    CHECK(rename("a", "c"));
    show_file("a");
    show_file("c");
    CHECK(rename("c", "b"));
    show_file("b");
    MUST(link("b", "hard"));
    CHECK(rename("b", "hard"));
    CHECK(access("b", F_OK));
    CHECK(access("hard", F_OK));
    CHECK(rename("b", "b"));
    int fd = (int)MUST(open("b", O_RDONLY));
    put_file("new", "replacement");
    CHECK(rename("new", "b"));
    char buf[16];
    CHECK(read(fd, buf, sizeof buf));
    show_bytes("still open", buf, 13);
    show_file("b");
    MUST(symlink("b", "link"));
    CHECK(rename("link", "moved-link"));
    CHECK(readlink("moved-link", buf, sizeof buf));
    show_file("moved-link");
}

static void directories(void)
{
    SECTION("directories");
    MUST(mkdir("dir", 0755));
    MUST(mkdir("dir/sub", 0755));
    put_file("dir/sub/file", "deep");
    MUST(mkdir("empty", 0755));
    MUST(mkdir("full", 0755));
    put_file("full/file", "x");
    CHECK(rename("dir", "moved"));
    show_file("moved/sub/file");
    CHECK(rename("moved", "empty"));
    show_file("empty/sub/file");
    CHECK(rename("empty", "full"));
    CHECK(rename("empty", "b"));
    CHECK(rename("b", "empty"));
    CHECK(rename("empty", "empty/sub/inside"));
    CHECK(rename("empty", "empty/inside"));
    CHECK(rename("empty/sub", "empty"));
    CHECK(rename("empty/sub", "lifted"));
    show_file("lifted/file");
    CHECK(rename("lifted/", "again/"));
    show_file("again/file");
    CHECK(rename("b", "newname/"));
    CHECK(rename("b/", "newname"));
    CHECK(rename(".", "dot"));
    CHECK(rename("again/..", "dot"));
    CHECK(rename("b", "again/."));
    CHECK(rename("absent", "x"));
    CHECK(rename("b", "absent/x"));
    CHECK(rename("b/x", "y"));
    CHECK(rename("", "y"));
    CHECK(rename("b", ""));
    CHECK(syscall(SYS_rename, 8, "y"));
    CHECK(syscall(SYS_rename, "b", 8));
}

static void cwd_follows(void)
{
    SECTION("the working directory moves along");
    char cwd[PATH_MAX];
    MUST(mkdir("here", 0755));
    MUST(chdir("here"));
    CHECK(rename("../here", "../there"));
    MUST((long)getcwd(cwd, sizeof cwd));
    say("%s", strrchr(cwd, '/') + 1);
    put_file("file", "in there");
    MUST(chdir(".."));
    show_file("there/file");
}

static void flags(void)
{
    SECTION("renameat2");
    put_file("one", "1");
    put_file("two", "2");
    MUST(mkdir("d", 0755));
    CHECK(renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_NOREPLACE));
    CHECK(renameat2(AT_FDCWD, "one", AT_FDCWD, "three", RENAME_NOREPLACE));
    CHECK(renameat2(AT_FDCWD, "three", AT_FDCWD, "two", RENAME_EXCHANGE));
    show_file("two");
    show_file("three");
    CHECK(renameat2(AT_FDCWD, "three", AT_FDCWD, "d", RENAME_EXCHANGE));
    show_file("d");
    CHECK(renameat2(AT_FDCWD, "two", AT_FDCWD, "absent", RENAME_EXCHANGE));
    CHECK(renameat2(AT_FDCWD, "two", AT_FDCWD, "x", RENAME_NOREPLACE | RENAME_EXCHANGE));
    CHECK(renameat2(AT_FDCWD, "two", AT_FDCWD, "x", 1 << 5));
    CHECK(renameat2(999, "two", AT_FDCWD, "x", 0));
}

int main(void)
{
    files();
    directories();
    cwd_follows();
    flags();
    return 0;
}
