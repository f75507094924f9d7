/* Every way out of a tree of files that is known, tried in a sandbox with a root of its own.
 *
 * Interface: paths_escape OUTSIDE. The root has `marker`; /bound is a directory of the host's, writable;
 * /readable is another one beside it, read-only, with `file`; OUTSIDE is the host's path of a directory
 * beside these, which has `secret`. One line for each attempt: what it was and its errno, or `ok`.
 * A line with ESCAPED says that it led to something outside. */
#include "../guest/guest.h"

#include <linux/fs.h>
#include <linux/mount.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

static char outside[PATH_MAX];

/* Descriptors from 3 on that an attempt leaves open, for others to use; all more are closed after it. */
static unsigned kept;

#define TRY(name, call) attempt(name, (errno = 0, (long)(call)))

static long attempt(const char *name, long value)
{
    say("%s: %s", name, value == -1 ? guest_errno_name(errno) : "ok");
    close_range(3 + kept, ~0U, 0);
    return value;
}

static int keep(int fd)
{
    MUST(fd);
    if (fd != (int)(3 + kept++))
        say("descriptor %d is not the next one", fd);
    return fd;
}

static void drop(int fd)
{
    close(fd);
    kept--;
}

/* Can the secret be reached from here, by its own path or upwards? */
static void look(const char *where)
{
    static const char *const bases[] = {"", "/..", "/proc/self/root", "/proc/self/root/..", "/proc/1/root",
                                        "/proc/self/cwd", "/bound/..", "."};
    char path[2 * PATH_MAX];
    for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
        snprintf(path, sizeof path, "%s%s/secret", bases[i], outside);
        if (open(path, O_RDONLY) != -1)
            say("%s: ESCAPED through %s", where, path);
    }
    strcpy(path, "");
    for (int depth = 0; depth < 40; depth++) {
        strcat(path, "../");
        char target[2 * PATH_MAX + 8];
        snprintf(target, sizeof target, "%s%s/secret", path, outside + 1);
        if (open(target, O_RDONLY) != -1)
            say("%s: ESCAPED through %s", where, target);
    }
    snprintf(path, sizeof path, "%s/secret", strrchr(outside, '/') + 1);
    char beside[PATH_MAX + 4];
    snprintf(beside, sizeof beside, "../%.4000s", path);
    if (open(beside, O_RDONLY) != -1)
        say("%s: ESCAPED through %s", where, beside);
}

static void up_and_links(void)
{
    SECTION("up and links");
    static const char *const places[] = {"/", "/bound", "/bound/dir", "/readable", "/tmp"};
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        MUST(chdir(places[i]));
        look(places[i]);
    }
    MUST(chdir("/bound"));
    TRY("absolute link of the host's", open("/bound/absolute", O_RDONLY));
    TRY("relative link of the host's", open("/bound/relative", O_RDONLY));
    TRY("link to a directory of the host's", open("/bound/directory/secret", O_RDONLY));
    TRY("write through a link of the host's", open("/bound/new-absolute", O_WRONLY | O_CREAT, 0644));
    TRY("mkdir through a link of the host's", mkdir("/bound/directory/new", 0755));
    TRY("chmod through a link of the host's", chmod("/bound/relative", 0777));
    char text[PATH_MAX + 8];
    snprintf(text, sizeof text, "%.4000s/secret", outside);
    MUST(symlink(text, "/bound/mine"));
    TRY("a link of one's own", open("/bound/mine", O_RDONLY));
    TRY("truncate through it", truncate("/bound/mine", 0));
    MUST(unlink("/bound/mine"));
}

static void hard_links(void)
{
    SECTION("hard links");
    TRY("link from a read-only bind", link("/readable/file", "/bound/file2"));
    TRY("link from the root", link("/marker", "/bound/file2"));
    int fd = keep(open("/readable/file", O_PATH));
    TRY("linkat of O_PATH", linkat(fd, "", AT_FDCWD, "/bound/file2", AT_EMPTY_PATH));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    TRY("linkat through /proc", linkat(AT_FDCWD, path, AT_FDCWD, "/bound/file2", AT_SYMLINK_FOLLOW));
    TRY("rename from a read-only bind", rename("/readable/file", "/bound/file2"));
    TRY("rename to a read-only bind", rename("/bound/file", "/readable/file2"));
    TRY("exchange with a read-only bind",
        syscall(SYS_renameat2, AT_FDCWD, "/bound/file", AT_FDCWD, "/readable/file", RENAME_EXCHANGE));
    drop(fd);
}

