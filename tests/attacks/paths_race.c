/* Uses of a few names, again and again, while somebody on the host changes what they mean.
 *
 * Interface: paths_race TREE COUNT WRITABLE. `TREE/swap`, `TREE/dir` and what is in them are exchanged
 * from outside with links, fifos, devices and directories. Prints how many calls succeeded, and a line
 * with ESCAPED for every file it gets hold of that has the mark of those outside. Errors are expected. */
#include "../guest/guest.h"

#include <sys/xattr.h>

#define MARK "outside"

static long succeeded;

static void count(long result)
{
    succeeded += result != -1;
}

static void look_into(const char *path, int fd)
{
    char text[64] = "";
    struct stat status;
    if (fd == -1)
        return;
    succeeded++;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        ssize_t length = pread(fd, text, sizeof text - 1, 0);
        char *mapped = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
        if (mapped != MAP_FAILED)
            munmap(mapped, PAGE);
        if (length > 0 && strstr(text, MARK) != NULL)
            say("ESCAPED: read through %s", path);
    }
    close(fd);
}

static void read_only(const char *path)
{
    struct stat status;
    char text[PATH_MAX];
    look_into(path, open(path, O_RDONLY | O_NONBLOCK));
    look_into(path, open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
    int pinned = open(path, O_PATH);
    if (pinned != -1) {
        snprintf(text, sizeof text, "/proc/self/fd/%d", pinned);
        look_into(path, open(text, O_RDONLY | O_NONBLOCK));
        close(pinned);
    }
    count(stat(path, &status));
    count(lstat(path, &status));
    count(readlink(path, text, sizeof text));
    count(access(path, R_OK));
    count(getxattr(path, "user.x", text, sizeof text));
    int directory = open(path, O_RDONLY | O_DIRECTORY);
    if (directory != -1) {
        count(syscall(SYS_getdents64, directory, text, sizeof text));
        look_into(path, openat(directory, "secret", O_RDONLY));
        look_into(path, openat(directory, "../secret", O_RDONLY));
        close(directory);
    }
}

static void change(const char *path)
{
    char other[PATH_MAX];
    snprintf(other, sizeof other, "%s.program", path);
    int fd = open(path, O_WRONLY | O_NONBLOCK);
    if (fd != -1) {
        count(write(fd, "written", 7));
        count(fchmod(fd, 0640));
        close(fd);
    }
    fd = open(path, O_WRONLY | O_CREAT | O_NONBLOCK, 0640);
    if (fd != -1)
        close(fd);
    count(truncate(path, 3));
    count(chmod(path, 0751));
    count(lchown(path, geteuid(), getegid()));
    count(utimensat(AT_FDCWD, path, NULL, 0));
    count(utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW));
    count(setxattr(path, "user.x", "y", 1, 0));
    count(linkat(AT_FDCWD, path, AT_FDCWD, other, AT_SYMLINK_FOLLOW));
    count(link(path, other));
    read_only(other);
    count(rename(other, path));
    count(unlink(other));
    count(mkdir(other, 0700));
    count(rmdir(other));
    count(mknod(other, S_IFIFO | 0600, 0));
    count(symlink("x", other));
    count(unlink(other));
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"swap", "dir", "dir/file", "dir/secret", "dir/sub/file", "dir/new"};
    if (argc != 4)
        return 2;
    long rounds = atol(argv[2]);
    bool writable = atoi(argv[3]);
    for (long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
            char path[PATH_MAX];
            snprintf(path, sizeof path, "%s/%s", argv[1], names[i]);
            read_only(path);
            if (writable)
                change(path);
        }
    }
    SHOW(succeeded > rounds);
    return 0;
}
