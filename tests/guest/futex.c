/* futex(2): wait and wake, bitsets, requeue, wake_op, PI, timeouts, waitv, private and shared. */
#include "guest.h"
#include <linux/futex.h>
#include <pthread.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

static int word, other;
static int woken;

static long futex(int *uaddr, int op, int value, const struct timespec *timeout, int *uaddr2, int value3)
{
    return syscall(SYS_futex, uaddr, op, value, timeout, uaddr2, value3);
}

static void *wait_here(void *argument)
{
    unsigned bits = (unsigned)(uintptr_t)argument;
    long result = futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, (int)bits);
    __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
    return (void *)(result == 0 ? 0L : (long)errno);
}

/* Wake until `want` waiters have been woken: they may not have gone to sleep yet. */
static long wake(int *uaddr, int op, int want, int bits)
{
    long total = 0;
    while (total < want) {
        long got = futex(uaddr, op, (int)(want - total), NULL, NULL, bits);
        if (got < 0)
            return got;
        total += got;
        sched_yield();
    }
    return total;
}

static void errors(void)
{
    SECTION("errors");
    struct timespec invalid = {0, 1000000000}, negative = {-1, 0}, zero = {0, 0};
    char *memory = pages(1);
    CHECK(futex(&word, FUTEX_WAIT, 1, NULL, NULL, 0));
    CHECK(futex(&word, FUTEX_WAIT, 0, &zero, NULL, 0));
    CHECK(futex(&word, FUTEX_WAIT, 0, &invalid, NULL, 0));
    CHECK(futex(&word, FUTEX_WAIT, 0, &negative, NULL, 0));
    CHECK(futex((int *)((char *)&word + 1), FUTEX_WAIT, 0, NULL, NULL, 0));
    CHECK(futex((int *)8, FUTEX_WAIT, 0, NULL, NULL, 0));
    CHECK(futex((int *)8, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    CHECK(futex((int *)8, FUTEX_WAKE, 1, NULL, NULL, 0));
    CHECK(futex(NULL, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
    CHECK(futex((int *)0xffff800000000000, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
    CHECK(futex(&word, FUTEX_WAIT, 0, (struct timespec *)8, NULL, 0));
    CHECK(futex(&word, FUTEX_WAIT_BITSET, 0, &zero, NULL, 0));
    CHECK(futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0));
    CHECK(futex(&word, 77, 0, NULL, NULL, 0));
    CHECK(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0));
    CHECK(futex(&word, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0));
    MUST(mprotect(memory, PAGE, PROT_READ));
    CHECK(futex((int *)memory, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0));
    CHECK(futex(&word, FUTEX_CMP_REQUEUE, 1, NULL, &other, 1));
    CHECK(futex(&word, FUTEX_CMP_REQUEUE, -1, NULL, &other, 0));
}

static void timeouts(void)
{
    SECTION("timeouts");
    struct timespec relative = {0, 2000000}, past = {1, 0}, now;
    CHECK(futex(&word, FUTEX_WAIT_PRIVATE, 0, &relative, NULL, 0));
    CHECK(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &past, NULL, -1));
    CHECK(futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &past, NULL, -1));
    clock_gettime(CLOCK_MONOTONIC, &now);
    now.tv_nsec += 2000000;
    if (now.tv_nsec >= 1000000000) {
        now.tv_sec++;
        now.tv_nsec -= 1000000000;
    }
    CHECK(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &now, NULL, -1));
}

static void waking(void)
{
    SECTION("wake");
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, wait_here, (void *)(uintptr_t)(i < 4 ? 1 : 2));
    SHOW(wake(&word, FUTEX_WAKE_BITSET_PRIVATE, 4, 2));
    for (int i = 4; i < 8; i++)
        pthread_join(threads[i], NULL);
    SHOW(woken);
    SHOW(wake(&word, FUTEX_WAKE_PRIVATE, 4, 0));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    SHOW(woken);
    CHECK(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
}

static void requeue(void)
{
    SECTION("requeue");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, wait_here, (void *)(uintptr_t)0xffffffff);
    long moved = 0;
    while (moved < 4) {
        long got = futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 0, (struct timespec *)8L, &other, 0);
        moved += got > 0 ? got : 0;
        sched_yield();
    }
    SHOW(moved);
    CHECK(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    CHECK(futex(&other, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void wake_op(void)
{
    SECTION("wake_op");
    int target = 5;
    static const struct { const char *name; int op; } table[] = {
        {"set", FUTEX_OP(FUTEX_OP_SET, 9, FUTEX_OP_CMP_EQ, 5)},
        {"add", FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_NE, 5)},
        {"or", FUTEX_OP(FUTEX_OP_OR, 16, FUTEX_OP_CMP_LT, 5)},
        {"andn", FUTEX_OP(FUTEX_OP_ANDN, 4, FUTEX_OP_CMP_GE, 5)},
        {"xor", FUTEX_OP(FUTEX_OP_XOR, 1, FUTEX_OP_CMP_GT, 5)},
        {"shifted", FUTEX_OP((FUTEX_OP_ADD | FUTEX_OP_OPARG_SHIFT), 4, FUTEX_OP_CMP_LE, 5)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        long result = futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (struct timespec *)1L, &target, table[i].op);
        say("%s: %ld target %d", table[i].name, result, target);
    }
    CHECK(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (struct timespec *)1L, &target, 0x70000000));
    CHECK(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (struct timespec *)1L, (int *)8, table[0].op));
}

