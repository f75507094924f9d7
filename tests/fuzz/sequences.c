/*
 * Makes sequences of system calls that mostly make sense, for the sandbox only: never run it on a
 * host.
 *
 * usage: sequences SEED COUNT [PROCESSES]
 *
 * syscalls.c draws every argument from what calls trip over, and so most of its calls fail at their
 * first check. Here a table says what each argument of a call is for, and it gets one: a descriptor
 * of those that are open, a path of a small tree, a structure of the right shape; one argument in
 * sixteen is a hostile one all the same. So calls get far, and what they leave behind is what the
 * next ones meet. Half of the processes have a second thread that makes such calls too while the
 * first does, in the same memory. Everything a thread does follows from SEED.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 24, MARGIN = 8, FDS = 40, ARGUMENTS = 6, TURNS = 600, PATIENCE = 25 };

static __thread uint64_t state;
static unsigned char *arena;         /* PAGES pages that calls map, unmap and protect anew */
static long *made;                   /* calls so far, by all processes */

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545F4914F6CDD1DULL;
}

static uint64_t below(uint64_t limit)
{
    return (draw() >> 16) % limit;
}

/* What an argument may be. Each is a function, so that the table of calls is readable. */

#define ONE_OF(name, ...)                                        \
    static uint64_t name(void)                                   \
    {                                                            \
        static const uint64_t values[] = {__VA_ARGS__};          \
        return values[below(sizeof values / sizeof *values)];    \
    }
#define BITS_OF(name, ...)                                       \
    static uint64_t name(void)                                   \
    {                                                            \
        static const uint64_t values[] = {__VA_ARGS__};          \
        uint64_t bits = 0;                                       \
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) \
            if (!below(4))                                       \
                bits |= values[i];                               \
        return bits;                                             \
    }

static uint64_t hostile(void)
{
    switch (below(10)) {
    case 0: return 0;
    case 1: return -1ULL;
    case 2: return 1ULL << below(64);
    case 3: return (1ULL << below(64)) - 1;
    case 4: return 0xffff800000000000ULL + below(1 << 20);
    case 5: return 0x7ffffffff000ULL - below(2) * PAGE;
    case 6: return -1 - below(200);
    case 7: return 0x7fffffffULL - below(2);
    case 8: return draw();
    default: return (uint64_t)(arena + PAGES * PAGE - below(16));
    }
}

static uint64_t small(void) { return below(8); }
static uint64_t zero(void) { return 0; }
static uint64_t fd(void) { return below(FDS); }
static uint64_t fd_or_none(void) { return below(3) ? below(FDS) : -1ULL; }
static uint64_t at(void) { return below(3) ? (uint64_t)AT_FDCWD : below(FDS); }
static uint64_t page(void) { return (uint64_t)(arena + PAGE * below(PAGES)); }
static uint64_t page_or_none(void) { return below(2) ? page() : 0; }
static uint64_t range(void) { return PAGE * below(6) + (below(8) ? 0 : below(PAGE)); }
static uint64_t length(void) { return below(3) ? below(300) : below(3 * PAGE); }
static uint64_t offset(void) { return below(4) ? below(3 * PAGE) : below(1ULL << 34); }
static uint64_t where(void) { return (uint64_t)(arena + below(PAGES * PAGE - 2 * PAGE)); }
static uint64_t maybe_where(void) { return below(3) ? where() & ~7ULL : 0; }
static uint64_t uid(void) { return below(4) ? -1U * below(2) : below(70000); }
static uint64_t mode(void) { return below(010000) | 0400; }
static uint64_t signo(void)
{
    uint64_t number = below(12) ? 1 + below(64) : below(80);
    return number == SIGSTOP ? SIGCONT : number;  /* the first process would stop, and all with it */
}
static uint64_t someone(void) { return below(3) ? 0 : below(2) ? (uint64_t)getpid() : below(40); }
static uint64_t me(void) { return below(6) ? (uint64_t)syscall(SYS_gettid) : below(40); }

/* Room for a structure; where in it what lies is up to the caller. */
static void *room(size_t size)
{
    return arena + (below(PAGES * PAGE - size - 8) & ~7ULL);
}

/* Structures are put together here and copied through the kernel, for the arena may not be writable
 * now: nothing of the fuzzer's own shall die of that. */
