/* getdents64(2): names and types, small buffers, rewinding, directories that change, errors. */
#include "guest.h"
#include <dirent.h>

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static const char *type_name(unsigned char type)
{
    switch (type) {
    case DT_REG: return "file";
    case DT_DIR: return "directory";
    case DT_LNK: return "link";
    case DT_FIFO: return "fifo";
    case DT_SOCK: return "socket";
    default: return "other";
    }
}

/* Print every entry, sorted, reading with buffers of `size` bytes. */
static void list(const char *path, size_t size)
{
    char *lines[64], *buf = malloc(size);
    size_t count = 0;
    int fd = (int)MUST(open(path, O_RDONLY | O_DIRECTORY));
    long got;
    while ((got = syscall(SYS_getdents64, fd, buf, size)) > 0)
        for (long at = 0; at < got;) {
            struct dirent64 *entry = (struct dirent64 *)(buf + at);
            if (asprintf(&lines[count++], "%s %s", entry->d_name, type_name(entry->d_type)) < 0)
                exit(1);
            at += entry->d_reclen;
        }
    say("%s: end %ld", path, got);
    qsort(lines, count, sizeof lines[0], compare);
    for (size_t i = 0; i < count; i++) {
        say("  %s", lines[i]);
        free(lines[i]);
    }
    free(buf);
    close(fd);
}

static size_t count_names(DIR *dir)
{
    size_t count = 0;
    while (readdir(dir) != NULL)
        count++;
    return count;
}

static void many(void)
{
    SECTION("many entries");
    char name[300];
    MUST(mkdir("many", 0755));
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "many/entry-%d", i);
        close((int)MUST(open(name, O_CREAT | O_WRONLY, 0600)));
    }
    DIR *dir = opendir("many");
    SHOW(count_names(dir));
    SHOW(count_names(dir));
    rewinddir(dir);
    SHOW(count_names(dir));
    rewinddir(dir);
    struct dirent *entry = NULL;
    for (int i = 0; i < 10; i++)
        entry = readdir(dir);
    long position = telldir(dir);
    entry = readdir(dir);
    snprintf(name, sizeof name, "%s", entry->d_name);
    count_names(dir);
    seekdir(dir, position);
    entry = readdir(dir);
    SHOW(strcmp(name, entry->d_name));
    closedir(dir);
}

static void removal(void)
{
    SECTION("removing what is listed");
    DIR *dir = opendir("many");
    struct dirent *entry;
    int removed = 0;
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.' && unlinkat(dirfd(dir), entry->d_name, 0) == 0)
            removed++;
    SHOW(removed);
    closedir(dir);
    CHECK(rmdir("many"));
}

int main(void)
{
    char buf[512];
    SECTION("entries");
    MUST(mkdir("dir", 0755));
    list("dir", 1024);
    put_file("dir/file", "x");
    MUST(mkdir("dir/sub", 0755));
    MUST(symlink("file", "dir/link"));
    MUST(mkfifo("dir/fifo", 0600));
    put_file("dir/a-name-that-is-a-good-deal-longer-than-the-others", "");
    list("dir", 4096);
    list("dir", 96);

    SECTION("errors");
    int fd = (int)MUST(open("dir", O_RDONLY));
    int file = (int)MUST(open("dir/file", O_RDONLY));
    CHECK(syscall(SYS_getdents64, fd, buf, 1));
    CHECK(syscall(SYS_getdents64, fd, 8, 512));
    CHECK(syscall(SYS_getdents64, file, buf, sizeof buf));
    CHECK(syscall(SYS_getdents64, 999, buf, sizeof buf));
    CHECK(syscall(SYS_getdents64, MUST(open("dir", O_PATH)), buf, sizeof buf));
    int removed = (int)(MUST(mkdir("gone", 0755)), MUST(open("gone", O_RDONLY)));
    MUST(rmdir("gone"));
    CHECK(syscall(SYS_getdents64, removed, buf, sizeof buf));

    SECTION("changes are seen after a rewind");
    MUST(unlink("dir/fifo"));
    MUST(rename("dir/link", "dir/renamed"));
    list("dir", 4096);
    many();
    removal();
    return 0;
}
