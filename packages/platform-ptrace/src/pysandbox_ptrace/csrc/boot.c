/*
 * The first stub process, the master, from which all others are cloned.
 *
 * It is cloned from the sentry without CLONE_VM and with CLONE_FILES, so that an injected mmap can
 * name the sentry's descriptors. Between clone and attach it waits on a futex; the sentry attaches
 * with PTRACE_SEIZE, which sets PTRACE_O_EXITKILL in the same step, and only then lets it go on.
 * Until then PR_SET_PDEATHSIG sees to it that it ends with the sentry. The stub runs from the two
 * mappings of the region below, uses no stack, and gives up everything else (stub_image_amd64.c).
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* By step number of the stub's start-up code. */
static const char *const STEPS[] = {
    "start the stub", "prctl(PR_SET_PDEATHSIG)", "rseq(RSEQ_FLAG_UNREGISTER)", "sigaltstack",
    "prctl(PR_SET_NO_NEW_PRIVS)", "munmap below the stub", "munmap above the stub (sealed?)",
    "mmap of the stub's code", "mmap of the batch pages", "munmap of the start-up pages",
    "seccomp(SECCOMP_SET_MODE_FILTER)",
};
enum { NSTEPS = sizeof STEPS / sizeof STEPS[0] };

typedef struct {
    int code_fd, batch_fd;
    uint8_t *region;        /* code page and batch pages, side by side as in a stub */
} boot_pages;

static int make_pages(boot_pages *b)
{
    b->code_fd = memfd_create("pysandbox-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (b->code_fd < 0)
        return -errno;
    int error = stub_image_write(b->code_fd);
    if (error)
        return error;
    const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (fcntl(b->code_fd, F_ADD_SEALS, seals) < 0)
        return -errno;
    b->batch_fd = memfd_create("pysandbox-batch", MFD_CLOEXEC);
    if (b->batch_fd < 0 || ftruncate(b->batch_fd, sizeof(pt_stub_shared)) < 0)
        return -errno;
    void *region = mmap(NULL, PT_STUB_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED)
        return -errno;
    b->region = region;
    if ((uintptr_t)region + PT_STUB_SIZE > PT_STUB_BASE)
        return -EADDRINUSE;
    const int flags = MAP_SHARED | MAP_FIXED;
    void *code = mmap(region, PT_PAGE, PROT_READ | PROT_EXEC, flags, b->code_fd, 0);
    void *batch = mmap(b->region + PT_PAGE, sizeof(pt_stub_shared), PROT_READ | PROT_WRITE, flags,
                       b->batch_fd, 0);
    return code == MAP_FAILED || batch == MAP_FAILED ? -errno : 0;
}

/* The descriptors and the code are the stub's alone from now on; the batch pages stay. */
static void drop_pages(boot_pages *b, bool all)
{
    if (b->code_fd >= 0)
        close(b->code_fd);
    if (b->batch_fd >= 0)
        close(b->batch_fd);
    if (b->region)
        munmap(b->region, all ? PT_STUB_SIZE : PT_PAGE);
}

/* clone(2) into the code page. The child runs on registers alone: its stack is about to go. */
static pid_t clone_into(const uint8_t *entry, const pt_stub_shared *shared)
{
    register uint64_t r10 __asm__("r10") = 0;
    register uint64_t r8 __asm__("r8") = 0;
    register uint64_t r14 __asm__("r14") = (uintptr_t)entry;
    register uint64_t r15 __asm__("r15") = (uintptr_t)shared;
    int64_t result;
    __asm__ volatile("syscall\n"
                     "test %%rax, %%rax\n"
                     "jnz 1f\n"
                     "jmp *%%r14\n"
                     "1:"
                     : "=a"(result)
                     : "a"(SYS_clone), "D"(CLONE_FILES | CLONE_FS), "S"(0), "d"(0), "r"(r10), "r"(r8),
                       "r"(r14), "r"(r15)
                     : "rcx", "r11", "memory");
    return (pid_t)result;
}

/* What the child must be told about itself that only the kernel knows. */
static void describe(pid_t pid, pt_stub_shared *shared)
{
    struct __ptrace_rseq_configuration rseq = {0};
    if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, pid, sizeof rseq, &rseq) == sizeof rseq) {
        shared->rseq_addr = rseq.rseq_abi_pointer;
        shared->rseq_size = rseq.rseq_abi_pointer ? rseq.rseq_abi_size : 0;
        shared->rseq_signature = rseq.signature;
    }
    /* A limit of 1 byte, unlike 0, also keeps core dumps from going to a pipe; core(5). */
    struct rlimit core = {0};
    getrlimit(RLIMIT_CORE, &core);
    shared->core_limit[0] = shared->core_limit[1] = core.rlim_max < 1 ? 0 : 1;
}