static uint64_t put(const void *from, size_t size)
{
    void *to = room(size);
    struct iovec local = {(void *)from, size}, remote = {to, size};
    syscall(SYS_process_vm_writev, getpid(), &local, 1, &remote, 1, 0);
    return (uint64_t)to;
}

static uint64_t path(void)
{
    static const char *const names[] = {
        "a", "b", "c", "dir", "dir/a", "dir/b", "dir/sub", "dir/sub/c", "link", "dangling", "loop",
        "fifo", "sock", "dir/link", ".", "..", "/", "/tmp", "dir/../a", "dir/", "/proc/self",
        "/proc/self/fd", "/proc/self/maps", "/proc/self/status", "/proc/self/exe", "/proc/self/cwd/a",
        "/proc/self/task", "/proc/self/mounts", "/proc/self/smaps", "/proc/self/pagemap", "/proc/self/ns/mnt",
        "/proc/self/ns/uts", "/proc/self/limits", "/proc/self/fdinfo/3", "/proc/self/oom_score_adj",
        "/proc/self/comm", "/proc/self/clear_refs", "/proc/self/environ", "/proc/self/auxv", "/proc/self/root",
        "/proc/self/mountinfo", "/proc/self/statm", "/proc/self/io", "/proc/self/sched", "/proc/self/wchan",
        "/proc/self/timerslack_ns", "/proc/cpuinfo", "/proc/uptime", "/proc/loadavg", "/proc/version",
        "/proc/filesystems", "/proc/net/unix", "/proc/net/dev", "/proc/sys/kernel/pid_max", "/proc/2/maps",
        "/proc/2/mem", "/proc/self/uid_map", "/proc/self/coredump_filter", "/proc/stat", "/proc/interrupts",
        "/proc/self/task/2/stat", "script", "/proc/self/stat", "/proc/self/mem", "/proc/meminfo",
        "/proc/sys/kernel/hostname", "/proc/net/tcp", "/proc/1/cmdline", "/dev/null", "/dev/zero",
        "/dev/full", "/dev/urandom", "/dev/ptmx", "/dev/tty", "/dev/pts/0", "/dev/shm/x", "/dev/fd/3",
        "/etc/passwd", "/usr/bin", "/bin/true", "/sys/devices/system/cpu/online", "low", "low/x", "",
    };
    const char *name = names[below(below(3) ? 20 : sizeof names / sizeof *names)];
    return put(name, strlen(name) + 1);
}

static uint64_t text(void)
{
    static const char *const words[] = {
        "user.a", "user.b", "system.x", "security.y", "trusted.z", "tmpfs", "proc", "size=64k",
        "name", "/queue", "/q2", "mode=0700,nr_inodes=5", "user.", "u",
    };
    const char *word = words[below(sizeof words / sizeof *words)];
    return put(word, strlen(word) + 1);
}

static uint64_t strings(void)
{
    uint64_t list[3] = {path(), below(2) ? text() : 0, 0};
    return put(list, sizeof list);
}

static uint64_t timespec(void)
{
    struct timespec time = {below(12) ? 0 : (time_t)hostile(), (long)below(3000000)};
    return put(&time, sizeof time);
}

static uint64_t maybe_timespec(void) { return below(4) ? timespec() : 0; }

static uint64_t times(void)
{
    struct timespec time[2] = {{(time_t)below(1ULL << 32), (long)below(1000000000)},
                               {0, below(2) ? UTIME_NOW : UTIME_OMIT}};
    return below(4) ? put(time, sizeof time) : 0;
}

static uint64_t timer(void)                    /* struct itimerspec and, nearly, itimerval */
{
    struct itimerspec spec = {{0, (long)below(3000000)}, {0, (long)below(900000)}};
    return put(&spec, sizeof spec);
}

static uint64_t mask_of_signals(void)
{
    uint64_t mask = below(3) ? 1ULL << below(64) : draw() & draw();
    return put(&mask, sizeof mask);
}

static uint64_t maybe_signals(void) { return below(3) ? mask_of_signals() : 0; }

static void on_signal(int number)
{
    (void)number;
}

static uint64_t action(void)
{
    /* SIG_IGN or a handler that returns; anything else would soon end the process */
    uint64_t act[4] = {below(2) ? 1 : (uint64_t)on_signal, 0x04000000 | (draw() & 0x58000000), 0, draw()};
    extern void fuzz_restorer(void);
    act[2] = (uint64_t)fuzz_restorer;
    return put(act, sizeof act);
}
__asm__(".globl fuzz_restorer\nfuzz_restorer: mov $15, %eax\nsyscall\n");

