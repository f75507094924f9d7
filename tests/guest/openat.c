/* openat(2), openat2(2) and the *at calls' dirfd rules; fchmodat, faccessat, unlinkat, mkdirat. */
#include "guest.h"
#include <linux/openat2.h>

static long try_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve,
                        size_t size)
{
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    long fd = syscall(SYS_openat2, dirfd, path, &how, size);
    if (fd >= 0)
        close((int)fd);
    return fd >= 0 ? 0 : fd;
}

int main(void)
{
    MUST(mkdir("dir", 0755));
    MUST(mkdir("dir/sub", 0755));
    put_file("dir/file", "inside");
    put_file("outside", "outside");
    MUST(symlink("../outside", "dir/up"));
    MUST(symlink("/etc", "dir/absolute"));
    MUST(symlink("file", "dir/link"));
    int dir = (int)MUST(open("dir", O_RDONLY | O_DIRECTORY));
    int file = (int)MUST(open("outside", O_RDONLY));
    int path = (int)MUST(open("dir", O_PATH));

    SECTION("dirfd");
    SHOW(openat(dir, "file", O_RDONLY) >= 0);
    SHOW(openat(path, "file", O_RDONLY) >= 0);
    SHOW(openat(AT_FDCWD, "outside", O_RDONLY) >= 0);
    SHOW(openat(999, "/dev/null", O_RDONLY) >= 0);
    CHECK(openat(999, "file", O_RDONLY));
    CHECK(openat(-1, "file", O_RDONLY));
    CHECK(openat(file, "file", O_RDONLY));
    CHECK(openat(file, "", O_RDONLY));
    CHECK(openat(dir, "", O_RDONLY));
    CHECK(openat(dir, "outside", O_RDONLY));
    SHOW(openat(dir, "../outside", O_RDONLY) >= 0);

    SECTION("other calls");
    CHECK(mkdirat(dir, "made", 0700));
    CHECK(mkdirat(dir, "made", 0700));
    CHECK(unlinkat(dir, "made", 0));
    CHECK(unlinkat(dir, "made", AT_REMOVEDIR));
    CHECK(unlinkat(dir, "file", AT_REMOVEDIR));
    CHECK(unlinkat(dir, "file", 0x1000000));
    CHECK(unlinkat(999, "file", 0));
    CHECK(faccessat(dir, "file", R_OK, 0));
    CHECK(faccessat(dir, "absent", R_OK, 0));
    CHECK(fchmodat(dir, "file", 0600, 0));
    CHECK(symlinkat("file", dir, "second"));
    CHECK(linkat(dir, "file", dir, "hard", 0));
    CHECK(renameat(dir, "hard", AT_FDCWD, "moved"));
    show_file("moved");
    CHECK(unlinkat(AT_FDCWD, "moved", 0));
    CHECK(mknodat(dir, "fifo", S_IFIFO | 0600, 0));

    SECTION("openat2");
    size_t size = sizeof(struct open_how);
    CHECK(try_openat2(dir, "file", O_RDONLY, 0, 0, size));
    CHECK(try_openat2(dir, "file", O_RDONLY, 0600, 0, size));
    CHECK(try_openat2(dir, "new", O_RDWR | O_CREAT, 0600, 0, size));
    CHECK(try_openat2(dir, "new", O_RDWR | O_CREAT, 0200000, 0, size));
    CHECK(try_openat2(dir, "file", 1ULL << 40, 0, 0, size));
    CHECK(try_openat2(dir, "file", O_RDONLY, 0, 0, 8));
    CHECK(try_openat2(dir, "file", O_RDONLY, 0, 1 << 20, size));
    CHECK(try_openat2(dir, "../outside", O_RDONLY, 0, RESOLVE_BENEATH, size));
    CHECK(try_openat2(dir, "up", O_RDONLY, 0, RESOLVE_BENEATH, size));
    CHECK(try_openat2(dir, "absolute", O_RDONLY, 0, RESOLVE_BENEATH, size));
    CHECK(try_openat2(dir, "/etc", O_RDONLY, 0, RESOLVE_BENEATH, size));
    CHECK(try_openat2(dir, "sub/../file", O_RDONLY, 0, RESOLVE_BENEATH, size));
    CHECK(try_openat2(dir, "link", O_RDONLY, 0, RESOLVE_BENEATH, size));
    CHECK(try_openat2(dir, "link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS, size));
    CHECK(try_openat2(dir, "file", O_RDONLY, 0, RESOLVE_NO_SYMLINKS, size));
    CHECK(try_openat2(dir, "/file", O_RDONLY, 0, RESOLVE_IN_ROOT, size));
    CHECK(try_openat2(dir, "../../file", O_RDONLY, 0, RESOLVE_IN_ROOT, size));
    CHECK(try_openat2(dir, "up", O_RDONLY, 0, RESOLVE_IN_ROOT, size));
    CHECK(try_openat2(dir, "/proc/self/exe", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS, size));
    CHECK(syscall(SYS_openat2, dir, "file", 8, size));
    return 0;
}