/* Waits for a stop with this signal and no event; anything else but death is let go on. */
static int wait_for(pid_t pid, int event, int *status)
{
    for (;;) {
        int error = tracee_wait(pid, status);
        if (error)
            return error;
        if (!WIFSTOPPED(*status))
            return -ECHILD;
        if (*status >> 16 == event && WSTOPSIG(*status) == SIGTRAP)
            return 0;
        if ((error = tracee_cont(pid)))
            return error;
    }
}

/* Has it ended? Its exit status is left to be taken. */
static bool has_ended(pid_t pid)
{
    siginfo_t info = {0};
    return !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) && info.si_pid;
}

static int bring_up(pt_platform *p, pid_t pid, pt_stub_shared *shared)
{
    int status = 0;
    int error = tracee_seize(pid);
    if (error && has_ended(pid))        /* EPERM says that too */
        return pt_fail(p, -ECHILD, "the first stub process was killed in its start");
    if (error == -EPERM && prctl(PR_GET_DUMPABLE) != 1)
        return pt_fail(p, error, "ptrace is refused to a process that changed its uid; prctl("
                                 "PR_SET_DUMPABLE, 1) after the change allows it");
    if (error)
        return pt_fail(p, error, "ptrace is refused (PTRACE_SEIZE: %s)", strerror(-error));
    if ((error = tracee_interrupt(pid)) || (error = wait_for(pid, PTRACE_EVENT_STOP, &status)))
        return pt_fail(p, error, "the first stub process ended at once, status %#x", status);
    describe(pid, shared);
    __atomic_store_n(&shared->go, 1, __ATOMIC_SEQ_CST);
    /* No futex wake: the stop above has ended its wait, or it has not begun to wait. */
    if ((error = tracee_cont(pid)) || (error = wait_for(pid, 0, &status)))
        return pt_fail(p, error, "the first stub process ended in its start, status %#x", status);
    struct user_regs_struct regs;
    if ((error = tracee_get_regs(pid, &regs)))
        return pt_fail(p, error, "PTRACE_GETREGS");
    if (regs.r14 != 0 || regs.rip < PT_STUB_BASE) {
        error = (int64_t)regs.rax < 0 && (int64_t)regs.rax >= -4095 ? (int)regs.rax : -EPROTO;
        return pt_fail(p, error, "the first stub process: %s: %s",
                       STEPS[regs.r14 < NSTEPS ? regs.r14 : 0], strerror(-error));
    }
    return 0;
}

int boot_master(pt_platform *p)
{
    boot_pages b = {-1, -1, NULL};
    int error = make_pages(&b);
    if (error) {
        drop_pages(&b, true);
        return pt_fail(p, error, "the stub's pages: %s", strerror(-error));
    }
    pt_stub_shared *shared = (pt_stub_shared *)(b.region + PT_PAGE);
    shared->code_fd = b.code_fd;
    shared->batch_fd = b.batch_fd;
    shared->region = (uintptr_t)b.region;

    /* Stubs inherit this mask: what is sent to them from outside stays pending for ever, but for
     * SIGURG, which is pt_kick()'s. The signals of exceptions are forced, ptrace reports them all the same.
     * */
    sigset_t blocked, old;
    sigfillset(&blocked);
    sigdelset(&blocked, SIGURG);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    pid_t pid = clone_into(b.region, shared);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (pid < 0) {
        drop_pages(&b, true);
        return pt_fail(p, pid, "clone: %s", strerror(-pid));
    }

    error = bring_up(p, pid, shared);
    p->master_space = (pt_space){.platform = p, .pid = pid, .pidfd = -1};
    int cpu = p->affinity.pinned ? p->affinity.cpu : -1;
    if (!error && !(p->master = thread_adopt(&p->master_space, pid, cpu)))
        error = pt_fail(p, -ENOMEM, "out of memory");
    if (error) {
        int status;
        kill(pid, SIGKILL);
        tracee_wait(pid, &status);
        drop_pages(&b, true);
        return error;
    }
    p->nprocesses++;
    watch_begin(&p->master_space, pid);
    memset(shared, 0, sizeof *shared);
    drop_pages(&b, false);
    p->shared = shared;
    return 0;
}
