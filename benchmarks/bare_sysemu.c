/*
 * The cost of one system call under PTRACE_SYSEMU with nothing around it: the least that the ptrace
 * platform can take. Usage: bare_sysemu ROUNDS pinned|free; prints nanoseconds per round trip.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tracee(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    for (;;)
        __asm__ volatile("syscall" : : "a"(SYS_getpid) : "rcx", "r11", "memory");
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long rounds = atol(argv[1]);
    if (!strcmp(argv[2], "pinned")) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    pid_t pid = fork();
    if (pid == 0)
        tracee();
    int status;
    waitpid(pid, &status, __WALL);
    ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, pid, NULL, &regs);
    double start = 0;
    for (long i = -rounds / 10; i < rounds; i++) {
        if (i == 0)
            start = now();
        regs.orig_rax = (unsigned long long)-1;
        if (ptrace(PTRACE_SETREGS, pid, NULL, &regs) || ptrace(PTRACE_SYSEMU, pid, NULL, NULL) ||
            waitpid(pid, &status, __WALL) != pid || ptrace(PTRACE_GETREGS, pid, NULL, &regs))
            return 1;
        regs.rax = 1;
    }
    printf("%.0f\n", (now() - start) / rounds);
    kill(pid, SIGKILL);
    return 0;
}
