"""The host's system calls that the kernel makes once it is jailed, whatever the platform.

Interface: `CALLS` for the filter, and `CHANGES` where files of the host may be changed; `REFUSED`
are calls that the C library tries before others. The platform adds its own (`Platform.host_calls`).
tests/jail/test_bpf.py holds it against what is dangerous, tests/attacks/test_broken_in.py attacks
it.

What a process that was broken into could still do with them is what the other layers say: there is
no path that leads out, no other process, no network. Nothing here executes a program, makes memory
executable, makes a process (threads only), opens a socket, or changes what the process may do.
"""

from __future__ import annotations

import fcntl
import termios
from errno import ENOSYS, EPERM

from pysandbox_platform.host_calls import Condition, HostCall, none_but, not_with, one_of

_PROT_EXEC = 0x4

_THREAD = 0x3D0F00
"""CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID:
pthread_create(3), with which the reactor and platforms start their helpers."""

_IOCTLS = (
    termios.TCGETS, termios.TCSETS, termios.TCSETSW, termios.TCSETSF,
    0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D,  # TCGETS2, TCSETS2, TCSETSW2, TCSETSF2
    termios.TCFLSH, termios.TCXONC, termios.TCSBRK, termios.TIOCGPGRP, termios.TIOCOUTQ,
    termios.TIOCGWINSZ, termios.TIOCSWINSZ, termios.FIONREAD, termios.FIOCLEX, termios.FIONCLEX,
)  # fmt: skip

_FCNTLS = (
    fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL,
    fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS,
)  # fmt: skip
"""Without F_SETFL, and FIONBIO and FIOASYNC above: status flags are shared with whoever has given
us the descriptor, and O_ASYNC sends signals to whoever once asked to be told of it."""

_FILES = """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek close dup dup3
    fstat newfstatat statx fstatfs statfs getdents64 readlinkat readlink openat openat2
    ftruncate fallocate fsync fdatasync sync_file_range fadvise64 copy_file_range sendfile
    getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
    faccessat faccessat2 getcwd stat lstat access pipe2 eventfd2 memfd_create syncfs
"""
_CHANGES = """
    fchmod fchmodat fchown fchownat utimensat mkdirat unlinkat mknodat symlinkat linkat renameat
    renameat2 setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
"""
"""What changes files by their names, and what neither Landlock nor how a file was opened keeps from
being changed. The caller's standard input may be a file of its user's."""
_WAITING = """
    poll ppoll select pselect6 epoll_wait epoll_pwait epoll_ctl epoll_create1 futex sched_yield
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time restart_syscall
"""
_PROCESS = """
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack exit exit_group getpid gettid getppid
    getuid geteuid getgid getegid getgroups getpgrp getpgid getrusage sched_getaffinity
    sched_setaffinity set_robust_list getrandom sysinfo uname getcpu membarrier wait4 waitid
    munmap mremap brk getpriority times rseq
"""
_CHANNEL = "recvmsg getsockopt getsockname getpeername"
"""The connection to the SDK. Sockets that the caller gave as standard streams are the host's: none
is sent anywhere else (sendto), and no descriptor goes along (sendmsg)."""

CALLS = (
    HostCall("fcntl", (one_of(1, *_FCNTLS),)),
    HostCall("ioctl", (one_of(1, *_IOCTLS),)),
    HostCall("mmap", (not_with(2, _PROT_EXEC),)),
    HostCall("mprotect", (not_with(2, _PROT_EXEC),)),
    HostCall("madvise", (one_of(2, 0, 1, 2, 3, 4, 8, 9, 14, 15, 16, 22, 23),)),
    HostCall("clone", (Condition(0, (_THREAD,), (1 << 64) - 1),)),
    HostCall("prlimit64", (one_of(0, 0), none_but(2, 0))),
    HostCall("sendto", (none_but(4, 0),)),
    HostCall("recvfrom", (none_but(4, 0),)),
    *[HostCall(name) for name in (_FILES + _WAITING + _PROCESS + _CHANNEL).split()],
)  # fmt: skip
"""Always."""

CHANGES = tuple(HostCall(name) for name in _CHANGES.split())
"""Where something of the host's is bound for writing."""

REFUSED = {
    "clone3": ENOSYS,  # its flags are in memory, where no filter can look; clone serves as well
    "socket": EPERM,  # the C library's name service, of which nothing is asked
    "prctl": EPERM,  # names of threads
}
