/* mmap(2) of files: private and shared, msync, truncation and SIGBUS, descriptors, errors. */
#include "guest.h"
#include <setjmp.h>

static sigjmp_buf recover;
static volatile sig_atomic_t last_code;

static void on_fault(int signo, siginfo_t *info, void *context UNUSED)
{
    last_code = info->si_code;
    siglongjmp(recover, signo);
}

static void touch(const char *label, volatile char *address, bool write)
{
    int signo = sigsetjmp(recover, 1);
    if (signo == 0) {
        if (write)
            *address = 'T';
        else
            (void)*address;
        say("%s: reached", label);
    } else {
        say("%s: %s code %d", label, signal_name(signo), last_code);
    }
}

static void private_mapping(void)
{
    SECTION("private");
    put_file("file", "contents of the file");
    int fd = (int)MUST(open("file", O_RDWR));
    char *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    show_bytes("mapped", memory, 20);
    SHOW(memory[20] | memory[PAGE - 1]);
    memory[0] = 'C';
    show_file("file");
    MUST(pwrite(fd, "X", 1, 0));
    show_bytes("own copy stays", memory, 8);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        memory[1] = 'O';
        show_bytes("child", memory, 8);
        _exit(0);
    }
    reap("child", pid);
    show_bytes("parent", memory, 8);
    close(fd);
    touch("after close", memory, false);
}

static void shared_mapping(void)
{
    SECTION("shared");
    put_file("shared", "0123456789");
    int fd = (int)MUST(open("shared", O_RDWR));
    char *one = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *two = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    one[0] = 'A';
    SHOW(two[0]);
    show_file("shared");
    MUST(pwrite(fd, "B", 1, 1));
    show_bytes("write seen", two, 10);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        one[2] = 'C';
        _exit(0);
    }
    reap("child", pid);
    show_bytes("child's store seen", two, 10);
    CHECK(msync(one, PAGE, MS_SYNC));
    CHECK(msync(one, PAGE, MS_ASYNC));
    CHECK(msync(one, PAGE, MS_SYNC | MS_ASYNC));
    CHECK(msync(one + 1, PAGE, MS_SYNC));
    CHECK(msync(one, PAGE, 1 << 10));
    MUST(munmap(one, PAGE));
    MUST(munmap(two, PAGE));
    CHECK(msync(one, PAGE, MS_SYNC));
    show_file("shared");
    close(fd);
}

static void truncation(void)
{
    SECTION("beyond the end");
    int fd = (int)MUST(open("short", O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(fd, PAGE + 10));
    char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    touch("first page", memory, true);
    touch("past the end, same page", memory + PAGE + 500, true);
    touch("third page", memory + 2 * PAGE, false);
    touch("third page write", memory + 2 * PAGE, true);
    MUST(ftruncate(fd, 3 * PAGE));
    touch("third page after growing", memory + 2 * PAGE, true);
    touch("fourth page", memory + 3 * PAGE, false);
    MUST(ftruncate(fd, 10));
    touch("second page after shrinking", memory + PAGE, false);
    touch("first page", memory, false);
    char *private = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    touch("private first page", private, true);
    touch("private second page", private + PAGE, true);
    SHOW(syscall(SYS_write, 1, memory + PAGE, 1));
    say("%s", guest_errno_name(errno));
    close(fd);
}

static void offsets(void)
{
    SECTION("offsets");
    int fd = (int)MUST(open("offsets", O_RDWR | O_CREAT, 0600));
    for (int i = 0; i < 4; i++) {
        char page[PAGE];
        memset(page, 'a' + i, sizeof page);
        MUST(write(fd, page, sizeof page));
    }
    char *memory = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 2 * PAGE);
    SHOW(memory[0]);
    SHOW(memory[PAGE]);
    char *base = pages(4);
    SHOW(mmap(base + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, PAGE) == base + PAGE);
    SHOW(base[0]);
    SHOW(base[PAGE]);
    SHOW(base[2 * PAGE]);
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 100));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, -(off_t)PAGE));
    close(fd);
}

static void errors(void)
{
    SECTION("errors");
    int fds[2];
    int reader = (int)MUST(open("file", O_RDONLY));
    int writer = (int)MUST(open("file", O_WRONLY));
    int path = (int)MUST(open("file", O_PATH));
    int directory = (int)MUST(open(".", O_RDONLY));
    MUST(pipe(fds));
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0));
    OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, reader, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, writer, 0));
    CHECK(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, writer, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, writer, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, path, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, directory, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fds[0], 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 999, 0));
    CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE, 999, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, 0, reader, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, reader, 0));
    char *shared = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
    CHECK(mprotect(shared, PAGE, PROT_READ | PROT_WRITE));
    char *private = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, reader, 0);
    CHECK(mprotect(private, PAGE, PROT_READ | PROT_WRITE));
    private[0] = 'P';
    SHOW(shared[0]);
}

static void devices(void)
{
    SECTION("/dev/zero");
    int zero = (int)MUST(open("/dev/zero", O_RDWR));
    char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
    SHOW(memory[0]);
    memory[PAGE] = 'z';
    SHOW(memory[PAGE]);
    char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, zero, 0);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        shared[0] = 's';
        _exit(0);
    }
    reap("child", pid);
    SHOW(shared[0]);
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, MUST(open("/dev/null", O_RDWR)), 0));
}

static void unlinked(void)
{
    SECTION("an unlinked file");
    put_file("gone", "still here");
    int fd = (int)MUST(open("gone", O_RDWR));
    char *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    MUST(unlink("gone"));
    show_bytes("mapped", memory, 10);
    memory[0] = 'S';
    show_bytes("mapped", memory, 10);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    private_mapping();
    shared_mapping();
    truncation();
    offsets();
    errors();
    devices();
    unlinked();
    return 0;
}
