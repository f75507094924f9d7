"""Names of numbers, as strace prints them: flags, commands, signals.

Interface: `flags(value, table)` joins the names of the bits that are set, in the table's order, and
shows what is left in hex; `name(value, table, unknown)` is for one of several values. Loaded for
`--strace` alone.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import TypeAlias

Table: TypeAlias = tuple[tuple[str, int], ...]


def flags(value: int, table: Table, zero: str = "0") -> str:
    """`A|B|0x40`."""
    if not value:
        return zero
    words = []
    for word, bits in table:
        if bits and value & bits == bits:
            words.append(word)
            value &= ~bits
    if value:
        words.append(f"{value:#x}")
    return "|".join(words)


def name(value: int, table: dict[int, str], unknown: str) -> str:
    """`A`, or `0x7 /* A_??? */`."""
    return table.get(value) or f"{value:#x} /* {unknown} */"


def by_value(words: str, start: int = 0) -> dict[int, str]:
    """Names of consecutive values."""
    return dict(enumerate(words.split(), start))


def from_module(module: object, prefix: str, but: tuple[str, ...] = ()) -> dict[int, str]:
    """The constants of a module whose names start with `prefix`, by value."""
    return {
        int(value): word
        for word, value in sorted(vars(module).items(), reverse=True)
        if word.startswith(prefix) and word not in but and isinstance(value, int)
    }


ERRNO = errno.errorcode
RESTART = {
    512: ("ERESTARTSYS", "To be restarted if SA_RESTART is set"),
    513: ("ERESTARTNOINTR", "To be restarted"),
    514: ("ERESTARTNOHAND", "To be restarted if no handler"),
    516: ("ERESTART_RESTARTBLOCK", "Interrupted by signal"),
}

OPEN: Table = (
    ("O_CREAT", os.O_CREAT),
    ("O_EXCL", os.O_EXCL),
    ("O_NOCTTY", os.O_NOCTTY),
    ("O_TRUNC", os.O_TRUNC),
    ("O_APPEND", os.O_APPEND),
    ("O_NONBLOCK", os.O_NONBLOCK),
    ("O_SYNC", os.O_SYNC),
    ("O_DSYNC", os.O_DSYNC),
    ("O_ASYNC", os.O_ASYNC),
    ("O_DIRECT", os.O_DIRECT),
    ("O_LARGEFILE", 0x8000),
    ("O_NOFOLLOW", os.O_NOFOLLOW),
    ("O_NOATIME", os.O_NOATIME),
    ("O_CLOEXEC", os.O_CLOEXEC),
    ("O_PATH", os.O_PATH),
    ("O_TMPFILE", os.O_TMPFILE),
    ("O_DIRECTORY", os.O_DIRECTORY),
)
ACCESS_MODE = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")
AT: Table = (
    ("AT_SYMLINK_NOFOLLOW", 0x100),
    ("AT_REMOVEDIR", 0x200),
    ("AT_SYMLINK_FOLLOW", 0x400),
    ("AT_NO_AUTOMOUNT", 0x800),
    ("AT_EMPTY_PATH", 0x1000),
)
AT_ACCESS: Table = (
    ("AT_SYMLINK_NOFOLLOW", 0x100),
    ("AT_EACCESS", 0x200),
    ("AT_EMPTY_PATH", 0x1000),
)
ACCESS: Table = (("R_OK", 4), ("W_OK", 2), ("X_OK", 1))
PROT: Table = (
    ("PROT_READ", 1),
    ("PROT_WRITE", 2),
    ("PROT_EXEC", 4),
    ("PROT_GROWSDOWN", 0x01000000),
    ("PROT_GROWSUP", 0x02000000),
)
MAP_TYPE = {1: "MAP_SHARED", 2: "MAP_PRIVATE", 3: "MAP_SHARED_VALIDATE"}
MAP: Table = (
    ("MAP_FIXED", 0x10),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_32BIT", 0x40),
    ("MAP_NORESERVE", 0x4000),
    ("MAP_POPULATE", 0x8000),
    ("MAP_NONBLOCK", 0x10000),
    ("MAP_GROWSDOWN", 0x100),
    ("MAP_DENYWRITE", 0x800),
    ("MAP_EXECUTABLE", 0x1000),
    ("MAP_LOCKED", 0x2000),
    ("MAP_STACK", 0x20000),
    ("MAP_HUGETLB", 0x40000),
    ("MAP_SYNC", 0x80000),
    ("MAP_FIXED_NOREPLACE", 0x100000),
)
MREMAP: Table = (("MREMAP_MAYMOVE", 1), ("MREMAP_FIXED", 2), ("MREMAP_DONTUNMAP", 4))
MADVICE = {
    **by_value("MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED MADV_DONTNEED"),
    **by_value("MADV_FREE MADV_REMOVE MADV_DONTFORK MADV_DOFORK MADV_MERGEABLE", 8),
    **by_value("MADV_UNMERGEABLE MADV_HUGEPAGE MADV_NOHUGEPAGE MADV_DONTDUMP MADV_DODUMP", 13),
}
FADVISE = by_value(
    "POSIX_FADV_NORMAL POSIX_FADV_RANDOM POSIX_FADV_SEQUENTIAL POSIX_FADV_WILLNEED "
    "POSIX_FADV_DONTNEED POSIX_FADV_NOREUSE"
)
MSYNC: Table = (("MS_ASYNC", 1), ("MS_INVALIDATE", 2), ("MS_SYNC", 4))
CLONE: Table = (
    ("CLONE_VM", 0x100),
    ("CLONE_FS", 0x200),
    ("CLONE_FILES", 0x400),
    ("CLONE_SIGHAND", 0x800),
    ("CLONE_PIDFD", 0x1000),
    ("CLONE_PTRACE", 0x2000),
    ("CLONE_VFORK", 0x4000),
    ("CLONE_PARENT", 0x8000),
    ("CLONE_THREAD", 0x10000),
    ("CLONE_NEWNS", 0x20000),
    ("CLONE_SYSVSEM", 0x40000),
    ("CLONE_SETTLS", 0x80000),
    ("CLONE_PARENT_SETTID", 0x100000),
    ("CLONE_CHILD_CLEARTID", 0x200000),
    ("CLONE_UNTRACED", 0x800000),
    ("CLONE_CHILD_SETTID", 0x1000000),
    ("CLONE_NEWCGROUP", 0x2000000),
    ("CLONE_NEWUTS", 0x4000000),
    ("CLONE_NEWIPC", 0x8000000),
    ("CLONE_NEWUSER", 0x10000000),
    ("CLONE_NEWPID", 0x20000000),
    ("CLONE_NEWNET", 0x40000000),
    ("CLONE_IO", 0x80000000),
    ("CLONE_CLEAR_SIGHAND", 0x100000000),
)
WAIT: Table = (
    ("WNOHANG", 1),
    ("WUNTRACED", 2),
    ("WEXITED", 4),
    ("WCONTINUED", 8),
    ("WNOWAIT", 0x1000000),
    ("__WNOTHREAD", 0x20000000),
    ("__WALL", 0x40000000),
    ("__WCLONE", 0x80000000),
)
SIGACTION: Table = (
    ("SA_RESTORER", 0x04000000),
    ("SA_ONSTACK", 0x08000000),
    ("SA_RESTART", 0x10000000),
    ("SA_NODEFER", 0x40000000),
    ("SA_RESETHAND", 0x80000000),
    ("SA_SIGINFO", 4),
    ("SA_NOCLDSTOP", 1),
    ("SA_NOCLDWAIT", 2),
)
SIGPROCMASK = by_value("SIG_BLOCK SIG_UNBLOCK SIG_SETMASK")
SEEK = by_value("SEEK_SET SEEK_CUR SEEK_END SEEK_DATA SEEK_HOLE")
FILE_TYPE = {
    0o010000: "S_IFIFO",
    0o020000: "S_IFCHR",
    0o040000: "S_IFDIR",
    0o060000: "S_IFBLK",
    0o100000: "S_IFREG",
    0o120000: "S_IFLNK",
    0o140000: "S_IFSOCK",
}
MODE: Table = (("S_ISUID", 0o4000), ("S_ISGID", 0o2000), ("S_ISVTX", 0o1000))
FCNTL = {
    **by_value(
        "F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_SETOWN F_GETOWN"
    ),
    **by_value("F_SETSIG F_GETSIG", 10),
    **by_value("F_SETOWN_EX F_GETOWN_EX", 15),
    **by_value("F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW", 36),
    **by_value("F_SETLEASE F_GETLEASE F_NOTIFY", 1024),
    **by_value("F_DUPFD_CLOEXEC F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS", 1030),
}
RLIMIT = by_value(
    "RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC "
    "RLIMIT_NOFILE RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE "
    "RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME"
)
ARCH_PRCTL = by_value("ARCH_SET_GS ARCH_SET_FS ARCH_GET_FS ARCH_GET_GS", 0x1001)
PRCTL = {
    1: "PR_SET_PDEATHSIG", 2: "PR_GET_PDEATHSIG", 3: "PR_GET_DUMPABLE", 4: "PR_SET_DUMPABLE",
    15: "PR_SET_NAME", 16: "PR_GET_NAME", 22: "PR_SET_SECCOMP", 23: "PR_CAPBSET_READ",
    24: "PR_CAPBSET_DROP", 36: "PR_SET_CHILD_SUBREAPER", 37: "PR_GET_CHILD_SUBREAPER",
    38: "PR_SET_NO_NEW_PRIVS", 39: "PR_GET_NO_NEW_PRIVS", 0x53564D41: "PR_SET_VMA",
}  # fmt: skip
CLOCK = by_value(
    "CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID "
    "CLOCK_MONOTONIC_RAW CLOCK_REALTIME_COARSE CLOCK_MONOTONIC_COARSE CLOCK_BOOTTIME "
    "CLOCK_REALTIME_ALARM CLOCK_BOOTTIME_ALARM"
)
TIMER: Table = (("TIMER_ABSTIME", 1),)
FUTEX = by_value(
    "FUTEX_WAIT FUTEX_WAKE FUTEX_FD FUTEX_REQUEUE FUTEX_CMP_REQUEUE FUTEX_WAKE_OP FUTEX_LOCK_PI "
    "FUTEX_UNLOCK_PI FUTEX_TRYLOCK_PI FUTEX_WAIT_BITSET FUTEX_WAKE_BITSET FUTEX_WAIT_REQUEUE_PI "
    "FUTEX_CMP_REQUEUE_PI FUTEX_LOCK_PI2"
)
GRND: Table = (("GRND_NONBLOCK", 1), ("GRND_RANDOM", 2), ("GRND_INSECURE", 4))
POLL: Table = (
    ("POLLIN", 1), ("POLLPRI", 2), ("POLLOUT", 4), ("POLLRDNORM", 0x40), ("POLLWRNORM", 0x100),
    ("POLLRDBAND", 0x80), ("POLLWRBAND", 0x200), ("POLLERR", 8), ("POLLHUP", 0x10),
    ("POLLNVAL", 0x20), ("POLLRDHUP", 0x2000),
)  # fmt: skip
EPOLL: Table = (
    *((word.replace("POLL", "EPOLL", 1), bit) for word, bit in POLL if word != "POLLNVAL"),
    ("EPOLLEXCLUSIVE", 1 << 28), ("EPOLLWAKEUP", 1 << 29), ("EPOLLONESHOT", 1 << 30),
    ("EPOLLET", 1 << 31),
)  # fmt: skip
EPOLL_CTL = by_value("EPOLL_CTL_ADD EPOLL_CTL_DEL EPOLL_CTL_MOD", 1)
CLOEXEC_NONBLOCK: Table = (("O_NONBLOCK", os.O_NONBLOCK), ("O_CLOEXEC", os.O_CLOEXEC))
DIRECT_NONBLOCK: Table = (("O_DIRECT", os.O_DIRECT), *CLOEXEC_NONBLOCK)
EPOLL_CREATE: Table = (("EPOLL_CLOEXEC", os.O_CLOEXEC),)
EFD: Table = (
    ("EFD_SEMAPHORE", 1), ("EFD_CLOEXEC", os.O_CLOEXEC), ("EFD_NONBLOCK", os.O_NONBLOCK),
)  # fmt: skip
TFD: Table = (("TFD_CLOEXEC", os.O_CLOEXEC), ("TFD_NONBLOCK", os.O_NONBLOCK))
SFD: Table = (("SFD_CLOEXEC", os.O_CLOEXEC), ("SFD_NONBLOCK", os.O_NONBLOCK))
MFD: Table = (("MFD_CLOEXEC", 1), ("MFD_ALLOW_SEALING", 2), ("MFD_HUGETLB", 4))
LOCK: Table = (("LOCK_SH", 1), ("LOCK_EX", 2), ("LOCK_NB", 4), ("LOCK_UN", 8))
RENAME: Table = (("RENAME_NOREPLACE", 1), ("RENAME_EXCHANGE", 2), ("RENAME_WHITEOUT", 4))
FAMILY = from_module(socket, "AF_")
SOCK_TYPE = {
    1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 4: "SOCK_RDM", 5: "SOCK_SEQPACKET",
}  # fmt: skip
SOCK: Table = (("SOCK_CLOEXEC", os.O_CLOEXEC), ("SOCK_NONBLOCK", os.O_NONBLOCK))
SHUT = by_value("SHUT_RD SHUT_WR SHUT_RDWR")
MSG: Table = tuple(
    (f"MSG_{word}", bit)
    for word, bit in (
        ("OOB", 1), ("PEEK", 2), ("DONTROUTE", 4), ("CTRUNC", 8), ("TRUNC", 0x20),
        ("DONTWAIT", 0x40), ("EOR", 0x80), ("WAITALL", 0x100), ("NOSIGNAL", 0x4000),
        ("MORE", 0x8000), ("CMSG_CLOEXEC", 0x40000000),
    )
)  # fmt: skip
SOL = {0: "SOL_IP", 1: "SOL_SOCKET", 6: "SOL_TCP", 17: "SOL_UDP", 41: "SOL_IPV6"}
SO = {
    **by_value("SO_DEBUG SO_REUSEADDR SO_TYPE SO_ERROR SO_DONTROUTE SO_BROADCAST SO_SNDBUF", 1),
    **by_value("SO_RCVBUF SO_KEEPALIVE SO_OOBINLINE SO_NO_CHECK SO_PRIORITY SO_LINGER", 8),
    **by_value("SO_BSDCOMPAT SO_REUSEPORT SO_PASSCRED SO_PEERCRED SO_RCVLOWAT SO_SNDLOWAT", 14),
    **by_value("SO_RCVTIMEO_OLD SO_SNDTIMEO_OLD", 20),
    30: "SO_ACCEPTCONN", 38: "SO_PROTOCOL", 39: "SO_DOMAIN",
}  # fmt: skip
IOCTL = {
    0x5401: "TCGETS", 0x5402: "TCSETS", 0x5403: "TCSETSW", 0x5404: "TCSETSF", 0x540B: "TCFLSH",
    0x540E: "TIOCSCTTY", 0x540F: "TIOCGPGRP", 0x5410: "TIOCSPGRP", 0x5413: "TIOCGWINSZ",
    0x5414: "TIOCSWINSZ", 0x541B: "FIONREAD", 0x5421: "FIONBIO", 0x5422: "TIOCNOTTY",
    0x5450: "FIONCLEX", 0x5451: "FIOCLEX", 0x5452: "FIOASYNC", 0x80045430: "TIOCGPTN",
    0x40045431: "TIOCSPTLCK", 0x40049409: "BTRFS_IOC_CLONE or FICLONE",
}  # fmt: skip
SIGINFO_CODE = {0: "SI_USER", 0x80: "SI_KERNEL", -1: "SI_QUEUE", -2: "SI_TIMER", -6: "SI_TKILL"}
SIGINFO_CODES = {
    int(signal.SIGCHLD): by_value(
        "CLD_EXITED CLD_KILLED CLD_DUMPED CLD_TRAPPED CLD_STOPPED CLD_CONTINUED", 1
    ),
    int(signal.SIGSEGV): by_value("SEGV_MAPERR SEGV_ACCERR", 1),
    int(signal.SIGBUS): by_value("BUS_ADRALN BUS_ADRERR BUS_OBJERR", 1),
    int(signal.SIGFPE): by_value(
        "FPE_INTDIV FPE_INTOVF FPE_FLTDIV FPE_FLTOVF FPE_FLTUND FPE_FLTRES", 1
    ),
    int(signal.SIGILL): by_value("ILL_ILLOPC ILL_ILLOPN ILL_ILLADR ILL_ILLTRP ILL_PRVOPC", 1),
    int(signal.SIGTRAP): by_value("TRAP_BRKPT TRAP_TRACE", 1),
}

_SIGNAL_NAMES = {
    int(number): number.name for number in signal.Signals if not number.name.startswith("SIGRT")
} | {6: "SIGABRT", 17: "SIGCHLD", 29: "SIGIO"}
_SIGRTMIN = 32


def signal_name(number: int) -> str:
    """`SIGINT`, `SIGRTMIN`, `SIGRT_1`, or the number."""
    if _SIGRTMIN <= number <= 64:
        return "SIGRTMIN" if number == _SIGRTMIN else f"SIGRT_{number - _SIGRTMIN}"
    return _SIGNAL_NAMES.get(number, str(number))


def sigset(mask: int) -> str:
    """`[INT CHLD]`; `~[KILL]` where fewer are missing than there are."""
    inverted = mask.bit_count() > 32
    if inverted:
        mask ^= (1 << 64) - 1
    names = [signal_name(bit + 1).removeprefix("SIG") for bit in range(64) if mask >> bit & 1]
    return f"{'~' if inverted else ''}[{' '.join(names)}]"
