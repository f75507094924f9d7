/* mmap(2), munmap(2) of anonymous memory: zero pages, placement, partial unmapping, limits, errors. */
#include "guest.h"
#include <setjmp.h>
#include <sys/resource.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static sigjmp_buf recover;
static volatile sig_atomic_t last_code;

static void on_fault(int signo, siginfo_t *info, void *context UNUSED)
{
    last_code = info->si_code;
    siglongjmp(recover, signo);
}

/* Touch a byte; print the signal that it raises, if any. */
static void touch(const char *label, volatile char *address, bool write)
{
    int signo = sigsetjmp(recover, 1);
    if (signo == 0) {
        if (write)
            *address = 1;
        else
            (void)*address;
        say("%s: reached", label);
    } else {
        say("%s: %s code %d", label, signal_name(signo), last_code);
    }
}

static void limited(void)
{
    struct rlimit limit = {64 << 20, 64 << 20};
    MUST(setrlimit(RLIMIT_AS, &limit));
    CHECK(mmap(NULL, 128 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    OK(mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static void basics(void)
{
    SECTION("basics");
    char *memory = pages(4);
    SHOW((uintptr_t)memory % PAGE);
    SHOW(memory[0] | memory[PAGE] | memory[4 * PAGE - 1]);
    memset(memory, 'm', 4 * PAGE);
    CHECK(munmap(memory + PAGE, PAGE));
    touch("first", memory, false);
    touch("unmapped", memory + PAGE, false);
    touch("third", memory + 2 * PAGE, true);
    CHECK(munmap(memory, 4 * PAGE));
    CHECK(munmap(memory, 4 * PAGE));
    touch("all unmapped", memory + 3 * PAGE, true);
    touch("null", NULL, true);
    touch("kernel", (char *)0xffff800000000000, false);
}

static void placement(void)
{
    SECTION("placement");
    char *memory = pages(8);
    MUST(munmap(memory, 8 * PAGE));
    SHOW(mmap(memory, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == memory);
    char *other = mmap(memory, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SHOW(other != MAP_FAILED && other != memory);
    SHOW(mmap(memory, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
              0) == memory);
    memory[0] = 'x';
    CHECK(mmap(memory, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    SHOW(mmap(memory + 4 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
              -1, 0) == memory + 4 * PAGE);
    SHOW(memory[0]);
    SHOW(mmap(memory, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
    SHOW(memory[0]);
    char *low = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    SHOW(low != MAP_FAILED && (uintptr_t)low < 0x80000000);
}

static void protections(void)
{
    SECTION("protections");
    char *none = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *reader = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    touch("none read", none, false);
    touch("none write", none, true);
    touch("read-only read", reader, false);
    touch("read-only write", reader, true);
    unsigned char *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static const unsigned char return_42[] = {0xb8, 42, 0, 0, 0, 0xc3};
    memcpy(code, return_42, sizeof return_42);
    int (*function)(void) = (int (*)(void))(uintptr_t)code;
    SHOW(function());
    code[1] = 43;
    SHOW(function());
}

static void errors(void)
{
    SECTION("errors");
    char *memory = pages(1);
    CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1));
    CHECK(mmap(memory + 1, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    CHECK(mmap(NULL, (size_t)-1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(mmap(NULL, (size_t)-PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(mmap(NULL, 1UL << 47, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(mmap((void *)(1UL << 63), PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    CHECK(mmap((void *)0x7fffffffe000, 4 * PAGE, PROT_READ,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0));
    CHECK(munmap(memory + 1, PAGE));
    CHECK(munmap(memory, 0));
    CHECK(munmap((void *)(1UL << 63), PAGE));
    CHECK(munmap(memory, (size_t)-1));
    CHECK(munmap(memory, 1));
}

static void reservations(void)
{
    SECTION("reservations");
    size_t terabyte = 1UL << 40;
    char *memory = mmap(NULL, terabyte, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    SHOW(memory != MAP_FAILED);
    CHECK(mprotect(memory + (terabyte >> 1), PAGE, PROT_READ | PROT_WRITE));
    touch("inside", memory + (terabyte >> 1), true);
    touch("beside", memory + (terabyte >> 1) + PAGE, false);
    CHECK(munmap(memory, terabyte));
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    basics();
    placement();
    protections();
    errors();
    reservations();
    SECTION("RLIMIT_AS");
    in_child("limited", limited);
    return 0;
}
