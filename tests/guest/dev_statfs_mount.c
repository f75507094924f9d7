/* Devices (null, zero, full, random, tty), statfs(2), mount(2) and its family as an ordinary user. */
#include "guest.h"
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

static char buf[8192];

static void device(const char *path)
{
    struct stat st;
    if (stat(path, &st) == -1) {
        say("%s: %s", path, guest_errno_name(errno));
        return;
    }
    say("%s: type %o %u:%u", path, st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
}

static void devices(void)
{
    SECTION("devices");
    static const char *const paths[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                        "/dev/urandom", "/dev/tty"};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        device(paths[i]);
    int null = (int)MUST(open("/dev/null", O_RDWR)), zero = (int)MUST(open("/dev/zero", O_RDWR));
    int full = (int)MUST(open("/dev/full", O_RDWR)), random = (int)MUST(open("/dev/urandom", O_RDWR));
    CHECK(read(null, buf, 10));
    CHECK(write(null, buf, sizeof buf));
    memset(buf, 'x', sizeof buf);
    CHECK(read(zero, buf, sizeof buf));
    SHOW(buf[0] | buf[sizeof buf - 1]);
    CHECK(write(zero, buf, 100));
    CHECK(read(full, buf, 10));
    CHECK(write(full, buf, 10));
    CHECK(write(full, buf, 0));
    CHECK(read(random, buf, 100));
    unsigned char different = 0;
    for (int i = 1; i < 100; i++)
        different |= (unsigned char)(buf[i] ^ buf[0]);
    SHOW(different != 0);
    CHECK(write(random, buf, 10));
    CHECK(pread(zero, buf, 10, 1000));
    CHECK(pwrite(null, buf, 10, 1000));
    CHECK(ftruncate(null, 0));
    CHECK(read(zero, (void *)8, 10));
    CHECK(write(null, (void *)8, 10));
    CHECK(read(random, (void *)8, 10));
    CHECK(open("/dev/null", O_RDONLY | O_DIRECTORY));
    CHECK(open("/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0600) >= 0);
    CHECK(open("/dev/absent", O_RDONLY));
    device("/dev/stdin");
    memset(buf, 0, sizeof buf);
    SHOW(readlink("/dev/fd", buf, sizeof buf) > 0);
    say("%s", buf);
    SHOW(access("/dev/shm", W_OK));
    SHOW(access("/dev/pts", F_OK));
    SHOW(access("/dev/ptmx", F_OK));
}

static void file_systems(void)
{
    SECTION("statfs");
    struct statfs fs;
    struct statvfs vfs;
    put_file("file", "x");
    CHECK(statfs("file", &fs));
    SHOW(fs.f_bsize > 0 && fs.f_namelen > 0 && fs.f_blocks >= fs.f_bfree);
    SHOW(fs.f_namelen);
    CHECK(statfs("/proc", &fs));
    SHOW(fs.f_type == PROC_SUPER_MAGIC);
    CHECK(statfs("/dev/shm", &fs));
    SHOW(fs.f_type == TMPFS_MAGIC);
    int fds[2];
    MUST(pipe(fds));
    CHECK(fstatfs(fds[0], &fs));
    SHOW(fs.f_type == PIPEFS_MAGIC);
    CHECK(fstatfs(MUST(open(".", O_RDONLY)), &fs));
    CHECK(statvfs(".", &vfs));
    CHECK(statfs("absent", &fs));
    CHECK(fstatfs(999, &fs));
    CHECK(syscall(SYS_statfs, 8, &fs));
    CHECK(syscall(SYS_statfs, ".", 8));
    CHECK(syscall(SYS_ustat, 0, buf));
}

static void ordinary(void)
{
    become_ordinary();
    CHECK(mount("none", "dir", "tmpfs", 0, NULL));
    CHECK(mount("/", "dir", NULL, MS_BIND, NULL));
    CHECK(umount("dir"));
    CHECK(umount2("/", MNT_DETACH));
    CHECK(umount2("dir", 0x1000));
    CHECK(syscall(SYS_pivot_root, ".", "dir"));
    CHECK(sethostname("name", 4));
    CHECK(setdomainname("name", 4));
    CHECK(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL));
    CHECK(syscall(SYS_vhangup));
    CHECK(setns(999, 0));
    CHECK(setns(0, 0));
    CHECK(syscall(SYS_syslog, 10, NULL, 0) >= 0 || errno == EPERM);
}

int main(void)
{
    MUST(mkdir("dir", 0777));
    devices();
    file_systems();
    SECTION("ordinary user");
    MUST(chmod(".", 0755));
    in_child("ordinary", ordinary);
    return 0;
}
