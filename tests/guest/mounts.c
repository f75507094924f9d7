/* mount(2), umount2(2), pivot_root(2): places that can't be mounted, or on: gone, detached, nameless. */
#include "guest.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mount.h>

static const char *path_of(int fd)
{
    static char paths[2][64];
    static int turn;
    char *path = paths[turn ^= 1];
    snprintf(path, sizeof paths[0], "/proc/self/fd/%d", fd);
    return path;
}

static void every_way(const char *at)
{
    CHECK(mount(at, "m/file", NULL, MS_BIND, NULL));
    CHECK(mount(at, "m/dir", NULL, MS_MOVE, NULL));
    CHECK(mount("m/file", at, NULL, MS_BIND, NULL));
    CHECK(mount("m/dir", at, NULL, MS_BIND, NULL));
    CHECK(mount("none", at, "tmpfs", 0, NULL));
    CHECK(mount("none", at, "nonsense", 0, NULL));
    CHECK(mount("", at, NULL, MS_REMOUNT, NULL));
    CHECK(mount("", at, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    CHECK(mount("", at, NULL, MS_PRIVATE, NULL));
    CHECK(umount2(at, 0));
    CHECK(umount2(at, MNT_DETACH));
}

static void nameless(void)
{
    SECTION("what no path leads to");
    int ends[2];
    MUST(pipe(ends));
    every_way(path_of((int)MUST(eventfd(0, 0))));
    every_way(path_of(ends[0]));
    every_way(path_of((int)MUST(memfd_create("memory", 0))));
}

static void gone(void)
{
    SECTION("what was removed");
    MUST(mkdir("m/gone", 0755));
    put_file("m/gone-too", "");
    int dir = (int)MUST(open("m/gone", O_RDONLY)), file = (int)MUST(open("m/gone-too", O_RDONLY));
    MUST(rmdir("m/gone"));
    MUST(unlink("m/gone-too"));
    every_way(path_of(dir));
    every_way(path_of(file));
    CHECK(mount(path_of(dir), "m/dir", NULL, MS_BIND, NULL));
    CHECK(mount(path_of(file), "m/dir", NULL, MS_BIND, NULL));
}

static void detached(void)
{
    SECTION("what was detached");
    MUST(mkdir("m/top", 0755));
    MUST(mount("none", "m/top", "tmpfs", 0, NULL));
    MUST(mkdir("m/top/inside", 0755));
    int top = (int)MUST(open("m/top", O_RDONLY)), inside = (int)MUST(open("m/top/inside", O_RDONLY));
    CHECK(umount2("m/top", 0));
    CHECK(umount2("m/top", MNT_DETACH));
    every_way(path_of(top));
    every_way(path_of(inside));
    CHECK(mount(path_of(top), "m/dir", NULL, MS_BIND, NULL));
    CHECK(mount(path_of(inside), "m/dir", NULL, MS_BIND, NULL));
    CHECK(mkdirat(top, "new", 0755));
    CHECK(syscall(SYS_pivot_root, path_of(top), path_of(inside)));
    CHECK(syscall(SYS_pivot_root, "m", path_of(inside)));
    CHECK(syscall(SYS_pivot_root, "m", "m/file"));
}

int main(void)
{
    SECTION("one's own mounts");
    unshare(CLONE_NEWNS);       /* natively: what follows is to be seen by nobody */
    if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1) {
        skip("mounting needs CAP_SYS_ADMIN");
        return 0;
    }
    MUST(mkdir("m", 0755));
    MUST(mount("none", "m", "tmpfs", 0, NULL));
    MUST(mkdir("m/dir", 0755));
    put_file("m/file", "");
    nameless();
    gone();
    detached();
    CHECK(umount2("m", MNT_DETACH));
    return 0;
}