static uint64_t information(void)
{
    siginfo_t info = {.si_signo = (int)signo(), .si_code = -(int)below(8)};
    return put(&info, sizeof info);
}

static uint64_t sigevent(void)
{
    struct sigevent event = {.sigev_notify = (int)below(5), .sigev_signo = (int)signo()};
    event._sigev_un._tid = (pid_t)me();
    return below(4) ? put(&event, sizeof event) : 0;
}

static uint64_t vector(void)
{
    struct iovec iov[4];
    for (int i = 0; i < 4; i++)
        iov[i] = (struct iovec){(void *)where(), length()};
    if (!below(8))
        iov[below(4)].iov_base = (void *)hostile();
    return put(iov, sizeof iov);
}

static uint64_t address(void)
{
    struct sockaddr_un un = {AF_UNIX, "sock"};
    struct sockaddr_in in = {AF_INET, htons(7000 + (int)below(3)), {htonl(INADDR_LOOPBACK)}, {0}};
    struct sockaddr_in6 in6 = {AF_INET6, htons(7000 + (int)below(3)), 0, IN6ADDR_LOOPBACK_INIT, 0};
    uint32_t netlink[3] = {AF_NETLINK, 0, (uint32_t)small()};
    switch (below(6)) {
    case 0: return put(&un, sizeof un);
    case 1: un.sun_path[0] = 0; return put(&un, sizeof un);
    case 2: in6.sin6_port = below(2) ? in6.sin6_port : 0; return put(&in6, sizeof in6);
    case 3: return put(netlink, sizeof netlink);
    default: in.sin_addr.s_addr = below(3) ? in.sin_addr.s_addr : 0; return put(&in, sizeof in);
    }
}

ONE_OF(address_length, 16, 16, 28, 110, 12, 7, 2, 0, 128)

static uint64_t length_pointer(void)
{
    uint32_t value = (uint32_t)below(140);
    return put(&value, sizeof value);
}

static uint64_t offset_pointer(void)
{
    uint64_t value = offset();
    return below(2) ? put(&value, sizeof value) : 0;
}

static struct msghdr header(void)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {{CMSG_LEN(sizeof(int) * (1 + below(3))), SOL_SOCKET, SCM_RIGHTS}};
    int fds[3] = {(int)fd(), (int)fd(), (int)fd()};
    memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
    if (!below(4))
        control.header.cmsg_type = SCM_CREDENTIALS;
    struct msghdr msg = {.msg_iov = (void *)vector(), .msg_iovlen = below(4)};
    if (below(2)) {
        msg.msg_control = (void *)put(&control, sizeof control);
        msg.msg_controllen = below(4) ? sizeof control : below(64);
    }
    if (!below(3)) {
        msg.msg_name = (void *)address();
        msg.msg_namelen = (socklen_t)address_length();
    }
    return msg;
}

static uint64_t message(void)
{
    struct msghdr msg = header();
    return put(&msg, sizeof msg);
}

static uint64_t messages(void)
{
    struct mmsghdr msgs[2] = {{header(), 0}, {header(), 0}};
    return put(msgs, sizeof msgs);
}

static uint64_t poll_set(void)
{
    struct pollfd fds[4];
    for (int i = 0; i < 4; i++)
        fds[i] = (struct pollfd){(int)fd(), (short)(draw() & 0x1f), 0};
    return put(fds, sizeof fds);
}

static uint64_t fd_set_of(void)
{
    uint64_t bits = draw() & draw();
    return below(3) ? put(&bits, sizeof bits) : 0;
}

static uint64_t event(void)
{
    struct epoll_event value = {(uint32_t)(draw() & 0xe000001f), {.u64 = draw()}};
    return put(&value, sizeof value);
}

static uint64_t word(void) { return (uint64_t)(arena + 64 * below(8)); }

static uint64_t waiters(void)
{
    struct { uint64_t value, uaddr; uint32_t flags, reserved; } list[2] = {
        {0, word(), 2 | 0x80 * (uint32_t)below(2), 0}, {0, word(), 2, 0}};
    return put(list, sizeof list);
}

