/* mprotect(2), mremap(2), brk(2), madvise(2), mincore(2), mlock(2): what changes and what stays. */
#include "guest.h"
#include <setjmp.h>
#include <sys/resource.h>

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

static void protect(void)
{
    SECTION("mprotect");
    char *memory = pages(4);
    memory[0] = 'a';
    memory[PAGE] = 'b';
    CHECK(mprotect(memory, PAGE, PROT_READ));
    touch("read", memory, false);
    touch("write", memory, true);
    CHECK(mprotect(memory, PAGE, PROT_NONE));
    touch("none", memory, false);
    CHECK(mprotect(memory, 4 * PAGE, PROT_READ | PROT_WRITE));
    touch("write again", memory + PAGE, true);
    SHOW(memory[0]);
    SHOW(memory[PAGE]);
    CHECK(mprotect(memory + PAGE, 1, PROT_READ));
    touch("rounded up", memory + 2 * PAGE - 1, true);
    CHECK(mprotect(memory + 1, PAGE, PROT_READ));
    CHECK(mprotect(memory, 0, PROT_READ));
    CHECK(mprotect(memory, PAGE, 0x100));
    MUST(munmap(memory + 2 * PAGE, PAGE));
    CHECK(mprotect(memory, 4 * PAGE, PROT_READ));
    touch("before the gap", memory, true);
    touch("after the gap", memory + 3 * PAGE, true);
    CHECK(mprotect((void *)(1UL << 63), PAGE, PROT_READ));
    CHECK(mprotect(memory, (size_t)-PAGE, PROT_READ));
    CHECK(mprotect(memory, PAGE, PROT_READ | PROT_GROWSDOWN | PROT_GROWSUP));
}

