/*
 * Several processes at once; what benchmarks/several.py runs.
 *
 * Usage: several calls|compute|pipe N COUNT. N processes share COUNT rounds of one system call, or
 * of computing; with `pipe`, two pass a byte back and forth COUNT times. Prints nanoseconds a round,
 * of all together.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 1000 };                  /* of computing in a round */

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void calls(long count)
{
    for (long i = 0; i < count; i++)
        syscall(SYS_getppid);
}

static void compute(long count)
{
    volatile unsigned long x = 1;
    for (long i = 0; i < count * STEPS; i++)
        x = x * 31 + 7;
}

static int pass(int from, int to)
{
    char byte = 0;
    return read(from, &byte, 1) == 1 && write(to, &byte, 1) == 1;
}

static void back_and_forth(long count)
{
    int there[2], back[2];
    if (pipe(there) || pipe(back) || write(back[1], "", 1) != 1)
        exit(1);
    if (fork() == 0) {
        for (long i = 0; i < count && pass(there[0], back[1]); i++)
            ;
        _exit(0);
    }
    for (long i = 0; i < count && pass(back[0], there[1]); i++)
        ;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    bool is_pipe = !strcmp(argv[1], "pipe"), is_calls = !strcmp(argv[1], "calls");
    int processes = atoi(argv[2]);
    long count = atol(argv[3]);
    double started = now_ns();
    if (is_pipe)
        back_and_forth(count);
    for (int i = 0; i < processes && !is_pipe; i++) {
        if (fork() == 0) {
            (is_calls ? calls : compute)(count / processes);
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        ;
    printf("%.0f\n", (now_ns() - started) / (double)count);
    return 0;
}
