/* Paths, names, links and trees as long, as many and as deep as they can be made.
 *
 * Interface: paths_bombs DEPTH, in an empty directory; prints what Linux answers. */
#include "../guest/guest.h"

#include <dirent.h>
#include <sys/ioctl.h>

/* A path of `length` bytes that leads to `last`. */
static char *long_path(size_t length, const char *last)
{
    char *path = malloc(length + 1);
    size_t rest = length - strlen(last);
    for (size_t i = 0; i < rest; i++)
        path[i] = i % 2 == 0 ? '.' : '/';
    if (rest % 2 == 1)
        path[rest - 1] = '/';
    strcpy(path + rest, last);
    return path;
}

static void long_names(void)
{
    SECTION("long names");
    char name[400];
    put_file("f", "x");
    for (size_t length = 254; length <= 256; length++) {
        memset(name, 'n', length);
        name[length] = 0;
        SHOW(length);
        CHECK(mkdir(name, 0755));
        CHECK(rmdir(name));
        CHECK(symlink("f", name));
        CHECK(access(name, F_OK));
        CHECK(unlink(name));
        CHECK(rename("f", name));
        CHECK(rename(name, "f"));
        CHECK(access(name, F_OK));
    }
    for (size_t length = 4094; length <= 4097; length++) {
        char *path = long_path(length, "f");
        SHOW(length);
        CHECK(access(path, F_OK));
        CHECK(symlink(path, "long"));
        CHECK(access("long", F_OK));
        CHECK(readlink("long", name, sizeof name));
        CHECK(unlink("long"));
        CHECK(chdir(path));
        free(path);
    }
    char *unmapped = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(munmap(unmapped + PAGE, PAGE));
    memset(unmapped, '/', PAGE);
    CHECK(access(unmapped, F_OK));
    CHECK(access(unmapped + 10, F_OK));
    CHECK(unlink("f"));
}

static void many_links(void)
{
    SECTION("many links");
    char name[32], target[32];
    put_file("l0", "x");
    for (int i = 1; i <= 45; i++) {
        snprintf(name, sizeof name, "l%d", i);
        snprintf(target, sizeof target, "l%d", i - 1);
        MUST(symlink(target, name));
    }
    CHECK(access("l40", F_OK));
    CHECK(access("l41", F_OK));
    CHECK(access("l45", F_OK));
    CHECK(open("l40", O_RDONLY | O_CREAT, 0600) >= 0);
    CHECK(open("l41", O_RDONLY | O_CREAT, 0600));
    CHECK(symlink("loop", "loop"));
    CHECK(access("loop", F_OK));
    CHECK(access("loop/x", F_OK));
    CHECK(symlink("loop2/x", "loop1"));
    CHECK(symlink("loop1/x", "loop2"));
    CHECK(access("loop1", F_OK));
    CHECK(unlink("loop"));
    CHECK(unlink("loop1"));
    CHECK(unlink("loop2"));
    for (int i = 0; i <= 45; i++) {
        snprintf(name, sizeof name, "l%d", i);
        MUST(unlink(name));
    }
}

/* b0 is a directory, and each of the others a link that goes through the one before several hundred
 * times: to resolve b9 would take 800 to the tenth steps, were it not for the limit of 40 links. */
static void links_that_multiply(void)
{
    SECTION("links that multiply");
    char name[32], target[4096];
    MUST(mkdir("b0", 0755));
    for (int i = 1; i < 10; i++) {
        snprintf(name, sizeof name, "b%d", i);
        target[0] = 0;
        for (int j = 0; j < 600; j++)
            sprintf(target + strlen(target), "b%d/../", i - 1);
        target[strlen(target) - 3] = 0;
        MUST(symlink(target, name));
    }
    CHECK(access("b1", F_OK));
    CHECK(access("b2", F_OK));
    CHECK(access("b9", F_OK));
    /* 40 links, each of the longest text there can be. */
    char *path = long_path(4095, "b0");
    MUST(symlink(path, "c1"));
    for (int i = 2; i <= 41; i++) {
        snprintf(name, sizeof name, "c%d", i);
        snprintf(target, sizeof target, "c%d", i - 1);
        char *text = long_path(4095, target);
        MUST(symlink(text, name));
        free(text);
    }
    CHECK(access("c40", F_OK));
    CHECK(access("c41", F_OK));
    for (int i = 1; i < 10; i++) {
        snprintf(name, sizeof name, "b%d", i);
        MUST(unlink(name));
    }
    for (int i = 1; i <= 41; i++) {
        snprintf(name, sizeof name, "c%d", i);
        MUST(unlink(name));
    }
    MUST(rmdir("b0"));
    free(path);
}

static void deep(long depth)
{
    SECTION("deep");
    char text[2 * PAGE];
    int top = (int)MUST(open(".", O_RDONLY | O_DIRECTORY));
    for (long i = 0; i < depth; i++) {
        MUST(mkdir("d", 0755));
        MUST(chdir("d"));
    }
    put_file("bottom", "x");
    CHECK(syscall(SYS_getcwd, text, sizeof text));
    CHECK(readlink("/proc/self/cwd", text, sizeof text));
    int bottom = (int)MUST(open(".", O_RDONLY | O_DIRECTORY));
    CHECK(access("bottom", F_OK));
    snprintf(text, sizeof text, "/proc/self/fd/%d/bottom", bottom);
    CHECK(access(text, F_OK));
    CHECK(renameat(top, "d", bottom, "d"));
    CHECK(renameat(bottom, "bottom", top, "bottom"));
    CHECK(linkat(top, "bottom", bottom, "bottom", 0));
    CHECK(mkdir("../e", 0755));
    CHECK(renameat(bottom, "bottom", top, "e"));
    CHECK(rmdir("../e"));
    for (int i = 0; i < 100; i++) {
        syscall(SYS_getcwd, text, sizeof text);
        access("..", F_OK);
    }
    MUST(fchdir(top));
    long levels = 0;
    for (int fd = top; fd != -1; levels++) {
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY);
        if (fd != top)
            close(fd);
        fd = next;
    }
    printf("as deep as it was made: %d\n", levels == depth + 1);
    MUST(fchdir(bottom));
    close(bottom);
    for (long i = 0; i < depth; i++) {
        MUST(chdir(".."));
        MUST(rmdir("d"));
    }
    MUST(unlink("bottom"));
    MUST(unlink("e"));
    struct stat here, there;
    MUST(stat(".", &here));
    MUST(fstat(top, &there));
    printf("back at the top: %d\n", here.st_ino == there.st_ino);
    close(top);
}

/* The whole tree is dropped at once, with everything in it. */
static void abandoned(long depth)
{
    SECTION("abandoned");
    int top = (int)MUST(open(".", O_RDONLY | O_DIRECTORY));
    MUST(mkdir("x", 0755));
    MUST(chdir("x"));
    for (long i = 0; i < depth; i++) {
        MUST(mkdir("d", 0755));
        MUST(chdir("d"));
    }
    MUST(fchdir(top));
    CHECK(rename("x", "y"));
    CHECK(rmdir("y"));
    close(top);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    long depth = atol(argv[1]);
    long_names();
    many_links();
    links_that_multiply();
    deep(depth);
    abandoned(depth);
    return 0;
}
