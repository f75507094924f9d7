/*
 * For kvm_answers.py: system calls that need no exit beside one that does, in one run, in turns.
 * Prints a line for each: its name and nanoseconds a call, the best of several runs.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RUNS = 5 };
#define LONG_ENOUGH_NS 1e8

static void bench_getpid(long rounds)
{
    long pid = syscall(SYS_getpid);
    for (long i = 0; i < rounds; i++)
        if (syscall(SYS_getpid) != pid)
            exit(1);
}

/* As little as a call can do that has to be looked up. */
static void bench_getpgid(long rounds)
{
    long group = syscall(SYS_getpgid, 0);
    for (long i = 0; i < rounds; i++)
        if (syscall(SYS_getpgid, 0) != group)
            exit(1);
}

static void bench_clock_gettime(long rounds)
{
    struct timespec time;
    for (long i = 0; i < rounds; i++)
        if (clock_gettime(CLOCK_MONOTONIC, &time))
            exit(1);
}

static struct {
    const char *name;
    void (*run)(long rounds);
    long rounds;
    double best;
} benchmarks[] = {
    {"getpid", bench_getpid, 100, 0},
    {"clock_gettime", bench_clock_gettime, 100, 0},
    {"getpgid", bench_getpgid, 100, 0},
};
enum { COUNT = sizeof benchmarks / sizeof *benchmarks };

static double taken_ns(int i)
{
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    benchmarks[i].run(benchmarks[i].rounds);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
}

int main(void)
{
    for (int i = 0; i < COUNT; i++)
        while (taken_ns(i) < LONG_ENOUGH_NS)
            benchmarks[i].rounds *= 2;
    for (int run = 0; run < RUNS; run++) {
        for (int i = 0; i < COUNT; i++) {
            double ns = taken_ns(i) / (double)benchmarks[i].rounds;
            if (run == 0 || ns < benchmarks[i].best)
                benchmarks[i].best = ns;
        }
    }
    for (int i = 0; i < COUNT; i++)
        printf("%s %.1f\n", benchmarks[i].name, benchmarks[i].best);
    return 0;
}
