/*
 * For kvm_call.py: a clock around KVM_RUN, and a platform's round trips in a loop of C.
 *
 * It is loaded with LD_PRELOAD and takes the place of ioctl(), so that what is measured is the
 * platform as users have it, with no clock of its own. The program in the guest notes the time-stamp
 * counter when it begins in ring 3 and before it leaves; with the same counter read here, before
 * and after KVM_RUN, the way in and the way out come apart.
 *
 * Build: cc -O2 -shared -fPIC -o ioctl_clock.so ioctl_clock.c
 */
#define _GNU_SOURCE
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum { RUN_SIZE = 4096, RAX = 10 };

/* What the guest noted: the counter at its first instruction in ring 3, and before its last. */
static volatile const uint64_t *guest_times;
static int last_fd = -1;

/* Sums, in ticks. */
static struct {
    uint64_t runs, inside, entering, leaving;
} sum;

int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (request == KVM_RUN)
        last_fd = fd;
    if (request != KVM_RUN || !guest_times)
        return (int)syscall(SYS_ioctl, fd, request, argument);
    uint64_t before = __rdtsc();
    int result = (int)syscall(SYS_ioctl, fd, request, argument);
    uint64_t after = __rdtsc();
    sum.runs++;
    sum.inside += after - before;
    sum.entering += guest_times[0] - before;
    sum.leaving += after - guest_times[1];
    return result;
}

/* NULL switches the clock off. */
void clock_set(const uint64_t *times)
{
    guest_times = times;
    sum.runs = sum.inside = sum.entering = sum.leaving = 0;
}

void clock_read(uint64_t out[4])
{
    out[0] = sum.runs;
    out[1] = sum.inside;
    out[2] = sum.entering;
    out[3] = sum.leaving;
}

/* What a platform's `resume` and `wait` do in C, without Python around it. Ticks, or -1. */
int64_t round_trips(int (*resume)(void *context, void *space), int64_t (*wait)(void *, int64_t),
                    void *platform, void *context, void *space, int64_t rounds)
{
    uint64_t *regs = context, began = __rdtsc();
    for (int64_t i = 0; i < rounds; i++) {
        regs[RAX] = 1;
        if (resume(context, space))
            return -1;
        while (wait(platform, -1) < 0)
            ;
    }
    return (int64_t)(__rdtsc() - began);
}

/* KVM_RUN that comes back before it enters the guest: what the call itself costs. Ticks, or -1. */
int64_t empty_runs(int64_t rounds)
{
    struct kvm_run *run = mmap(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, last_fd, 0);
    if (run == MAP_FAILED)
        return -1;
    run->immediate_exit = 1;
    uint64_t began = __rdtsc();
    for (int64_t i = 0; i < rounds; i++)
        syscall(SYS_ioctl, last_fd, KVM_RUN, 0);
    uint64_t ticks = __rdtsc() - began;
    run->immediate_exit = 0;
    munmap(run, RUN_SIZE);
    return (int64_t)ticks;
}

/* Nanoseconds of one tick of the counter. */
double tick_ns(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    uint64_t began = __rdtsc(), now;
    do
        now = __rdtsc();
    while (now - began < 100000000);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) /
           (double)(now - began);
}