static uint64_t operations(void)               /* struct sembuf */
{
    short list[6] = {(short)below(3), (short)(below(5) - 2), (short)(below(2) * 04000),
                     (short)below(3), (short)(below(5) - 2), 04000 | 010000};
    return put(list, sizeof list);
}

static uint64_t limits(void)
{
    struct rlimit limit = {20 + below(1 << 20), below(4) ? RLIM_INFINITY : below(1 << 20)};
    return put(&limit, sizeof limit);
}

static uint64_t how(void)                      /* struct open_how */
{
    uint64_t value[3] = {draw() & 02147703, 0, below(2) ? 0 : 1ULL << below(6)};
    value[1] = value[0] & O_CREAT ? 0600 : 0;
    return put(value, sizeof value);
}

static uint64_t clone_arguments(void)
{
    /* a child with a copy of the memory goes on here, and makes calls of its own */
    uint64_t value[11] = {(1ULL << (9 + below(23))) & 0x01f00e00, where() & ~7ULL, 0, 0, below(2) ? SIGCHLD : 0};
    return put(value, sizeof value);
}

static uint64_t netlink_or_ifreq(void)
{
    union {
        struct ifreq request;
        uint32_t words[16];
    } value = {.words = {20 + (uint32_t)below(16), (uint32_t)(18 + 4 * below(4)) | 0x3010000, 1}};
    if (below(2))
        strcpy(value.request.ifr_name, "lo");
    return put(&value, sizeof value);
}

static uint64_t terminal_settings(void)         /* struct termios, mostly as terminals have it */
{
    struct { uint32_t flags[4]; unsigned char line, characters[31]; uint32_t speeds[2]; } settings = {
        {(uint32_t)draw() & 0x7fff, (uint32_t)draw() & 5, 0xbf, (uint32_t)draw() & 0x8a3b}, 0,
        "\3\34\177\25\4\0\1\0\21\23\32\0\22\17\27\26", {15, 15}};
    return put(&settings, sizeof settings);
}

static uint64_t keys(void)                     /* what is typed, with what a line discipline acts on */
{
    static const char text[] = "some words\b\177\25 more\27\n\4\3\32\21\23\22\26x\r\n\f\t\033[A\377\377";
    return put(text, sizeof text);
}

static uint64_t value_or_where(void)
{
    if (!below(3))
        return terminal_settings();
    return below(3) ? below(3) ? where() & ~7ULL : below(70) : netlink_or_ifreq();
}

ONE_OF(whence, 0, 1, 2, 3, 4)
ONE_OF(clock_id, 0, 1, 1, 2, 3, 4, 5, 6, 7, 11, -2ULL, -6ULL)
ONE_OF(sigset_size, 8)
ONE_OF(futex_operation, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 128, 129, 131, 132, 134, 135, 137, 138)
ONE_OF(fcntl_command, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 36, 37, 38, 1024, 1025, 1026, 1027,
       1030, 1031, 1032, 1033, 1034, 1036)
ONE_OF(request, TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ, TIOCSWINSZ, TIOCGPTN, TIOCSPTLCK,
       TIOCGPTPEER, TIOCSCTTY, TIOCNOTTY, TIOCGPGRP, TIOCSPGRP, TIOCGSID, TIOCSTI, TIOCPKT, TIOCOUTQ,
       TCFLSH, TCXONC, TCSBRK, TCSBRKP, TIOCEXCL, TIOCNXCL, TIOCGETD, TIOCSETD, TIOCCONS, FIONREAD,
       FIONBIO, FIOASYNC, FIOCLEX, FIONCLEX, FIOQSIZE, SIOCGIFCONF, SIOCGIFNAME, SIOCGIFFLAGS,
       SIOCGIFADDR, SIOCGIFMTU, SIOCGIFINDEX, SIOCGIFHWADDR, SIOCATMARK, SIOCGPGRP, SIOCSPGRP, 2,
       0x802C542A, 0x402C542B, 0x5441)
ONE_OF(terminal_request, TCSETS, TCSETS, TCSETSW, TCSETSF, TCGETS, TCFLSH, TIOCPKT, TIOCSPTLCK, TIOCGPTPEER,
       TIOCSCTTY, FIONREAD, TIOCSTI, TIOCSWINSZ)
