/*
 * What system calls cost, one kind at a time. The same binary runs natively and in the sandbox.
 * Usage: syscalls NAME ROUNDS; prints nanoseconds per round. `syscalls list` prints the names.
 *
 * Every benchmark checks what the calls return: a kernel that refuses quickly is not fast.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void bench_getpid(long rounds)
{
    long pid = syscall(SYS_getpid);
    for (long i = 0; i < rounds; i++)
        check(syscall(SYS_getpid) == pid, "getpid");
}

/* As little as a call can do that a kernel has to look something up for. */
static void bench_getpgid(long rounds)
{
    long group = syscall(SYS_getpgid, 0);
    for (long i = 0; i < rounds; i++)
        check(syscall(SYS_getpgid, 0) == group, "getpgid");
}

static void bench_clock_gettime(long rounds)
{
    struct timespec t;
    for (long i = 0; i < rounds; i++)
        check(clock_gettime(CLOCK_MONOTONIC, &t) == 0, "clock_gettime");
}

static int scratch(void)
{
    char name[] = "/tmp/pysandbox-bench-XXXXXX";
    int fd = mkstemp(name);
    check(fd >= 0 && unlink(name) == 0, "mkstemp");
    return fd;
}

static void bench_pwrite_4k(long rounds)
{
    static char page[4096];
    int fd = scratch();
    for (long i = 0; i < rounds; i++)
        check(pwrite(fd, page, sizeof page, 0) == sizeof page, "pwrite");
    close(fd);
}

static void bench_pread_4k(long rounds)
{
    static char page[4096];
    int fd = scratch();
    check(pwrite(fd, page, sizeof page, 0) == sizeof page, "pwrite");
    for (long i = 0; i < rounds; i++)
        check(pread(fd, page, sizeof page, 0) == sizeof page, "pread");
    close(fd);
}

static void bench_stat(long rounds)
{
    struct stat status;
    for (long i = 0; i < rounds; i++)
        check(stat("/usr/bin/env", &status) == 0, "stat");
}

static void bench_open_close(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        int fd = open("/usr/bin/env", O_RDONLY | O_CLOEXEC);
        check(fd >= 0 && close(fd) == 0, "open");
    }
}

static void bench_mmap_munmap(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(p != MAP_FAILED, "mmap");
        p[0] = 1;
        check(munmap(p, 65536) == 0, "munmap");
    }
}

static void bench_touch_page(long rounds)
{
    size_t size = rounds * 4096;
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "mmap");
    for (long i = 0; i < rounds; i++)
        p[i * 4096] = 1;
    munmap(p, size);
}

static void bench_futex_wake(long rounds)
{
    static int word;
    for (long i = 0; i < rounds; i++)
        check(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 0, "futex");
}

static int ping[2], pong[2];

static void *echo(void *arg)
{
    char byte;
    (void)arg;
    while (read(ping[0], &byte, 1) == 1)
        check(write(pong[1], &byte, 1) == 1, "write");
    return NULL;
}

static void play(long rounds)
{
    char byte = 0;
    for (long i = 0; i < rounds; i++)
        check(write(ping[1], &byte, 1) == 1 && read(pong[0], &byte, 1) == 1, "ping-pong");
}

static void bench_pipe_processes(long rounds)
{
    check(pipe(ping) == 0 && pipe(pong) == 0, "pipe");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        close(ping[1]);
        echo(NULL);
        _exit(0);
    }
    play(rounds);
    close(ping[1]);
    check(waitpid(child, NULL, 0) == child, "waitpid");
}

static void bench_pipe_threads(long rounds)
{
    pthread_t thread;
    check(pipe(ping) == 0 && pipe(pong) == 0, "pipe");
    check(pthread_create(&thread, NULL, echo, NULL) == 0, "pthread_create");
    play(rounds);
    close(ping[1]);
    pthread_join(thread, NULL);
}

static void bench_fork_wait(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0)
            _exit(0);
        check(waitpid(child, NULL, 0) == child, "waitpid");
    }
}

static void bench_spawn_wait(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        char *argv[] = {"true", NULL};
        pid_t child;
        errno = posix_spawn(&child, "/bin/true", NULL, NULL, argv, NULL);
        check(errno == 0, "posix_spawn");
        int status;
        check(waitpid(child, &status, 0) == child && status == 0, "waitpid");
    }
}

static void *nothing(void *arg)
{
    return arg;
}

static void bench_thread_join(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, nothing, NULL) == 0, "pthread_create");
        check(pthread_join(thread, NULL) == 0, "pthread_join");
    }
}

static void bench_compute(long rounds)
{
    volatile unsigned long x = 1;
    for (long i = 0; i < rounds; i++)
        for (int j = 0; j < 1000; j++)
            x = x * 2862933555777941757UL + 3037000493UL;
}

static const struct {
    const char *name;
    void (*run)(long rounds);
} benchmarks[] = {
    {"getpid", bench_getpid},
    {"getpgid", bench_getpgid},
    {"clock_gettime", bench_clock_gettime},
    {"pread_4k", bench_pread_4k},
    {"pwrite_4k", bench_pwrite_4k},
    {"stat", bench_stat},
    {"open_close", bench_open_close},
    {"mmap_munmap", bench_mmap_munmap},
    {"touch_page", bench_touch_page},
    {"futex_wake", bench_futex_wake},
    {"pipe_threads", bench_pipe_threads},
    {"pipe_processes", bench_pipe_processes},
    {"thread_join", bench_thread_join},
    {"fork_wait", bench_fork_wait},
    {"spawn_wait", bench_spawn_wait},
    {"compute", bench_compute},
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv)
{
    size_t count = sizeof benchmarks / sizeof benchmarks[0];
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (size_t i = 0; i < count; i++)
            puts(benchmarks[i].name);
        return 0;
    }
    for (size_t i = 0; argc == 3 && i < count; i++) {
        if (strcmp(argv[1], benchmarks[i].name))
            continue;
        long rounds = atol(argv[2]);
        double start = now();
        benchmarks[i].run(rounds);
        printf("%.1f\n", (now() - start) / rounds);
        return 0;
    }
    fprintf(stderr, "usage: syscalls NAME ROUNDS | syscalls list\n");
    return 2;
}