static void read_only(void)
{
    SECTION("read-only");
    int fd = keep(open("/readable/file", O_RDONLY));
    int pinned = keep(open("/readable/file", O_PATH));
    char path[64], pinned_path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    snprintf(pinned_path, sizeof pinned_path, "/proc/self/fd/%d", pinned);
    TRY("open for writing", open("/readable/file", O_WRONLY));
    TRY("reopen for writing", open(path, O_RDWR));
    TRY("reopen O_PATH for writing", open(pinned_path, O_RDWR));
    TRY("reopen with O_TRUNC", open(path, O_RDONLY | O_TRUNC));
    TRY("create", open("/readable/new", O_WRONLY | O_CREAT, 0644));
    TRY("O_TMPFILE", open("/readable", O_TMPFILE | O_RDWR, 0600));
    TRY("truncate", truncate("/readable/file", 0));
    TRY("ftruncate", ftruncate(fd, 0));
    TRY("fallocate", fallocate(fd, 0, 0, 100));
    TRY("write", write(fd, "x", 1));
    TRY("chmod", chmod("/readable/file", 0777));
    TRY("fchmod", fchmod(fd, 0777));
    TRY("chmod through /proc", chmod(path, 0777));
    TRY("chown", chown("/readable/file", 0, 0));
    TRY("fchownat of O_PATH", fchownat(pinned, "", 0, 0, AT_EMPTY_PATH));
    TRY("utimensat", utimensat(AT_FDCWD, "/readable/file", NULL, 0));
    TRY("futimens", futimens(fd, NULL));
    TRY("setxattr", setxattr("/readable/file", "user.x", "y", 1, 0));
    TRY("fsetxattr", fsetxattr(fd, "user.x", "y", 1, 0));
    TRY("unlink", unlink("/readable/file"));
    TRY("mkdir", mkdir("/readable/new", 0755));
    TRY("rmdir", rmdir("/readable/empty"));
    TRY("symlink", symlink("x", "/readable/new"));
    TRY("mknod", mknod("/readable/new", S_IFIFO | 0600, 0));
    TRY("rename", rename("/readable/file", "/readable/new"));
    TRY("link", link("/readable/file", "/readable/new"));
    int attributes = 0;
    TRY("FS_IOC_SETFLAGS", ioctl(fd, FS_IOC_SETFLAGS, &attributes));
    TRY("shared mapping", mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char *mapped = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    MUST((long)mapped);
    TRY("mprotect of a shared mapping", mprotect(mapped, PAGE, PROT_READ | PROT_WRITE));
    int source = keep(open("/marker", O_RDONLY));
    TRY("copy_file_range", copy_file_range(source, NULL, fd, NULL, 4, 0));
    TRY("FICLONE", ioctl(fd, FICLONE, source));
    TRY("remount", mount(NULL, "/readable", NULL, MS_REMOUNT | MS_BIND, NULL));
    TRY("write after the remount", open("/readable/file", O_WRONLY));
    drop(source);
    drop(pinned);
    drop(fd);
}

static void proc_links(void)
{
    SECTION("proc");
    TRY("/proc/self/exe for writing", open("/proc/self/exe", O_RDWR));
    TRY("/proc/self/exe with O_TRUNC", open("/proc/self/exe", O_RDONLY | O_TRUNC));
    TRY("/proc/self/root/marker", access("/proc/self/root/marker", F_OK));
    TRY("/proc/self/root/../marker", access("/proc/self/root/../marker", F_OK));
    TRY("/proc/self/task/../cwd", access("/proc/self/task/../cwd/", F_OK));
    TRY("/proc/kcore", open("/proc/kcore", O_RDONLY));
    TRY("/proc/sysrq-trigger", open("/proc/sysrq-trigger", O_WRONLY));
    TRY("/proc/sys/kernel/core_pattern for writing", open("/proc/sys/kernel/core_pattern", O_WRONLY));
    TRY("/sys/kernel/uevent_helper", open("/sys/kernel/uevent_helper", O_WRONLY));
    TRY("/dev/mem", open("/dev/mem", O_RDWR));
    TRY("/dev/kvm", open("/dev/kvm", O_RDWR));
    /* Descriptors beyond one's own are the sentry's: they can't be named. */
    for (int fd = 3; fd < 1024; fd++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (open(path, O_RDONLY) != -1)
            say("ESCAPED: %s", path);
        snprintf(path, sizeof path, "/dev/fd/%d", fd);
        if (open(path, O_RDONLY) != -1)
            say("ESCAPED: %s", path);
    }
    MUST(chdir("/proc/self/fd"));
    look("/proc/self/fd");
    MUST(chdir("/proc/self/cwd"));
    look("/proc/self/cwd");
    int here = (int)MUST(open("/proc/self/root", O_PATH));
    MUST(fchdir(here));
    look("O_PATH of /proc/self/root");
    close(here);
}

static void directories(void)
{
    SECTION("directories");
    int bound = keep(open("/bound/dir", O_RDONLY | O_DIRECTORY));
    TRY("renamed away", rename("/bound/dir", "/bound/elsewhere"));
    MUST(fchdir(bound));
    look("a directory that was renamed");
    TRY("renamed back", rename("/bound/elsewhere", "/bound/dir"));
    MUST(mkdir("/bound/gone", 0755));
    int gone = keep(open("/bound/gone", O_RDONLY | O_DIRECTORY));
    MUST(rmdir("/bound/gone"));
    MUST(fchdir(gone));
    look("a directory that was removed");
    TRY("open in it", open("new", O_WRONLY | O_CREAT, 0644));
    TRY("open ..", openat(gone, "..", O_RDONLY));
    MUST(chdir("/"));
    drop(gone);
    drop(bound);
}

static void change_root(void)
{
    SECTION("chroot");
    MUST(chdir("/tmp"));
    MUST(mkdir("jail", 0755));
    int here = keep(open(".", O_RDONLY | O_DIRECTORY));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        TRY("chroot", chroot("jail"));
        MUST(fchdir(here));
        for (int i = 0; i < 100; i++)
            MUST(chdir(".."));
        TRY("chroot to the top", chroot("."));
        TRY("marker", access("/marker", F_OK));
        look("after chroot");
        _exit(0);
    }
    reap("child", child);
    MUST(rmdir("jail"));
    drop(here);
}