static void between_processes(void)
{
    SECTION("between processes");
    int *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0)
        _exit(futex(shared, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 0 : errno);
    SHOW(wake(shared, FUTEX_WAKE, 1, 0));
    reap("waiter", pid);
    put_file("file", "0123456789abcdef");
    int fd = (int)MUST(open("file", O_RDWR));
    int *one = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int *two = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int value = *one;
    pid = (pid_t)MUST(fork());
    if (pid == 0)
        _exit(futex(one, FUTEX_WAIT, value, NULL, NULL, 0) == 0 ? 0 : errno);
    SHOW(wake(two, FUTEX_WAKE, 1, 0));
    reap("waiter on a file", pid);
}

static void *lock_and_die(void *argument)
{
    return (void *)futex(argument, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0);
}

static void inheritance(void)
{
    SECTION("priority inheritance");
    int lock = 0, tid = (int)syscall(SYS_gettid);
    CHECK(futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    SHOW((lock & FUTEX_TID_MASK) == tid);
    CHECK(futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    CHECK(futex(&lock, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    pthread_t thread;
    pthread_create(&thread, NULL, lock_and_die, &lock);
    while (!(__atomic_load_n(&lock, __ATOMIC_SEQ_CST) & (int)FUTEX_WAITERS))
        sched_yield();
    CHECK(futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    void *result;
    pthread_join(thread, &result);
    SHOW(result == NULL);
    CHECK(futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    lock = 1 << 29;
    CHECK(futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
}

static void *set_and_wake(void *argument)
{
    while (wake(argument, FUTEX_WAKE, 1, 0) < 1)
        ;
    return NULL;
}

static void vectors(void)
{
    SECTION("waitv");
    int words[3] = {1, 2, 3};
    struct futex_waitv waiters[3];
    struct timespec past = {1, 0};
    memset(waiters, 0, sizeof waiters);
    for (int i = 0; i < 3; i++) {
        waiters[i].uaddr = (uintptr_t)&words[i];
        waiters[i].val = (uint64_t)i + 1;
        waiters[i].flags = FUTEX_32;
    }
    CHECK(syscall(SYS_futex_waitv, waiters, 3, 0, &past, CLOCK_MONOTONIC));
    CHECK(syscall(SYS_futex_waitv, waiters, 0, 0, NULL, 0));
    CHECK(syscall(SYS_futex_waitv, waiters, 129, 0, NULL, 0));
    CHECK(syscall(SYS_futex_waitv, waiters, 3, 1, NULL, 0));
    CHECK(syscall(SYS_futex_waitv, 8, 3, 0, NULL, 0));
    waiters[1].val = 7;
    CHECK(syscall(SYS_futex_waitv, waiters, 3, 0, NULL, 0));
    waiters[1].val = 2;
    pthread_t thread;
    pthread_create(&thread, NULL, set_and_wake, &words[2]);
    CHECK(syscall(SYS_futex_waitv, waiters, 3, 0, NULL, 0));
    pthread_join(thread, NULL);
    waiters[0].flags = 0x40;
    CHECK(syscall(SYS_futex_waitv, waiters, 3, 0, NULL, 0));
}

int main(void)
{
    errors();
    timeouts();
    waking();
    requeue();
    wake_op();
    between_processes();
    inheritance();
    vectors();
    return 0;
}
