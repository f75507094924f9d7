/* What a signal handler finds and may change: registers, FP state, alternate stacks, faults' siginfo. */
#include "guest.h"
#include <setjmp.h>
#include <sys/ucontext.h>

static sigjmp_buf recover;
static char *expected;

static void show_fault(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    say("%s: code %d addr %s", signal_name(signo), info->si_code,
        info->si_addr == expected ? "as expected"
        : info->si_addr == NULL   ? "zero"
                                  : "another");
    printf("  trap %lld", uc->uc_mcontext.gregs[REG_TRAPNO]);
    if (signo == SIGSEGV && info->si_code > 0 && info->si_code < SI_KERNEL)
        printf(" cr2 %d", (char *)uc->uc_mcontext.gregs[REG_CR2] == expected);
    /* Whether an access to a page that is not mapped was a write is not known on every platform. */
    if (signo == SIGSEGV && info->si_code == SEGV_ACCERR)
        printf(" write %d user %d", (int)(uc->uc_mcontext.gregs[REG_ERR] >> 1 & 1),
               (int)(uc->uc_mcontext.gregs[REG_ERR] >> 2 & 1));
    putchar('\n');
    siglongjmp(recover, 1);
}

#define TRY(label, code)                    \
    do {                                    \
        printf("%s: ", label);              \
        if (sigsetjmp(recover, 1) == 0) {   \
            code;                           \
            say("nothing");                 \
        }                                   \
    } while (0)

static void faults(void)
{
    SECTION("faults");
    struct sigaction action = {.sa_sigaction = show_fault, .sa_flags = SA_SIGINFO};
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        MUST(sigaction(signals[i], &action, NULL));
    char *memory = pages(1);
    MUST(mprotect(memory, PAGE, PROT_READ));
    expected = memory + 5;
    TRY("write to read-only", *(volatile char *)expected = 1);
    MUST(mprotect(memory, PAGE, PROT_NONE));
    TRY("read of PROT_NONE", (void)*(volatile char *)expected);
    MUST(munmap(memory, PAGE));
    TRY("read of nothing", (void)*(volatile char *)expected);
    TRY("write to nothing", *(volatile char *)expected = 1);
    expected = (char *)16;
    TRY("near null", (void)*(volatile char *)expected);
    expected = (char *)0x8000000000000000;
    TRY("non-canonical", (void)*(volatile char *)expected);
    expected = NULL;
    TRY("jump to null", ((void (*)(void))(uintptr_t)expected)());
    char *code = pages(1);
    expected = code;
    TRY("jump to data", ((void (*)(void))(uintptr_t)expected)());
    expected = (char *)&&divide;
    TRY("division by zero", {
    divide:
        __asm__ volatile("movl $1, %%eax; xorl %%edx, %%edx; xorl %%ecx, %%ecx; idivl %%ecx" ::
                             : "eax", "ecx", "edx");
    });
    TRY("ud2", __asm__ volatile("ud2"));
    TRY("int3", __asm__ volatile("int3"));
    TRY("hlt", __asm__ volatile("hlt"));
    TRY("int $0x90", __asm__ volatile("int $0x90"));
}

static void skip_instruction(int signo UNUSED, siginfo_t *info UNUSED, void *context)
{
    ucontext_t *uc = context;
    uc->uc_mcontext.gregs[REG_RIP] += 2;
    uc->uc_mcontext.gregs[REG_RBX] = 4242;
    uc->uc_mcontext.gregs[REG_EFL] |= 1;
}

static void registers(void)
{
    SECTION("registers changed through the frame");
    struct sigaction action = {.sa_sigaction = skip_instruction, .sa_flags = SA_SIGINFO};
    long rbx = 1, r12 = 77;
    unsigned char carry = 0;
    MUST(sigaction(SIGILL, &action, NULL));
    __asm__ volatile("clc\n\tud2\n\tsetc %1"
                     : "+b"(rbx), "=r"(carry), "+r"(r12)::"cc", "memory");
    SHOW(rbx);
    SHOW(carry);
    SHOW(r12);
}

static void clobber(int signo UNUSED)
{
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15;"
                     "fninit; fldz; movl $0x1f80, -4(%%rsp); ldmxcsr -4(%%rsp)" ::
                         : "xmm0", "xmm7", "xmm15", "memory");
}

static void floating_point(void)
{
    SECTION("floating-point state is kept over a handler");
    signal(SIGUSR1, clobber);
    double values[4] = {1.5, 2.5, 3.5, 0};
    unsigned mxcsr = 0x3f80, after;
    long pid = getpid(), tid = syscall(SYS_gettid), result;
    __asm__ volatile("movsd 0(%[v]), %%xmm0; movsd 8(%[v]), %%xmm7; fldl 16(%[v]);"
                     "ldmxcsr %[m]; syscall; stmxcsr %[a];"
                     "addsd %%xmm7, %%xmm0; movsd %%xmm0, 0(%[v]); fstpl 24(%[v])"
                     : "=a"(result), [a] "=m"(after)
                     : "a"(SYS_tgkill), "D"(pid), "S"(tid), "d"((long)SIGUSR1), [v] "r"(values),
                       [m] "m"(mxcsr)
                     : "rcx", "r11", "xmm0", "xmm7", "memory", "st");
    SHOW(result);
    SHOW(values[0] * 10);
    SHOW(values[3] * 10);
    SHOW(after);
}

