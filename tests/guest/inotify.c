/* inotify(7): events for files and directories, moves, masks, queues, watches that end, errors. */
#include "guest.h"
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

static int fd;

static const struct { uint32_t bit; const char *name; } names[] = {
    {IN_ACCESS, "ACCESS"}, {IN_MODIFY, "MODIFY"}, {IN_ATTRIB, "ATTRIB"},
    {IN_CLOSE_WRITE, "CLOSE_WRITE"}, {IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"}, {IN_OPEN, "OPEN"},
    {IN_MOVED_FROM, "MOVED_FROM"}, {IN_MOVED_TO, "MOVED_TO"}, {IN_CREATE, "CREATE"},
    {IN_DELETE, "DELETE"}, {IN_DELETE_SELF, "DELETE_SELF"}, {IN_MOVE_SELF, "MOVE_SELF"},
    {IN_IGNORED, "IGNORED"}, {IN_ISDIR, "ISDIR"}, {IN_UNMOUNT, "UNMOUNT"},
};

/* Print and take all events that are queued. */
static void show_events(const char *label)
{
    char buf[4096] __attribute__((aligned(8)));
    uint32_t cookie = 0;
    say("%s", label);
    for (;;) {
        ssize_t length = read(fd, buf, sizeof buf);
        if (length <= 0)
            return;
        for (char *p = buf; p < buf + length;) {
            struct inotify_event *event = (struct inotify_event *)p;
            printf("  %d", event->wd);
            for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (event->mask & names[i].bit)
                    printf(" %s", names[i].name);
            if (event->len > 0)
                printf(" %s", event->name);
            if (event->cookie != 0)
                printf(cookie == event->cookie ? " same cookie" : " cookie");
            cookie = event->cookie;
            putchar('\n');
            p += sizeof *event + event->len;
        }
    }
}

/* Write to a file without truncating it: whether that is told before or after the opening depends on
 * the kernel's version. */
static void poke(const char *path)
{
    int writer = (int)MUST(open(path, O_WRONLY));
    MUST(write(writer, "x", 1));
    close(writer);
}

int main(void)
{
    char buf[16];
    int number = -1;
    MUST(mkdir("dir", 0755));
    MUST(mkdir("other", 0755));
    put_file("dir/file", "x");

    SECTION("directory");
    fd = (int)CHECK(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    CHECK(fcntl(fd, F_GETFD));
    CHECK(read(fd, buf, sizeof buf));
    CHECK(inotify_add_watch(fd, "dir", IN_ALL_EVENTS));
    int file = (int)MUST(open("dir/new", O_RDWR | O_CREAT, 0600));
    MUST(write(file, "12", 2));
    MUST(lseek(file, 0, SEEK_SET));
    MUST(read(file, buf, 2));
    close(file);
    show_events("create, write, read, close");
    MUST(chmod("dir/new", 0644));
    MUST(truncate("dir/new", 1));
    show_events("chmod, truncate");
    MUST(rename("dir/new", "dir/renamed"));
    show_events("rename");
    MUST(rename("dir/renamed", "other/out"));
    show_events("moved out");
    MUST(rename("other/out", "dir/in"));
    show_events("moved in");
    MUST(mkdir("dir/sub", 0755));
    MUST(rmdir("dir/sub"));
    show_events("mkdir, rmdir");
    MUST(symlink("x", "dir/symlink"));
    MUST(link("dir/in", "dir/hard"));
    MUST(unlink("dir/symlink"));
    MUST(unlink("dir/hard"));
    show_events("links");
    file = (int)MUST(open("dir/in", O_RDONLY));
    close(file);
    show_events("read only");

    SECTION("file");
    CHECK(inotify_add_watch(fd, "dir/file", IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF));
    CHECK(inotify_rm_watch(fd, 1));
    show_events("removed");
    poke("dir/file");
    show_events("written");
    MUST(rename("dir/file", "dir/moved"));
    show_events("moved");
    MUST(unlink("dir/moved"));
    show_events("deleted");
    CHECK(inotify_rm_watch(fd, 2));

    SECTION("masks");
    put_file("one", "x");
    CHECK(inotify_add_watch(fd, "one", IN_MODIFY));
    CHECK(inotify_add_watch(fd, "one", IN_OPEN));
    poke("one");
    show_events("replaced");
    CHECK(inotify_add_watch(fd, "one", IN_MODIFY | IN_MASK_ADD));
    poke("one");
    show_events("added");
    CHECK(inotify_add_watch(fd, "one", IN_CLOSE_WRITE | IN_ONESHOT));
    poke("one");
    poke("one");
    show_events("one-shot");
    CHECK(inotify_add_watch(fd, "one", IN_MODIFY | IN_ONLYDIR));
    CHECK(inotify_add_watch(fd, "one", 0));

    SECTION("queue");
    int wd = inotify_add_watch(fd, "dir", IN_CREATE | IN_DELETE_SELF);
    SHOW(wd > 0);
    put_file("dir/abc", "");
    struct pollfd entry = {fd, POLLIN, 0};
    CHECK(poll(&entry, 1, 0));
    CHECK(ioctl(fd, FIONREAD, &number));
    SHOW(number);
    CHECK(read(fd, buf, sizeof buf));
    show_events("left");
    MUST(unlink("dir/abc"));
    MUST(unlink("dir/in"));
    MUST(rmdir("dir"));
    show_events("directory removed");

    SECTION("errors");
    CHECK(inotify_init1(1));
    CHECK(inotify_add_watch(fd, "absent", IN_OPEN));
    CHECK(inotify_add_watch(0, "one", IN_OPEN));
    CHECK(inotify_add_watch(999, "one", IN_OPEN));
    CHECK(syscall(SYS_inotify_add_watch, fd, 8, IN_OPEN));
    CHECK(inotify_rm_watch(fd, 12345));
    CHECK(inotify_rm_watch(0, 1));
    CHECK(write(fd, "x", 1));
    return 0;
}
