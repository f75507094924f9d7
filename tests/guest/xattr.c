/* setxattr(2), getxattr, listxattr, removexattr: the user namespace, flags, sizes, errors. */
#include "guest.h"
#include <sys/xattr.h>

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Print the names in the user namespace, sorted. */
static void list(const char *path)
{
    char names[1024], *sorted[16];
    size_t count = 0;
    ssize_t length = listxattr(path, names, sizeof names);
    for (char *name = names; name < names + length; name += strlen(name) + 1)
        if (strncmp(name, "user.", 5) == 0)
            sorted[count++] = name;
    qsort(sorted, count, sizeof sorted[0], compare);
    say("%zu names", count);
    for (size_t i = 0; i < count; i++)
        say("  %s", sorted[i]);
}

int main(void)
{
    char value[64];
    put_file("file", "x");
    MUST(symlink("file", "link"));
    SECTION("user attributes");
    if (setxattr("file", "user.probe", "", 0, 0) == -1 && errno == EOPNOTSUPP) {
        skip("the file system has no user attributes");
        return 0;
    }
    CHECK(removexattr("file", "user.probe"));
    CHECK(setxattr("file", "user.one", "first", 5, 0));
    CHECK(setxattr("link", "user.two", "second", 6, XATTR_CREATE));
    CHECK(setxattr("file", "user.two", "again", 5, XATTR_CREATE));
    CHECK(setxattr("file", "user.three", "x", 1, XATTR_REPLACE));
    CHECK(setxattr("file", "user.one", "other", 5, XATTR_REPLACE));
    list("file");
    CHECK(getxattr("file", "user.one", value, sizeof value));
    show_bytes("one", value, 5);
    CHECK(getxattr("file", "user.one", NULL, 0));
    CHECK(getxattr("file", "user.one", value, 2));
    CHECK(getxattr("file", "user.absent", value, sizeof value));
    CHECK(setxattr("file", "user.empty", "", 0, 0));
    CHECK(getxattr("file", "user.empty", value, sizeof value));
    CHECK(removexattr("file", "user.one"));
    CHECK(removexattr("file", "user.one"));
    int fd = (int)MUST(open("file", O_RDONLY));
    CHECK(fsetxattr(fd, "user.fd", "v", 1, 0));
    CHECK(fgetxattr(fd, "user.fd", value, sizeof value));
    CHECK(fremovexattr(fd, "user.fd"));
    list("file");

    SECTION("errors");
    CHECK(getxattr("absent", "user.one", value, sizeof value));
    CHECK(fgetxattr(999, "user.one", value, sizeof value));
    CHECK(setxattr("file", "user.", "x", 1, 0));
    CHECK(setxattr("file", "", "x", 1, 0));
    CHECK(setxattr("file", "nonsense", "x", 1, 0));
    CHECK(setxattr("file", "user.one", "x", 1, 77));
    CHECK(syscall(SYS_setxattr, "file", 8, "x", 1, 0));
    CHECK(syscall(SYS_setxattr, "file", "user.x", 8, 1, 0));
    CHECK(lsetxattr("link", "user.x", "x", 1, 0));
    CHECK(fgetxattr(MUST(open("file", O_PATH)), "user.two", value, sizeof value));
    char name[300];
    memset(name, 'n', sizeof name);
    memcpy(name, "user.", 5);
    name[299] = 0;
    SHOW(setxattr("file", name, "x", 1, 0));
    say("%s", guest_errno_name(errno));
    SHOW(syscall(SYS_setxattr, "file", "user.big", value, 65537, 0));
    say("%s", guest_errno_name(errno));
    return 0;
}