static void red_zone_handler(int signo UNUSED)
{
    volatile char noise[256];
    memset((char *)noise, 0xee, sizeof noise);
}

static void red_zone(void)
{
    SECTION("the red zone is left alone");
    signal(SIGUSR1, red_zone_handler);
    long pid = getpid(), tid = syscall(SYS_gettid), below = 0;
    __asm__ volatile("movq $12345, -128(%%rsp); syscall; movq -128(%%rsp), %[b]"
                     : [b] "=r"(below)
                     : "a"(SYS_tgkill), "D"(pid), "S"(tid), "d"((long)SIGUSR1)
                     : "rcx", "r11", "memory");
    SHOW(below);
}

static char *stack_low;
static size_t stack_size;

static void on_stack(int signo UNUSED)
{
    stack_t current;
    char here;
    sigaltstack(NULL, &current);
    say("on the alternate stack: %d flags %d", &here >= stack_low && &here < stack_low + stack_size,
        (int)current.ss_flags);
    CHECK(sigaltstack(&current, NULL));
}

static int recurse(int depth)
{
    volatile char frame[4096];
    frame[0] = (char)depth;
    return depth == 0 ? 0 : recurse(depth - 1) + frame[0] * 0 + 1;
}

static void overflow_handler(int signo, siginfo_t *info, void *context UNUSED)
{
    char here;
    say("overflow: %s code %d on the alternate stack %d", signal_name(signo), info->si_code,
        &here >= stack_low && &here < stack_low + stack_size);
    siglongjmp(recover, 1);
}

static void alternate_stack(void)
{
    SECTION("alternate stack");
    stack_size = 64 * 1024;
    stack_low = malloc(stack_size);
    stack_t stack = {.ss_sp = stack_low, .ss_size = stack_size}, old;
    struct sigaction action = {.sa_handler = on_stack, .sa_flags = SA_ONSTACK};
    CHECK(sigaltstack(NULL, &old));
    SHOW(old.ss_flags);
    CHECK(sigaltstack(&stack, NULL));
    MUST(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    action.sa_flags = 0;
    MUST(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    CHECK(sigaltstack(NULL, &old));
    SHOW(old.ss_flags);
    SHOW(old.ss_sp == stack_low && old.ss_size == stack_size);
    stack_t tiny = {.ss_sp = stack_low, .ss_size = 100};
    stack_t odd = {.ss_sp = stack_low, .ss_size = stack_size, .ss_flags = 99};
    CHECK(sigaltstack(&tiny, NULL));
    CHECK(sigaltstack(&odd, NULL));
    CHECK(syscall(SYS_sigaltstack, 8, NULL));
    struct sigaction overflow = {.sa_sigaction = overflow_handler, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    MUST(sigaction(SIGSEGV, &overflow, NULL));
    if (sigsetjmp(recover, 1) == 0)
        SHOW(recurse(1 << 20));
    stack_t disable = {.ss_flags = SS_DISABLE};
    CHECK(sigaltstack(&disable, NULL));
    CHECK(sigaltstack(NULL, &old));
    SHOW(old.ss_flags);
}

static void overflow_without(void)
{
    signal(SIGSEGV, SIG_DFL);
    recurse(1 << 20);
}

static void blocked_fault(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigprocmask(SIG_BLOCK, &set, NULL);
    *(volatile int *)8 = 1;
}

static void ignored_fault(void)
{
    signal(SIGSEGV, SIG_IGN);
    *(volatile int *)8 = 1;
}

static void bad_frame(void)
{
    __asm__ volatile("xorl %%esp, %%esp; movl $15, %%eax; syscall" ::: "rax", "memory");
}

static void no_stack_for_handler(void)
{
    signal(SIGUSR1, red_zone_handler);
    long pid = getpid(), tid = syscall(SYS_gettid);
    __asm__ volatile("movl $64, %%esp; syscall" ::"a"(SYS_tgkill), "D"(pid), "S"(tid),
                     "d"((long)SIGUSR1)
                     : "rcx", "r11", "memory");
}

int main(void)
{
    faults();
    registers();
    floating_point();
    red_zone();
    alternate_stack();
    SECTION("fatal");
    in_child("stack overflow", overflow_without);
    in_child("fault while blocked", blocked_fault);
    in_child("fault while ignored", ignored_fault);
    in_child("sigreturn without a frame", bad_frame);
    in_child("no stack for the handler", no_stack_for_handler);
    return 0;
}
