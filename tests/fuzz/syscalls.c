/*
 * Makes system calls with hostile arguments, for the sandbox only: never run it on a host.
 *
 * usage: syscalls SEED COUNT [PROCESSES]
 *
 * Each of PROCESSES children makes COUNT calls of numbers drawn from all that exist and some that do
 * not. Arguments are drawn from what calls trip over: bad and odd pointers, descriptors of every kind,
 * small and huge numbers, flags, structures full of the same. Everything follows from SEED. A child
 * that dies of a signal or exits is fine; a kernel that fails is not, and that is for the caller to see.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NUMBERS = 480, SCRATCH = 4 * 4096, PAGE = 4096 };

static uint64_t state;
static unsigned char *scratch;       /* two writable pages, one read-only, one PROT_NONE */
static const char *const paths[] = {
    "a", "b", "dir", "dir/x", "link", "/", "/tmp", ".", "..", "", "/proc/self/fd/0", "/proc/self/mem",
    "/proc/self/maps", "/proc/self/exe", "/dev/null", "/dev/zero", "/dev/ptmx", "/dev/tty", "/etc/passwd",
    "/proc/1/status", "/sys/devices/system/cpu", "fifo", "/bin/true", "a/", "dir/../dir/./x", "//tmp//a",
};

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545F4914F6CDD1DULL;
}

static uint64_t below(uint64_t limit)
{
    return draw() % limit;
}

static uint64_t argument(void);

static uint64_t pointer(void)
{
    switch (below(12)) {
    case 0: return 0;
    case 1: return 1;
    case 2: return (uint64_t)scratch + 2 * PAGE;                 /* read-only */
    case 3: return (uint64_t)scratch + 3 * PAGE;                 /* PROT_NONE */
    case 4: return (uint64_t)scratch + 2 * PAGE - below(64);     /* runs into the read-only page */
    case 5: return (uint64_t)scratch + 3 * PAGE - below(64);
    case 6: return 0xffffffffffffffffULL - below(4096);
    case 7: return 0xffff800000000000ULL + below(1 << 20);
    case 8: return 0x7ffffffff000ULL - below(8192);
    case 9: {                                                    /* a structure of such values */
        uint64_t *words = (uint64_t *)(scratch + 8 * below(2 * PAGE / 8 - 16));
        for (int i = 0; i < 16; i++)
            words[i] = below(3) ? below(16) : argument();
        return (uint64_t)words;
    }
    case 10: {
        char *text = (char *)scratch + below(2 * PAGE - 64);
        strcpy(text, paths[below(sizeof paths / sizeof *paths)]);
        return (uint64_t)text;
    }
    default: return (uint64_t)scratch + below(2 * PAGE);
    }
}

static uint64_t argument(void)
{
    switch (below(10)) {
    case 0: case 1: case 2: return pointer();
    case 3: return below(24);                                    /* often a descriptor */
    case 4: return below(4096);
    case 5: return 1ULL << below(64);
    case 6: return -1 - below(200);                              /* AT_FDCWD among them */
    case 7: return below(2) ? 0 : 1;
    case 8: return draw() & draw() & draw();
    default: return (1ULL << below(64)) | (1ULL << below(64)) | below(8);
    }
}

/* Calls that end the child, or make it wait for what never comes, would leave little to try. */
static int boring(long number)
{
    switch (number) {
    case SYS_exit: case SYS_exit_group: case SYS_pause: case SYS_rt_sigsuspend: case SYS_rt_sigreturn:
    case SYS_vfork: case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_reboot:
        return below(50) != 0;
    case SYS_fork: case SYS_clone: case SYS_clone3: case SYS_execve: case SYS_execveat:
        return below(8) != 0;
    default:
        return 0;
    }
}

static void prepare(void)
{
    scratch = mmap(NULL, SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(scratch + 2 * PAGE, PAGE, PROT_READ);
    mprotect(scratch + 3 * PAGE, PAGE, PROT_NONE);
    int fds[2];
    open("a", O_RDWR | O_CREAT, 0644);
    mkdir("dir", 0755);
    symlink("a", "link");
    mkfifo("fifo", 0644);
    open("dir", O_RDONLY | O_DIRECTORY);
    if (pipe2(fds, O_NONBLOCK) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
        return;
    eventfd(0, EFD_NONBLOCK);
    epoll_create1(0);
    open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    open("/proc/self/status", O_RDONLY);
    memfd_create("fuzz", MFD_ALLOW_SEALING);
    socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
}

static void child(uint64_t seed, long count)
{
    state = seed * 0x9E3779B97F4A7C15ULL + 1;
    prepare();
    for (int signo = 1; signo < 32; signo++)
        if (signo != SIGALRM && signo != SIGSEGV)
            signal(signo, SIG_IGN);
    alarm(2);
    for (long i = 0; i < count; i++) {
        long number = below(16) ? (long)below(NUMBERS) : (long)draw();
        if (boring(number))
            continue;
        uint64_t a = argument(), b = argument(), c = argument(), d = argument(), e = argument();
        syscall(number, a, b, c, d, e, argument());
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uint64_t seed = strtoull(argv[1], NULL, 0);
    long count = atol(argv[2]);
    int processes = argc > 3 ? atoi(argv[3]) : 1;
    if (chdir("/tmp"))
        return 1;
    for (int i = 0; i < processes; i++)
        if (!fork())
            child(seed + (uint64_t)i, count);
    pid_t ended = 0;
    for (int tenths = 0; tenths < 40 && ended >= 0; tenths += ended == 0)
        if ((ended = waitpid(-1, NULL, WNOHANG)) == 0)
            usleep(100000);              /* one of them waits for ever, with SIGALRM blocked */
    kill(-1, SIGKILL);
    while (wait(NULL) > 0)
        ;
    puts("survived");
    return 0;
}