static void remap(void)
{
    SECTION("mremap");
    char *memory = pages(8);
    for (int i = 0; i < 8; i++)
        memory[i * PAGE] = (char)('0' + i);
    SHOW(mremap(memory, 8 * PAGE, 4 * PAGE, 0) == memory);
    touch("cut off", memory + 4 * PAGE, false);
    SHOW(mremap(memory, 4 * PAGE, 6 * PAGE, 0) == memory);
    SHOW(memory[3 * PAGE]);
    SHOW(memory[4 * PAGE]);
    char *wall = mmap(memory + 6 * PAGE, PAGE, PROT_READ,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    SHOW(wall == memory + 6 * PAGE);
    CHECK(mremap(memory, 6 * PAGE, 7 * PAGE, 0));
    char *moved = mremap(memory, 6 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    SHOW(moved != MAP_FAILED && moved != memory);
    SHOW(moved[0]);
    SHOW(moved[3 * PAGE]);
    SHOW(moved[15 * PAGE]);
    touch("old place", memory, false);
    char *target = pages(4);
    MUST(munmap(target, 4 * PAGE));
    SHOW(mremap(moved, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    SHOW(target[0]);
    touch("moved away", moved, false);
    touch("the rest stays", moved + PAGE, false);
    CHECK(mremap(moved, PAGE, PAGE, 0));
    CHECK(mremap(target + 1, PAGE, PAGE, 0));
    CHECK(mremap(target, PAGE, 0, 0));
    CHECK(mremap(target, PAGE, PAGE, MREMAP_FIXED, moved));
    CHECK(mremap(target, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + 1));
    CHECK(mremap(target, 4 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + PAGE));
    CHECK(mremap(target, PAGE, PAGE, 0x80));
    char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *twin = mremap(shared, 0, PAGE, MREMAP_MAYMOVE);
    SHOW(twin != MAP_FAILED && twin != shared);
    shared[5] = 'S';
    SHOW(twin[5]);
    CHECK(mremap(target, 0, PAGE, MREMAP_MAYMOVE));
}

static void limited_brk(void)
{
    struct rlimit limit = {0, 0};
    MUST(setrlimit(RLIMIT_DATA, &limit));
    CHECK((long)sbrk(1 << 20));
}

static void program_break(void)
{
    SECTION("brk");
    char *start = sbrk(0);
    SHOW(sbrk(3 * PAGE) == start);
    SHOW((char *)sbrk(0) - start == 3 * PAGE);
    SHOW(start[0] | start[3 * PAGE - 1]);
    memset(start, 'b', 3 * PAGE);
    SHOW(brk(start + PAGE));
    SHOW(brk(start + 3 * PAGE));
    SHOW(start[0]);
    SHOW(start[2 * PAGE]);
    SHOW(syscall(SYS_brk, 0) == (long)(start + 3 * PAGE));
    SHOW(syscall(SYS_brk, 8) == (long)(start + 3 * PAGE));
    SHOW(syscall(SYS_brk, -1L) == (long)(start + 3 * PAGE));
    CHECK(brk((void *)(1UL << 62)));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        SHOW(sbrk(0) == start + 3 * PAGE);
        brk(start);
        _exit(0);
    }
    reap("child", pid);
    SHOW(start[0]);
    SHOW(brk(start));
    in_child("RLIMIT_DATA", limited_brk);
}

static void advise(void)
{
    SECTION("madvise");
    char *memory = pages(4);
    memset(memory, 'm', 4 * PAGE);
    CHECK(madvise(memory, PAGE, MADV_DONTNEED));
    SHOW(memory[0]);
    SHOW(memory[PAGE]);
    CHECK(madvise(memory, 4 * PAGE, MADV_WILLNEED));
    CHECK(madvise(memory, 4 * PAGE, MADV_SEQUENTIAL));
    CHECK(madvise(memory, 4 * PAGE, MADV_NORMAL));
    CHECK(madvise(memory, 4 * PAGE, MADV_DONTFORK));
    CHECK(madvise(memory, 4 * PAGE, MADV_DOFORK));
    CHECK(madvise(memory + 1, PAGE, MADV_DONTNEED));
    CHECK(madvise(memory, PAGE, 12345));
    CHECK(madvise(memory, 0, MADV_DONTNEED));
    CHECK(madvise(memory, (size_t)-1, MADV_DONTNEED));
    MUST(munmap(memory + 2 * PAGE, PAGE));
    CHECK(madvise(memory, 4 * PAGE, MADV_DONTNEED));
    SHOW(memory[PAGE]);
    SHOW(memory[3 * PAGE]);
    put_file("advised", "file contents");
    int fd = (int)MUST(open("advised", O_RDWR));
    char *private = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    private[0] = 'F';
    CHECK(madvise(private, PAGE, MADV_DONTNEED));
    show_bytes("back to the file's", private, 4);
    char *wiped = pages(1);
    wiped[0] = 'w';
    CHECK(madvise(wiped, PAGE, MADV_WIPEONFORK));
    char *left_out = pages(1);
    CHECK(madvise(left_out, PAGE, MADV_DONTFORK));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        SHOW(wiped[0]);
        touch("left out", left_out, false);
        _exit(0);
    }
    reap("child", pid);
    SHOW(wiped[0]);
}

static void residency(void)
{
    SECTION("mincore and mlock");
    unsigned char vec[4] = {9, 9, 9, 9};
    char *memory = pages(4);
    memory[0] = 'x';
    CHECK(mincore(memory, 4 * PAGE, vec));
    SHOW(vec[0] & 1);
    CHECK(mincore(memory + 1, PAGE, vec));
    CHECK(syscall(SYS_mincore, memory, PAGE, 8));
    CHECK(mlock(memory, PAGE));
    CHECK(munlock(memory, PAGE));
    MUST(munmap(memory + 2 * PAGE, PAGE));
    CHECK(mincore(memory, 4 * PAGE, vec));
    CHECK(mlock(memory, 4 * PAGE));
    CHECK(munlock(memory, 4 * PAGE));
    CHECK(mlock2(memory, PAGE, 0x100));
    CHECK(munlockall());
    CHECK(mlockall(0));
    CHECK(mlockall(0x100));
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    protect();
    remap();
    program_break();
    advise();
    residency();
    return 0;
}
