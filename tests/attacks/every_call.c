/*
 * Tries every system-call number with hostile arguments, from every state that a thread can be in;
 * for a sandbox only: never run it on a host.
 *
 * usage: every_call STATE
 *
 * Numbers: 0 to 470, the same of x32 and with other high bits, negative ones. Each is made by a
 * process of its own, so that exit, execve and what they break are calls like any other. MAGIC is
 * among the arguments of every call: a host that sees it in a call of any process has been reached.
 * A call that waits is ended by the parent. `marker` as the state is one call of getppid. Prints
 * "tried N calls" at the end; nothing else is promised.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NUMBERS = 471, PAGE = 4096, SETS = 6 };

#define MAGIC 0x50595342ULL            /* "PYSB": in the low half, and so in ints as well */
#define MAGIC_HIGH (MAGIC << 32 | MAGIC)

static unsigned char *scratch;         /* a page that is written, behind it one that can't be reached */
static long *tried;

typedef struct {
    uint64_t words[6];
} arguments;

static arguments set(int which)
{
    uint64_t code = (uint64_t)&set & -(uint64_t)PAGE, edge = (uint64_t)scratch + PAGE;
    switch (which) {
    case 0: return (arguments){{MAGIC, MAGIC_HIGH, MAGIC_HIGH, MAGIC, MAGIC_HIGH, MAGIC}};
    case 1: return (arguments){{0, 0, MAGIC, 0, 0, MAGIC_HIGH}};
    case 2: return (arguments){{-1ULL, -1ULL, -1ULL, MAGIC_HIGH, -1ULL, -1ULL}};
    case 3: return (arguments){{0xffff888000000000ULL, 0xffffffff81000000ULL, 0x800000000000ULL, MAGIC,
                                0xffffffffff600000ULL, 0x7fffffffffffffffULL}};
    case 4: return (arguments){{code, edge - 1, MAGIC, code, edge, 0x7ffffffff000ULL}};
    default: return (arguments){{1, (uint64_t)scratch, PAGE / 2, MAGIC, edge + 5 * PAGE, MAGIC_HIGH}};
    }
}

