/* access(2), faccessat, faccessat2: real and effective ids, modes, errors. */
#include "guest.h"

static void ordinary(void)
{
    become_ordinary();
    CHECK(access("readable", R_OK));
    CHECK(access("readable", W_OK));
    CHECK(access("readable", X_OK));
    CHECK(access("executable", R_OK));
    CHECK(access("executable", X_OK));
    CHECK(access("executable", R_OK | X_OK));
    CHECK(access("nothing", F_OK));
    CHECK(access("nothing", R_OK));
    CHECK(access("closed/file", F_OK));
    CHECK(access("/", W_OK));
    CHECK(access("/etc/passwd", R_OK));
    CHECK(access("/etc/passwd", W_OK));
}

int main(void)
{
    put_file("readable", "x");
    MUST(chmod("readable", 0444));
    put_file("executable", "x");
    MUST(chmod("executable", 0111));
    put_file("nothing", "x");
    MUST(chmod("nothing", 0));
    MUST(mkdir("closed", 0755));
    put_file("closed/file", "x");
    MUST(chmod("closed", 0));
    MUST(chmod(".", 0755));

    SECTION("ordinary user");
    in_child("ordinary", ordinary);

    SECTION("errors");
    CHECK(access("absent", F_OK));
    CHECK(access("absent", 8));
    CHECK(access("readable", 8));
    CHECK(access("readable", -1));
    CHECK(access("readable/x", F_OK));
    CHECK(access("readable/", F_OK));
    CHECK(access("", F_OK));
    CHECK(syscall(SYS_access, 8, F_OK));
    CHECK(syscall(SYS_faccessat, 999, "readable", F_OK));

    SECTION("faccessat2");
    MUST(symlink("gone", "dangling"));
    CHECK(syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, 0));
    CHECK(syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    CHECK(syscall(SYS_faccessat2, AT_FDCWD, "readable", R_OK, AT_EACCESS));
    CHECK(syscall(SYS_faccessat2, AT_FDCWD, "", R_OK, AT_EMPTY_PATH));
    CHECK(syscall(SYS_faccessat2, AT_FDCWD, "readable", R_OK, 1));

    if (geteuid() == 0) {
        SECTION("root");
        CHECK(access("nothing", R_OK | W_OK));
        CHECK(access("nothing", X_OK));
        CHECK(access("executable", X_OK));
        CHECK(access("closed/file", F_OK));
        CHECK(access("closed", X_OK));
        SECTION("effective root, real user");
        MUST(setresuid(NOBODY, 0, 0));
        CHECK(access("nothing", R_OK));
        CHECK(syscall(SYS_faccessat2, AT_FDCWD, "nothing", R_OK, AT_EACCESS));
    }
    return 0;
}
