/* Vector and x87 state: kept over system calls, page faults, fork, context switches and threads. */
#include "guest.h"
#include <pthread.h>

static volatile int mismatches;
static pthread_barrier_t barrier;

__attribute__((target("avx2"))) static int survives(int seed, void (*between)(void *), void *argument)
{
    static __thread unsigned char before[16][32], after[16][32];
    for (int i = 0; i < 16; i++)
        memset(before[i], seed + i, 32);
    __asm__ volatile(
        "vmovdqu 0(%0), %%ymm0; vmovdqu 32(%0), %%ymm1; vmovdqu 256(%0), %%ymm8; vmovdqu 480(%0), %%ymm15;"
        "push %0; push %1; sub $136, %%rsp;"
        "mov %3, %%rdi; call *%2;"
        "add $136, %%rsp; pop %1; pop %0;"
        "vmovdqu %%ymm0, 0(%1); vmovdqu %%ymm1, 32(%1); vmovdqu %%ymm8, 256(%1); vmovdqu %%ymm15, 480(%1);"
        :
        : "b"(before), "r"((unsigned char(*)[32])after), "r"(between), "r"(argument)
        : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc", "ymm0", "ymm1",
          "ymm8", "ymm15");
    return memcmp(before[0], after[0], 64) | memcmp(before[8], after[8], 32) |
           memcmp(before[15], after[15], 32);
}

/* These touch no vector register themselves: they are bare system calls and loops. */
static long raw(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

__attribute__((target("general-regs-only"))) static void make_call(void *argument UNUSED)
{
    for (int i = 0; i < 10; i++)
        raw(SYS_getppid, 0, 0, 0);
}

__attribute__((target("general-regs-only"))) static void make_yield(void *argument UNUSED)
{
    for (int i = 0; i < 50; i++)
        raw(SYS_sched_yield, 0, 0, 0);
}

__attribute__((target("general-regs-only"))) static void make_fault(void *argument)
{
    for (int i = 0; i < 16; i++)
        ((volatile char *)argument)[(unsigned long)i * PAGE] = 1;
}

__attribute__((target("general-regs-only"))) static void make_spin(void *argument UNUSED)
{
    for (volatile long i = 0; i < 3000000; i++)
        ;
}

static void *in_thread(void *argument)
{
    int seed = (int)(intptr_t)argument;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 5; i++) {
        if (survives(seed + i, make_yield, NULL) != 0)
            mismatches++;
        if (survives(seed + i, make_spin, NULL) != 0)
            mismatches++;
    }
    return NULL;
}

int main(void)
{
    if (!__builtin_cpu_supports("avx2")) {
        SECTION("vectors");
        skip("the processor has no AVX2");
        return 0;
    }
    SECTION("system calls");
    SHOW(survives(1, make_call, NULL));
    SHOW(survives(2, make_yield, NULL));
    SECTION("page faults");
    SHOW(survives(3, make_fault, pages(16)));
    SECTION("processes");
    for (int i = 0; i < 3; i++)
        if (fork() == 0)
            _exit(survives(40 * i, make_spin, NULL) | survives(40 * i, make_yield, NULL) ? 1 : 0);
    for (int i = 0; i < 3; i++) {
        int status;
        wait(&status);
        show_status("child", status);
    }
    SECTION("threads");
    pthread_t threads[4];
    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, in_thread, (void *)(intptr_t)(i * 50));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    SHOW(mismatches);
    SECTION("control words");
    unsigned mxcsr = 0x5f80, got;
    unsigned short control = 0x0f7f, got_control;
    __asm__ volatile("ldmxcsr %0; fldcw %1" ::"m"(mxcsr), "m"(control));
    pid_t pid = fork();
    if (pid == 0) {
        __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(got), "=m"(got_control));
        _exit(got == mxcsr && got_control == control ? 0 : 1);
    }
    __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(got), "=m"(got_control));
    mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0; fninit" ::"m"(mxcsr));
    say("parent %#x %#x", got, got_control);
    reap("child inherits", pid);
    return 0;
}
