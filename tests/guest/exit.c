/* exit(2), exit_group(2): threads, the leader going first, robust lists, clear_child_tid, atexit. */
#include "guest.h"
#include <linux/futex.h>
#include <pthread.h>

static pthread_t leader;
static int fds[2];

static void *exit_group_here(void *argument UNUSED)
{
    syscall(SYS_exit_group, 42);
    return NULL;
}

static void group_from_thread(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, exit_group_here, NULL);
    for (;;)
        pause();
}

static void *outlive_leader(void *argument UNUSED)
{
    pthread_join(leader, NULL);
    say("leader has gone");
    return NULL;
}

static void leader_first(void)
{
    pthread_t thread;
    leader = pthread_self();
    pthread_create(&thread, NULL, outlive_leader, NULL);
    syscall(SYS_exit, 3);
}

static void *fault(void *argument UNUSED)
{
    *(volatile int *)8 = 1;
    return NULL;
}

static void thread_faults(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, fault, NULL);
    pause();
}

static void *block_in_read(void *argument UNUSED)
{
    char byte;
    MUST(read(fds[0], &byte, 1));
    return NULL;
}

static void while_blocked(void)
{
    pthread_t threads[5];
    MUST(pipe(fds));
    for (int i = 0; i < 5; i++)
        pthread_create(&threads[i], NULL, block_in_read, NULL);
    _exit(17);
}

static void *die_with_lock(void *argument)
{
    pthread_mutex_lock(argument);
    return NULL;
}

static void robust(void)
{
    SECTION("robust mutexes");
    pthread_mutexattr_t attributes;
    pthread_mutex_t *mutex = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_t thread;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(mutex, &attributes);
    pthread_create(&thread, NULL, die_with_lock, mutex);
    pthread_join(thread, NULL);
    CODE(pthread_mutex_lock(mutex));
    CODE(pthread_mutex_consistent(mutex));
    CODE(pthread_mutex_unlock(mutex));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        pthread_mutex_lock(mutex);
        _exit(0);
    }
    reap("process", pid);
    CODE(pthread_mutex_lock(mutex));
    CODE(pthread_mutex_unlock(mutex));
    CODE(pthread_mutex_lock(mutex));
    void *head;
    size_t length;
    CHECK(syscall(SYS_get_robust_list, 0, &head, &length));
    SHOW(length);
    CHECK(syscall(SYS_set_robust_list, head, 8));
    CHECK(syscall(SYS_get_robust_list, 1 << 30, &head, &length));
}

static void clear_tid(void)
{
    SECTION("clear_child_tid");
    int *word = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *word = 1;
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        syscall(SYS_set_tid_address, word);
        _exit(0);
    }
    reap("the last user of its memory", pid);
    SHOW(*word);
}

static void first(void)
{
    puts("handler registered first");
}

static void second(void)
{
    puts("handler registered second");
}

static void handlers(void)
{
    atexit(first);
    atexit(second);
    fputs("buffered without newline; ", stdout);
    exit(5);
}

static void aborts(void)
{
    abort();
}

static void aborts_ignored(void)
{
    signal(SIGABRT, SIG_IGN);
    abort();
}

int main(void)
{
    SECTION("threads");
    in_child("exit_group in a thread", group_from_thread);
    in_child("leader first", leader_first);
    in_child("a thread faults", thread_faults);
    in_child("others blocked", while_blocked);
    SECTION("handlers");
    in_child("atexit", handlers);
    in_child("abort", aborts);
    in_child("abort with SIGABRT ignored", aborts_ignored);
    robust();
    clear_tid();
    return 0;
}