static void mounts(void)
{
    SECTION("mounts");
    MUST(mkdir("/tmp/a", 0755));
    MUST(chdir("/tmp/a"));
    /* Whether the sandbox has these is its own affair: what counts is what can be seen afterwards. */
    static const char *const kinds[] = {"proc", "sysfs", "tmpfs", "devtmpfs", "ext4", "overlay", "9p", "nfs",
                                        "cgroup2", "debugfs", "fuse"};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        mount("/dev/vda", "/tmp/a", kinds[i], 0, NULL);
        mount(outside, "/tmp/a", kinds[i], 0, "lowerdir=/,fd=3");
        look(kinds[i]);
        while (umount2("/tmp/a", MNT_DETACH) == 0)
            continue;
    }
    TRY("bind of the host's path", mount(outside, "/tmp/a", NULL, MS_BIND, NULL));
    mount("/", "/tmp/a", NULL, MS_BIND | MS_REC, NULL);
    look("a bind of the root");
    umount2("/tmp/a", MNT_DETACH);
    umount2("/bound", MNT_DETACH);
    look("without /bound");
    umount2("/", MNT_DETACH);
    umount2("/proc", MNT_DETACH);
    look("without /");
    syscall(SYS_pivot_root, ".", ".");
    umount2(".", MNT_DETACH);
    look("after pivot_root");
    syscall(SYS_move_mount, syscall(SYS_open_tree, AT_FDCWD, "/", 1), "", AT_FDCWD, "/tmp/a", 4);
    syscall(SYS_fsopen, "ext4", 0);
    syscall(SYS_setns, 0, 0);
    syscall(SYS_unshare, CLONE_NEWNS | CLONE_NEWUSER);
    look("after all of it");
    MUST(chdir("/"));
    TRY("marker", access("/marker", F_OK));
}

static void handles(void)
{
    SECTION("handles");
    struct {
        struct file_handle handle;
        unsigned char bytes[128];
    } forged;
    static const char *const places[] = {"/", "/bound", "/readable"};
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        int place = (int)MUST(open(places[i], O_RDONLY | O_DIRECTORY));
        for (int type = 0; type < 256; type++) {
            for (unsigned inode = 1; inode < 4; inode++) {
                memset(&forged, 0, sizeof forged);
                forged.handle.handle_bytes = 8;
                forged.handle.handle_type = type;
                memcpy(forged.handle.f_handle, &inode, sizeof inode);
                int fd = (int)syscall(SYS_open_by_handle_at, place, &forged, O_RDONLY);
                if (fd != -1)
                    say("ESCAPED: %s type %d inode %u", places[i], type, inode);
            }
        }
        close(place);
    }
}

static void special_files(void)
{
    SECTION("special files");
    TRY("the host's fifo, not waiting", open("/bound/fifo", O_WRONLY | O_NONBLOCK));
    TRY("the host's socket", open("/bound/socket", O_RDWR));
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/bound/socket"};
    int fd = keep(socket(AF_UNIX, SOCK_STREAM, 0));
    TRY("connect to it", connect(fd, (struct sockaddr *)&address, sizeof address));
    drop(fd);
    const dev_t devices[] = {makedev(1, 1), makedev(1, 2), makedev(8, 0), makedev(254, 0), makedev(10, 232)};
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        for (int kind = 0; kind < 2; kind++) {
            mode_t mode = (kind ? S_IFBLK : S_IFCHR) | 0666;
            if (mknod("/bound/device", mode, devices[i]) != -1)
                say("ESCAPED: a device in /bound");
            if (mknod("/tmp/device", mode, devices[i]) == 0) {
                if (open("/tmp/device", O_RDWR) != -1)
                    say("ESCAPED: device %u:%u", major(devices[i]), minor(devices[i]));
                MUST(unlink("/tmp/device"));
            }
        }
    }
}

static void execution(void)
{
    SECTION("execution");
    int fd = keep(open("/readable/file", O_PATH));
    char *const argv[] = {"x", NULL}, *const envp[] = {NULL};
    TRY("execveat of what is no program", syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH));
    TRY("execveat through a link of the host's", syscall(SYS_execveat, AT_FDCWD, "/bound/absolute", argv, envp, 0));
    drop(fd);
}

int main(int argc, char **argv)
{
    if (argc != 2 || strlen(argv[1]) >= sizeof outside)
        return 2;
    strcpy(outside, argv[1]);
    up_and_links();
    hard_links();
    read_only();
    proc_links();
    directories();
    change_root();
    handles();
    special_files();
    execution();
    mounts();
    return 0;
}