ONE_OF(key_count, 1, 5, 12, 20, 30, 38)
ONE_OF(one, 1, 2, 3)
ONE_OF(domain, AF_UNIX, AF_UNIX, AF_INET, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET)
ONE_OF(socket_type, SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_RAW, SOCK_STREAM | SOCK_NONBLOCK,
       SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
ONE_OF(protocol, 0, 0, 0, 6, 17, 1)
ONE_OF(level, SOL_SOCKET, SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, 270)
ONE_OF(ipc_key, 0, 1, 2, 3)
ONE_OF(ipc_command, 0, 1, 2, 3, 11, 12, 13, 14, 15, 16, 17, 18, 19)
ONE_OF(advice, 0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 25)
ONE_OF(prctl_option, 1, 2, 3, 4, 7, 8, 13, 15, 16, 21, 23, 24, 25, 26, 27, 28, 29, 30, 33, 34, 36, 37,
       38, 39, 40, 41, 42, 47, 52, 53, 56, 0x53564d41)
ONE_OF(arch_option, 0x1003, 0x1004, 0x1011, 0x1021, 0x1022)
ONE_OF(priority_class, 0, 1, 2)
ONE_OF(splice_room, 1, 100, 4096, 70000, 1 << 20)
BITS_OF(open_flags, 1, 2, O_CREAT, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NONBLOCK, O_NONBLOCK, O_DIRECTORY,
        O_NOFOLLOW, O_CLOEXEC, O_PATH, O_TMPFILE, O_DIRECT, O_SYNC)
BITS_OF(protection, PROT_READ, PROT_READ, PROT_WRITE, PROT_WRITE, PROT_EXEC)
ONE_OF(map_flags, 0x22, 0x22, 0x32, 0x32, 0x32, 0x31, 0x11, 0x12, 0x12, 0x02, 0x01, 0x21, 0x100022, 0x4022, 0x8032, 0x122)
BITS_OF(at_flags, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH, AT_EMPTY_PATH, 0x200)
BITS_OF(message_flags, MSG_PEEK, MSG_DONTWAIT, MSG_DONTWAIT, MSG_OOB, MSG_TRUNC, MSG_WAITALL, MSG_NOSIGNAL, MSG_MORE)
BITS_OF(watched, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 0x10000000, 0x20000000, 0x80000000)
BITS_OF(fd_flags, O_NONBLOCK, O_CLOEXEC, 1)
BITS_OF(rename_flags, 1, 2, 4)
BITS_OF(wait_options, WNOHANG, WNOHANG, WUNTRACED, WCONTINUED, WEXITED, WNOWAIT, 0x40000000)
BITS_OF(remap_flags, 1, 2, 4)
BITS_OF(allocation, 1, 2, 8, 16, 32)
BITS_OF(statx_flags, 0x100, 0x1000, 0x2000, 0x4000)
BITS_OF(mount_flags, 1, 2, 4, 8, 32, 4096, 16384, 1 << 18, 1 << 19, 1 << 20)
BITS_OF(clone_flags, CLONE_VFORK, CLONE_FS, CLONE_FILES, CLONE_PARENT_SETTID, CLONE_CHILD_SETTID, SIGCHLD, CLONE_NEWNS)
BITS_OF(ipc_flags, 01000, 01000, 02000, 04000, 0600, 0600)

struct call {
    int number;
    uint64_t (*arguments[ARGUMENTS])(void);
};

static const struct call calls[] = {
#include "sequences.inc"
};

static int forks(long number)
{
    return number == SYS_fork || number == SYS_clone || number == SYS_clone3;
}

static void one_call(int depth)
{
    const struct call *call = &calls[below(sizeof calls / sizeof *calls)];
    uint64_t values[ARGUMENTS];
    for (int i = 0; i < ARGUMENTS; i++) {
        uint64_t (*draw_argument)(void) = call->arguments[i];
        values[i] = !draw_argument ? 0 : below(16) ? draw_argument() : hostile();
    }
    /* calls after which little would be left to try */
    if (call->number == SYS_clone && values[0] & CLONE_VM)
        return;
    if (values[1] > MARGIN * PAGE && below(40))
        switch (call->number) {
        case SYS_munmap: case SYS_mmap: case SYS_mremap: case SYS_mprotect: case SYS_shmat:
            return;
        }
    if ((call->number == SYS_munmap || call->number == SYS_mprotect || call->number == SYS_mremap) &&
        (values[0] < (uint64_t)arena || values[0] >= (uint64_t)arena + PAGES * PAGE) && below(40))
        return;
    __atomic_fetch_add(made, 1, __ATOMIC_RELAXED);
    long result = syscall(call->number, values[0], values[1], values[2], values[3], values[4], values[5]);
    if (forks(call->number) && !result) {
        if (depth < 2) {
            state += (uint64_t)getpid() << 32 | 1;
            alarm(1);
            for (int i = 0; i < 30; i++)
                one_call(depth + 1);
        }
        _exit((int)below(256));
    }
    if (call->number == SYS_close_range || call->number == SYS_setrlimit)
        for (int i = 0; i < 8; i++)
            open(i % 2 ? "a" : "dir", i % 2 ? O_RDWR | O_CREAT : O_RDONLY, 0600);
}

static void prepare(void)
{
    int fds[2];
    /* a range that starts in the arena may end in the margin, but in nothing else of the process */
    arena = mmap(NULL, (PAGES + MARGIN) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mkdir("dir", 0755);
    mkdir("dir/sub", 0755);
    symlink("a", "link");
    symlink("nowhere", "dangling");
    symlink("loop", "loop");
    symlink("../b", "dir/link");
    mkfifo("fifo", 0644);
    int script = open("script", O_WRONLY | O_CREAT, 0755);
    if (write(script, "#!/bin/true -x\n", 15) < 0)
        return;
    close(script);
    open("a", O_RDWR | O_CREAT, 0644);
    open("b", O_RDWR | O_CREAT | O_APPEND, 0644);
    open("dir", O_RDONLY | O_DIRECTORY);
    if (pipe2(fds, O_NONBLOCK) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) ||
        socketpair(AF_UNIX, SOCK_DGRAM, 0, fds))
        return;
    eventfd(0, EFD_NONBLOCK);
    epoll_create1(0);
    open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    open("/proc/self/status", O_RDONLY);
    open("fifo", O_RDWR | O_NONBLOCK);
    inotify_init1(IN_NONBLOCK);
    memfd_create("fuzz", MFD_ALLOW_SEALING);
    socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_INET, SOCK_DGRAM, 0);
    socket(AF_INET6, SOCK_STREAM, 0);
    socket(AF_NETLINK, SOCK_RAW, 0);
}

