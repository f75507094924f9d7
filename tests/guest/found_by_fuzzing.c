/* What the fuzzers (tests/fuzz) have found: calls that the kernel once did not survive. */
#include "guest.h"

#include <linux/futex.h>

static void nothing_is_locked(void)
{
    SECTION("mlock of no bytes, then fork");
    char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory[PAGE] = 1;
    CHECK(mlock(memory + PAGE, 0));
    CHECK(munlock(memory + 2 * PAGE, 0));
    CHECK(msync(memory + PAGE, 0, MS_SYNC));
    pid_t child = fork();
    if (child == 0)
        _exit(memory[PAGE]);
    int status;
    waitpid(child, &status, 0);
    printf("child exited with %d\n", WEXITSTATUS(status));
}

static void futex_beyond_the_end(void)
{
    SECTION("shared futex beyond the end of its file");
    int fd = memfd_create("short", 0);
    ftruncate(fd, (off_t)PAGE);
    char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(syscall(SYS_futex, memory + PAGE, FUTEX_WAKE, 1, NULL, NULL, 0));
    CHECK(syscall(SYS_futex, memory + PAGE, FUTEX_WAIT, 0, NULL, NULL, 0));
    CHECK(syscall(SYS_futex, memory, FUTEX_WAIT_REQUEUE_PI, 7, NULL, memory + PAGE, 0));
}

int main(void)
{
    nothing_is_locked();
    futex_beyond_the_end();
    return 0;
}
