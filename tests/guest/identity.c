/* getpid(2), gettid(2), getuid(2) and their kin, which a platform may answer by itself: what they
 * return after fork, clone, execve and setresuid, and what SYSCALL leaves of the registers. */
#include "guest.h"
#include <pthread.h>
#include <ucontext.h>

#define TF 0x100UL

struct ids {
    long pid, tid, uid, euid, gid, egid;
};

static struct ids ids(void)
{
    return (struct ids){
        syscall(SYS_getpid), syscall(SYS_gettid), syscall(SYS_getuid),
        syscall(SYS_geteuid), syscall(SYS_getgid), syscall(SYS_getegid),
    };
}

static void show_users(const char *label)
{
    struct ids now = ids();
    say("%s: uid %ld %ld gid %ld %ld", label, now.uid, now.euid, now.gid, now.egid);
}

static void processes(void)
{
    SECTION("processes");
    struct ids own = ids();
    SHOW(own.pid == own.tid);
    int pipe_fds[2];
    MUST(pipe(pipe_fds));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        struct ids seen = ids();
        say("parent %d", getppid() == own.pid);
        _exit(write(pipe_fds[1], &seen, sizeof seen) != sizeof seen);
    }
    reap("child", child);
    struct ids seen;
    MUST(read(pipe_fds[0], &seen, sizeof seen));
    SHOW(seen.pid == child && seen.tid == child);
    SHOW(seen.uid == own.uid && seen.egid == own.egid);
    SHOW(ids().pid == own.pid);
    pid_t vfork_child = vfork();
    if (vfork_child == 0)
        _exit(syscall(SYS_getpid) == own.pid);
    reap("vfork", vfork_child);
    SHOW(ids().tid == own.tid);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static pthread_barrier_t barrier;

/* The same answers all the time, while others ask as well. */
static void *ask(void *result)
{
    struct ids first = ids();
    long wrong = 0;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 2000; i++) {
        struct ids again = ids();
        wrong += memcmp(&first, &again, sizeof first) != 0;
    }
    *(long *)result = wrong ? -wrong : first.tid;
    return (void *)first.pid;
}

static void threads(void)
{
    SECTION("threads");
    enum { COUNT = 6 };
    pthread_t thread[COUNT];
    long tid[COUNT], same_pid = 0, distinct = 0;
    pthread_barrier_init(&barrier, NULL, COUNT);
    for (int i = 0; i < COUNT; i++)
        CODE(pthread_create(&thread[i], NULL, ask, &tid[i]));
    for (int i = 0; i < COUNT; i++) {
        void *pid;
        pthread_join(thread[i], &pid);
        same_pid += (long)pid == syscall(SYS_getpid);
    }
    for (int i = 0; i < COUNT; i++) {
        distinct += tid[i] > 0 && tid[i] != syscall(SYS_gettid);
        for (int j = 0; j < i; j++)
            distinct -= tid[i] == tid[j];
    }
    SHOW(same_pid);
    SHOW(distinct);
}

/* The system call is one thread's; the C library would change all of them. */
static void *drop(void *unused UNUSED)
{
    CHECK(syscall(SYS_setresgid, 7, 8, 9));
    show_users("group dropped");
    CHECK(syscall(SYS_setresuid, 1, 2, 3));
    show_users("dropped");
    CHECK(syscall(SYS_setresuid, -1, 3, -1));
    show_users("to the saved one");
    CHECK(syscall(SYS_setresuid, 0, 0, 0));
    show_users("not back");
    return NULL;
}

static void users(void)
{
    SECTION("users");
    if (geteuid() != 0) {
        skip("needs root");
        return;
    }
    pthread_t thread;
    show_users("before");
    pthread_create(&thread, NULL, drop, NULL);
    pthread_join(thread, NULL);
    show_users("this thread");
}

static long call(unsigned long number)
{
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(number) : "rcx", "r11", "memory");
    return result;
}

static void registers(void)
{
    SECTION("registers");
    long pid = getpid();
    SHOW(call(SYS_getpid | 0x1234500000000) == pid);
    SHOW(call(SYS_getpid | 0xffffffff00000000) == pid);
    SHOW(call(SYS_getpid | 0x80000000));
    unsigned long result = SYS_getpid, rip = 1, flags = 2, before, after, here, sum = 0;
    register unsigned long r8 asm("r8") = 8, r9 asm("r9") = 9, r10 asm("r10") = 10;
    register unsigned long r11 asm("r11");
    unsigned long rdi = 5, rsi = 6, rdx = 7;
    asm volatile("sub $128, %%rsp\n stc\n std\n"
                 "pushfq\n popq %[before]\n syscall\n"
                 "0: pushfq\n popq %[after]\n cld\n"
                 "lea 0b(%%rip), %[here]\n add $128, %%rsp"
                 : "+a"(result), "=c"(rip), "=r"(r11), [before] "=&b"(before),
                   [after] "=&r"(after), [here] "=&r"(here), "+D"(rdi), "+S"(rsi), "+d"(rdx),
                   "+r"(r8), "+r"(r9), "+r"(r10)
                 :
                 : "memory", "cc");
    flags = r11;
    sum = rdi | rsi << 8 | rdx << 16 | r8 << 24 | r9 << 32 | r10 << 40;
    SHOW(result == (unsigned long)pid);
    SHOW(rip == here);
    SHOW(flags == before);
    SHOW(after == before);
    printf("arguments: %#lx\n", sum);
}

enum { MAX_TRAPS = 16 };
static long traps[MAX_TRAPS];
static int ntraps;

static void on_trap(int signo UNUSED, siginfo_t *info UNUSED, void *context)
{
    if (ntraps < MAX_TRAPS)
        traps[ntraps++] = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}

/* Linux returns by IRET: the trap comes behind the instruction that follows. */
static void single_step(void)
{
    SECTION("single step");
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    long start, result = SYS_getpid;
    asm volatile("sub $128, %%rsp\n pushfq\n orq %[tf], (%%rsp)\n popfq\n"
                 "0: nop\n syscall\n nop\n nop\n"
                 "pushfq\n andq %[not_tf], (%%rsp)\n popfq\n"
                 "lea 0b(%%rip), %[start]\n add $128, %%rsp"
                 : "+a"(result), [start] "=&r"(start)
                 : [tf] "i"(TF), [not_tf] "i"(~TF)
                 : "rcx", "r11", "memory", "cc");
    SHOW(result == getpid());
    for (int i = 0; i < ntraps; i++)
        say("trap at %ld", traps[i] - start);
    signal(SIGTRAP, SIG_DFL);
}

int main(void)
{
    processes();
    threads();
    users();
    registers();
    single_step();
    return 0;
}