static long wanted;

static void *second_thread(void *seed)
{
    state = (uint64_t)seed;
    for (long i = 0; i < wanted; i++)
        one_call(0);
    return NULL;
}

static void child(uint64_t seed, long count, int threads)
{
    pthread_t thread;
    state = seed * 0x9E3779B97F4A7C15ULL + 1;
    prepare();
    for (int number = 1; number <= 64; number++)
        if (number != SIGALRM && number != SIGSEGV && number != SIGBUS)
            signal(number, number % 2 ? SIG_IGN : on_signal);
    /* what waits is woken; if that is blocked, the parent ends it in the end */
    struct itimerval often = {{0, 10000}, {0, 10000}};
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    wanted = count;
    if (threads)
        pthread_create(&thread, NULL, second_thread, (void *)(draw() | 1));
    for (long i = 0; i < count; i++)
        one_call(0);
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uint64_t seed = strtoull(argv[1], NULL, 0);
    long count = atol(argv[2]);
    int processes = argc > 3 ? atoi(argv[3]) : 1;
    signal(SIGALRM, SIG_IGN);
    for (int number = SIGTSTP; number <= SIGTTOU; number++)
        signal(number, SIG_IGN);
    if (chdir("/tmp"))
        return 1;
    made = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long total = count * processes, started = 0;
    int running = 0;
    int idle = 0;
    for (int turn = 0; *made < total && turn < TURNS; turn++) {
        /* many die of what they have done to their memory: others take their places */
        for (; running < processes; running++, started++)
            if (!fork())
                child(seed * 1024 + (uint64_t)started, count, started % 2);
        long before = *made;
        usleep(20000);
        idle = *made == before ? idle + 1 : 0;
        if (idle > PATIENCE)             /* all of them wait, with SIGALRM blocked */
            kill(-1, SIGKILL);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            running--;
    }
    kill(-1, SIGKILL);
    while (wait(NULL) > 0)
        ;
    printf("survived %ld calls\n", *made);
    return 0;
}