static uint64_t raw(uint64_t number, arguments a)
{
    uint64_t result;
    register uint64_t r10 __asm__("r10") = a.words[3], r8 __asm__("r8") = a.words[4], r9 __asm__("r9") = a.words[5];
    __asm__ volatile("syscall" : "=a"(result)
                     : "a"(number), "D"(a.words[0]), "S"(a.words[1]), "d"(a.words[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* Calls that would leave nobody to see the rest, or stop the whole program. */
static int is_for_another_process(uint64_t number)
{
    return number == SYS_kill || number == SYS_tkill || number == SYS_tgkill;
}

/*
 * Numbers to try: from *at, which the processes that try them move on, to `end`, with `bits` set.
 * Some of these are forks that have left their group and outlive the round that made them: a number
 * is taken once, and each round has an *at of its own, or they would go on forking for ever.
 */
static uint64_t *at, end, bits;

static int take(uint64_t *number)
{
    *number = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (*number < end)
        if (__atomic_compare_exchange_n(at, number, *number + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return 1;
    return 0;
}

static void try_number(uint64_t number)
{
    for (int which = 0; which < SETS; which++) {
        __atomic_fetch_add(tried, 1, __ATOMIC_RELAXED);
        raw(bits | number, set(which));
    }
}

static void body(void)
{
    uint64_t number;
    while (take(&number)) {
        alarm(1);
        if (!is_for_another_process(number & 0x3fffffff))
            try_number(number);
    }
    _exit(0);
}

/* What one process does not survive, the next goes on behind. */
static void try_in_processes(uint64_t first, uint64_t last, uint64_t high, void (*enter)(void (*)(void)))
{
    at++;
    *at = first, end = last, bits = high;
    while (__atomic_load_n(at, __ATOMIC_RELAXED) < end) {
        pid_t child = fork();
        if (!child) {
            setpgid(0, 0);
            enter(body);
            _exit(0);
        }
        for (int waited = 0; waitpid(child, NULL, WNOHANG) == 0; waited++) {
            usleep(waited < 20 ? 500 : 20000);
            if (waited > 60)
                kill(-child, SIGKILL), kill(child, SIGKILL);
        }
    }
}

/* The states. Each runs the body in that state; it does not come back, or exits. */

static void in_main_thread(void (*body)(void)) { body(); }

static void *run(void *body)
{
    ((void (*)(void))body)();
    return NULL;
}

static void in_second_thread(void (*body)(void))
{
    pthread_t thread;
    pthread_create(&thread, NULL, run, (void *)body);
    pthread_join(thread, NULL);
}

static void under_a_zombie_leader(void (*body)(void))
{
    pthread_t thread;
    pthread_create(&thread, NULL, run, (void *)body);
    syscall(SYS_exit, 0);
}

static void (*in_handler)(void);

static void handler(int signo)
{
    (void)signo;
    in_handler();
}

static void in_a_handler(void (*body)(void))
{
    in_handler = body;
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
}

static void on_an_alternate_stack(void (*body)(void))
{
    static char stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    in_handler = body;
    sigaltstack(&alternate, NULL);
    sigaction(SIGUSR1, &act, NULL);
    raise(SIGUSR1);
}

static void in_a_vforked_child(void (*body)(void))
{
    if (!vfork())
        body();
    _exit(0);
}

static void with_signals_pending(void (*body)(void))
{
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGALRM);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int signo = 1; signo <= 64; signo++)
        if (signo != SIGKILL && signo != SIGSTOP && signo != SIGALRM && signo != 32 && signo != 33)
            raise(signo);
    body();
}

static void *change_memory(void *unused)
{
    (void)unused;
    for (;;) {
        mprotect(scratch, PAGE, PROT_NONE);
        mmap(scratch, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        sched_yield();
    }
    return NULL;
}

static void while_memory_changes(void (*body)(void))
{
    pthread_t thread;
    pthread_create(&thread, NULL, change_memory, NULL);
    body();
}

/* Other ways to the kernel, each in a process that may die of it. */

static void by_int80(void)
{
    for (uint64_t number = 0; number < NUMBERS; number++) {
        if (fork() == 0) {
            uint64_t result = number;
            __atomic_fetch_add(tried, 1, __ATOMIC_RELAXED);
            __asm__ volatile("int $0x80" : "+a"(result) : "b"(MAGIC), "c"(MAGIC), "d"(MAGIC), "S"(MAGIC), "D"(MAGIC)
                             : "memory", "r8", "r9", "r10", "r11");
            _exit(0);
        }
        wait(NULL);
    }
}

static void by_sysenter(void)
{
    __atomic_fetch_add(tried, 1, __ATOMIC_RELAXED);
    __asm__ volatile("mov %%rsp, %%rbp\n sysenter" :: "a"(20ULL), "b"(MAGIC), "c"(MAGIC), "d"(MAGIC) : "memory");
}

static void by_vsyscall(void)
{
    for (int entry = 0; entry < 3; entry++) {
        if (fork() == 0) {
            uint64_t (*call)(uint64_t, uint64_t, uint64_t) = (void *)(0xffffffffff600000ULL + (uint64_t)entry * 1024);
            __atomic_fetch_add(tried, 1, __ATOMIC_RELAXED);
            call(MAGIC, MAGIC_HIGH, 0);
            _exit(0);
        }
        wait(NULL);
    }
}

/* syscall as the last two bytes of a page whose successor is not there, and of all user space. */
static void at_odd_addresses(void)
{
    static const unsigned char code[] = {0x0f, 0x05, 0xc3};
    uint64_t places[] = {(uint64_t)mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                         0x7fffffffe000ULL, 0x7fffffffd000ULL, 0x10000};
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        if (fork() == 0) {
            unsigned char *page = mmap((void *)places[i], PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            if (page != MAP_FAILED) {
                memcpy(page + PAGE - 2, code, 2);
                __atomic_fetch_add(tried, 1, __ATOMIC_RELAXED);
                __asm__ volatile("jmp *%1" :: "a"((uint64_t)SYS_getppid), "r"(page + PAGE - 2),
                                 "D"(MAGIC), "S"(MAGIC_HIGH) : "memory");
            }
            _exit(0);
        }
        wait(NULL);
    }
}

static void in_a_child(void (*body)(void))
{
    pid_t child = fork();
    if (!child) {
        body();
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static const struct {
    const char *name;
    void (*enter)(void (*)(void));
} states[] = {
    {"main", in_main_thread}, {"thread", in_second_thread}, {"zombie-leader", under_a_zombie_leader},
    {"handler", in_a_handler}, {"altstack", on_an_alternate_stack}, {"vfork", in_a_vforked_child},
    {"pending", with_signals_pending}, {"memory-changes", while_memory_changes},
};

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    /* below it, room for those to whom it is the stack: they must not have the counters there */
    scratch = mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    scratch += 4 * PAGE;
    mprotect(scratch + PAGE, PAGE, PROT_NONE);
    at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    tried = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGTTOU, SIG_IGN);
    if (!strcmp(argv[1], "marker"))      /* harmless, wherever it is carried out */
        return raw(SYS_getppid, set(0)) == 0;
    if (!strcmp(argv[1], "other-ways")) {
        in_a_child(by_int80);
        in_a_child(by_sysenter);
        in_a_child(by_vsyscall);
        in_a_child(at_odd_addresses);
    }
    for (unsigned i = 0; i < sizeof states / sizeof *states; i++)
        if (!strcmp(argv[1], states[i].name)) {
            try_in_processes(0, NUMBERS, 0, states[i].enter);
            if (i == 0) {
                try_in_processes(0, NUMBERS, 0x40000000, states[i].enter);          /* x32 */
                try_in_processes(0, 16, 0xffffffff00000000ULL, states[i].enter);
                try_in_processes(0, 16, 0x8000000000000000ULL, states[i].enter);
                try_in_processes(0, 16, 0x0000000100000000ULL | MAGIC << 33, states[i].enter);
                try_in_processes(-16ULL, -1ULL, 0, states[i].enter);
            }
        }
    char line[64];
    int length = snprintf(line, sizeof line, "tried %ld calls\n", *tried);
    return write(2, line, (size_t)length) != length;
}
