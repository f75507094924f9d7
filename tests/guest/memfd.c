/* memfd_create(2): a file in memory, its seals, its mappings. */
#include "guest.h"

int main(void)
{
    char buf[64];
    struct stat st;
    SECTION("a file");
    int fd = (int)CHECK(memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    CHECK(fcntl(fd, F_GETFD));
    CHECK(write(fd, "contents", 8));
    CHECK(pread(fd, buf, sizeof buf, 0));
    MUST(fstat(fd, &st));
    say("type %o mode %o nlink %ld size %ld", st.st_mode & S_IFMT, st.st_mode & 0777,
        (long)st.st_nlink, (long)st.st_size);
    ssize_t length = readlink("/proc/self/fd/3", buf, sizeof buf);
    show_bytes("link", buf, length > 0 ? (size_t)length : 0);
    CHECK(ftruncate(fd, 2 * PAGE));
    char *one = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *two = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    one[0] = 'C';
    show_bytes("seen", two, 8);
    CHECK(pread(fd, buf, 8, 0));
    show_bytes("read", buf, 8);

    SECTION("reopened");
    int other = (int)MUST(open("/proc/self/fd/3", O_RDONLY));
    CHECK(read(other, buf, 8));
    show_bytes("read", buf, 8);
    CHECK(write(other, "x", 1));

    SECTION("seals");
    CHECK(fcntl(fd, F_GET_SEALS));
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    CHECK(ftruncate(fd, PAGE));
    CHECK(ftruncate(fd, 3 * PAGE));
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    CHECK(ftruncate(fd, 4 * PAGE));
    CHECK(pwrite(fd, "x", 1, 3 * PAGE));
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    MUST(munmap(one, 2 * PAGE));
    MUST(munmap(two, PAGE));
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    CHECK(pwrite(fd, "x", 1, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    CHECK(fcntl(fd, F_GET_SEALS));
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    CHECK(fcntl(other, F_ADD_SEALS, F_SEAL_GROW));

    SECTION("errors");
    CHECK(memfd_create("x", 0x1000));
    CHECK(syscall(SYS_memfd_create, 8, 0));
    memset(buf, 'n', sizeof buf);
    char name[300];
    memset(name, 'n', sizeof name);
    name[249] = 0;
    SHOW(memfd_create(name, 0) >= 0);
    name[249] = 'n';
    name[250] = 0;
    SHOW(memfd_create(name, 0));
    say("%s", guest_errno_name(errno));
    int plain = (int)MUST(memfd_create("plain", 0));
    CHECK(fcntl(plain, F_GET_SEALS));
    CHECK(fcntl(plain, F_ADD_SEALS, F_SEAL_GROW));
    put_file("file", "x");
    int file = (int)MUST(open("file", O_RDWR));
    CHECK(fcntl(file, F_ADD_SEALS, F_SEAL_GROW) == -1 && (errno == EINVAL || errno == EPERM));

    SECTION("executed");
    static const char script[] = "#!/bin/sh\necho from a memfd $1\n";
    int program = (int)MUST(memfd_create("script", 0));
    MUST(write(program, script, sizeof script - 1));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        char *argv[] = {"script", "argument", NULL}, *envp[] = {NULL};
        fexecve(program, argv, envp);
        say("%s", guest_errno_name(errno));
        _exit(1);
    }
    reap("script", pid);
    return 0;
}
