"""How strace shows the arguments and results of system calls.

Interface: `signature(declaration)` says what to print for a call: a list of `Argument`s, each
printed when the call starts, or (`late`) when it ends, because it is what the call fills in. A
formatter gets the `Call` and the argument's raw register word and returns text; "" leaves out the
argument and what follows. Whatever it reads from the program's memory may be bad or change: what
can't be read is shown as an address.

The notation of SIGNATURES: argument formatters by name, `>` before a late one, and `:N` after one
whose length is argument N (`:r`: the result).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pysandbox_core import strace_flags as names
from pysandbox_core.declare import sign32, sign64
from pysandbox_core.errors import LinuxError
from pysandbox_core.strace_structs import STRUCTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.declare import Declaration
    from pysandbox_core.task import Task

STRING_LIMIT = 32
"""Bytes of a string that are shown."""
ARRAY_LIMIT = 32

FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP = 1, 3, 4, 5
FUTEX_UNLOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET = 7, 8, 9, 10
FUTEX_WAIT_REQUEUE_PI, FUTEX_CMP_REQUEUE_PI = 11, 12
FUTEX_WITH_VAL3 = (FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP, FUTEX_CMP_REQUEUE_PI)
FUTEX_WITH_SECOND = (FUTEX_REQUEUE, *FUTEX_WITH_VAL3)
"""Operations on two futexes, whose fourth argument is a count and no timeout."""

Formatter: TypeAlias = "Callable[[Call, int], str]"


class Call:
    """One system call that is being shown."""

    __slots__ = ("name", "result", "task", "words")

    def __init__(self, task: Task, name: str, words: tuple[int, ...]) -> None:
        self.task = task
        self.name = name
        self.words = words
        """The six argument registers."""
        self.result: int | None = None
        """While late arguments are shown: what the call returned, -errno if it failed."""

    @property
    def failed(self) -> bool:
        return self.result is None or self.result < 0


class Argument(NamedTuple):
    """How one argument is shown."""

    formatter: Formatter
    late: bool


def address(word: int) -> str:
    return f"{word:#x}" if word else "NULL"


def quote(data: bytes, limit: int = STRING_LIMIT, *, all_hex: bool = False) -> str:
    """A string in quotes with C escapes; `...` after it if it is longer than `limit`."""
    shown = data[:limit]
    if all_hex:
        text = "".join(f"\\x{byte:02x}" for byte in shown)
    else:
        text = "".join(
            _escape(byte, shown[index + 1 : index + 2]) for index, byte in enumerate(shown)
        )
    return f'"{text}"{"..." if len(data) > limit else ""}'


def _escape(byte: int, after: bytes) -> str:
    special = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
    if byte in special:
        return special[byte]
    if 32 <= byte < 127:
        return chr(byte)
    # octal, in full only where a digit follows
    return f"\\{byte:03o}" if after.isdigit() else f"\\{byte:o}"


# Formatters of one word.


def f_int(call: Call, word: int) -> str:
    return str(sign32(word))


def f_uint(call: Call, word: int) -> str:
    return str(word & 0xFFFFFFFF)


def f_long(call: Call, word: int) -> str:
    return str(sign64(word))


def f_size(call: Call, word: int) -> str:
    return str(word)


def f_hex(call: Call, word: int) -> str:
    return f"{word:#x}" if word else "0"


def f_addr(call: Call, word: int) -> str:
    return address(word)


def f_dirfd(call: Call, word: int) -> str:
    fd = sign32(word)
    return "AT_FDCWD" if fd == -100 else str(fd)


def f_uid(call: Call, word: int) -> str:
    return str(sign32(word)) if word & 0xFFFFFFFF == 0xFFFFFFFF else str(word & 0xFFFFFFFF)


def f_mode(call: Call, word: int) -> str:
    return f"0{word & 0xFFFF:02o}"


def f_file_mode(call: Call, word: int) -> str:
    """With the type, as mknod(2) takes it."""
    kind = names.FILE_TYPE.get(word & 0o170000)
    return f"{kind}|{f_mode(call, word & 0o7777)}" if kind else f_mode(call, word)


def f_create_mode(call: Call, word: int) -> str:
    """open(2)'s mode counts only if a file may be made."""
    flags = call.words[1 if call.name == "open" else 2]
    return f_mode(call, word) if flags & 0o100 or flags & 0o20200000 == 0o20200000 else ""


def f_open(call: Call, word: int) -> str:
    access = names.ACCESS_MODE[word & 3]
    rest = word & 0xFFFFFFFC
    return f"{access}|{names.flags(rest, names.OPEN)}" if rest else access


def f_map(call: Call, word: int) -> str:
    kind = names.MAP_TYPE.get(word & 0xF, "")
    rest = word & ~0xF if kind else word
    if not rest:
        return kind or "0"
    return "|".join(filter(None, (kind, names.flags(rest, names.MAP))))


def f_clone(call: Call, word: int) -> str:
    exit_signal = word & 0xFF
    parts = [names.flags(word & 0xFFFFFF00, names.CLONE, "")]
    if exit_signal:
        parts.append(names.signal_name(exit_signal))
    return "|".join(filter(None, parts)) or "0"


def f_signal(call: Call, word: int) -> str:
    number = sign32(word)
    return names.signal_name(number) if number else "0"


def f_fcntl_arg(call: Call, word: int) -> str:
    command = names.FCNTL.get(call.words[1], "")
    if command in ("F_GETFD", "F_GETFL", "F_GETOWN", "F_GETSIG", "F_GETLEASE", "F_GETPIPE_SZ"):
        return ""
    if command == "F_SETFD":
        return "FD_CLOEXEC" if word == 1 else f_hex(call, word)
    if command == "F_SETFL":
        return f_open(call, word)
    if command.startswith(("F_DUPFD", "F_SETOWN", "F_SETPIPE")):
        return str(sign32(word))
    return address(word)


def f_futex_op(call: Call, word: int) -> str:
    name = names.FUTEX.get(word & 0x7F)
    if name is None:
        return f"{word:#x} /* FUTEX_??? */"
    private = "_PRIVATE" if word & 0x80 else ""
    return name + private + ("|FUTEX_CLOCK_REALTIME" if word & 0x100 else "")


def f_futex_timeout(call: Call, word: int) -> str:
    op = call.words[1] & 0x7F
    if op in (FUTEX_WAKE, FUTEX_UNLOCK_PI, FUTEX_TRYLOCK_PI):
        return ""
    if op == FUTEX_WAKE_BITSET:
        return _futex_bitset(call)
    if op in FUTEX_WITH_SECOND:
        return str(word & 0xFFFFFFFF)
    return timespec(call, word)


def f_futex_uaddr2(call: Call, word: int) -> str:
    op = call.words[1] & 0x7F
    if op == FUTEX_WAIT_BITSET:
        return _futex_bitset(call)
    return address(word) if op in FUTEX_WITH_SECOND or op == FUTEX_WAIT_REQUEUE_PI else ""


def f_futex_val3(call: Call, word: int) -> str:
    return f_hex(call, word & 0xFFFFFFFF) if call.words[1] & 0x7F in FUTEX_WITH_VAL3 else ""


def _futex_bitset(call: Call) -> str:
    mask = call.words[5] & 0xFFFFFFFF
    return "FUTEX_BITSET_MATCH_ANY" if mask == 0xFFFFFFFF else f"{mask:#x}"


def f_sock_type(call: Call, word: int) -> str:
    kind = names.SOCK_TYPE.get(word & 0xF, f"{word & 0xF:#x}")
    rest = word & 0xFFFFFFF0
    return f"{kind}|{names.flags(rest, names.SOCK)}" if rest else kind


def f_sockopt(call: Call, word: int) -> str:
    if sign32(call.words[1]) == 1:
        return names.name(word & 0xFFFFFFFF, names.SO, "SO_???")
    return f"{word & 0xFFFFFFFF:#x}"


def f_envp(call: Call, word: int) -> str:
    """The environment is only counted."""
    try:
        count = len(call.task.mm.read_string_array(word, 1 << 20)[0]) if word else 0
    except LinuxError:
        return address(word)
    return f"{address(word)} /* {count} var{'' if count == 1 else 's'} */"


def f_argv(call: Call, word: int) -> str:
    if not word:
        return "NULL"
    try:
        words, _ = call.task.mm.read_string_array(word, 1 << 20)
    except LinuxError:
        return address(word)
    shown = [quote(item) for item in words[:ARRAY_LIMIT]]
    return f"[{', '.join(shown)}{', ...' if len(words) > ARRAY_LIMIT else ''}]"


def f_path(call: Call, word: int) -> str:
    if not word:
        return "NULL"
    try:
        return quote(call.task.mm.read_cstring(word, 4096), 4096)
    except LinuxError:
        return address(word)


def f_string(call: Call, word: int) -> str:
    if not word:
        return "NULL"
    try:
        return quote(call.task.mm.read_cstring(word, 4096))
    except LinuxError:
        return address(word)


def f_sigset(call: Call, word: int) -> str:
    try:
        return names.sigset(call.task.mm.read_u64(word)) if word else "NULL"
    except LinuxError:
        return address(word)


def f_link(call: Call, word: int) -> str:
    """getcwd(2) fills in a string."""
    return f_path(call, word) if not call.failed else address(word)


def f_ints(call: Call, word: int) -> str:
    """A pair of descriptors."""
    try:
        mm = call.task.mm
        return address(word) if call.failed else f"[{mm.read_s32(word)}, {mm.read_s32(word + 4)}]"
    except LinuxError:
        return address(word)


def f_dirents(call: Call, word: int) -> str:
    if call.failed or call.result is None:
        return address(word)
    try:
        data = call.task.mm.read(word, call.result)
    except LinuxError:
        return address(word)
    count = position = 0
    while position < len(data):
        position += int.from_bytes(data[position + 16 : position + 18], "little") or len(data)
        count += 1
    return f"{address(word)} /* {count} entr{'y' if count == 1 else 'ies'} */"


def _table(table: names.Table) -> Formatter:
    return lambda call, word: names.flags(word & 0xFFFFFFFF, table)


def _named(table: dict[int, str], unknown: str) -> Formatter:
    return lambda call, word: names.name(word & 0xFFFFFFFF, table, unknown)


def _struct(kind: str, late: bool) -> Formatter:
    show = STRUCTS[kind]

    def formatter(call: Call, word: int) -> str:
        if not word:
            return "NULL"
        if late and call.failed:
            return address(word)
        try:
            return show(call.task, word)
        except LinuxError:
            return address(word)

    return formatter


def _buffer(kind: str, length_of: str, late: bool) -> Formatter:
    """Bytes, as many as an argument or the result says."""

    def formatter(call: Call, word: int) -> str:
        if late and call.failed:
            return address(word)
        length = call.result if length_of == "r" else call.words[int(length_of)]
        try:
            data = call.task.mm.read(word, min(length or 0, STRING_LIMIT + 1)) if word else b""
        except LinuxError:
            return address(word)
        return quote(data, all_hex=kind == "random") if word else "NULL"

    return formatter


def _array(kind: str, count_of: str, late: bool) -> Formatter:
    """An array of structures, as long as an argument or the result says."""
    show, size = STRUCTS[kind], STRUCT_SIZES[kind]

    def formatter(call: Call, word: int) -> str:
        if late and call.failed:
            return address(word)
        count = call.result if count_of == "r" else call.words[int(count_of)]
        if not word or count is None:
            return address(word)
        try:
            items = [
                show(call.task, word + index * size) for index in range(min(count, ARRAY_LIMIT))
            ]
        except LinuxError:
            return address(word)
        return f"[{', '.join(items)}{', ...' if count > ARRAY_LIMIT else ''}]"

    return formatter


timespec = _struct("timespec", False)

STRUCT_SIZES = {"pollfd": 8, "iovec": 16, "epoll_event": 12}

FORMATTERS: dict[str, Formatter] = {
    name.removeprefix("f_"): value for name, value in globals().items() if name.startswith("f_")
} | {
    "fd": f_int,
    "pid": f_int,
    "offset": f_long,
    "at": _table(names.AT),
    "at_access": _table(names.AT_ACCESS),
    "access": lambda call, word: names.flags(word & 0xFFFFFFFF, names.ACCESS, "F_OK"),
    "prot": lambda call, word: names.flags(word, names.PROT, "PROT_NONE"),
    "mremap": _table(names.MREMAP),
    "madvice": _named(names.MADVICE, "MADV_???"),
    "fadvise": _named(names.FADVISE, "POSIX_FADV_???"),
    "msync": _table(names.MSYNC),
    "wait": _table(names.WAIT),
    "sig_how": _named(names.SIGPROCMASK, "SIG_???"),
    "whence": _named(names.SEEK, "SEEK_???"),
    "fcntl": _named(names.FCNTL, "F_???"),
    "rlimit_name": _named(names.RLIMIT, "RLIMIT_???"),
    "arch": _named(names.ARCH_PRCTL, "ARCH_???"),
    "prctl": _named(names.PRCTL, "PR_???"),
    "clock": _named(names.CLOCK, "CLOCK_???"),
    "timer_flags": _table(names.TIMER),
    "grnd": _table(names.GRND),
    "epoll_create": _table(names.EPOLL_CREATE),
    "epoll_ctl": _named(names.EPOLL_CTL, "EPOLL_CTL_???"),
    "cloexec": _table(names.CLOEXEC_NONBLOCK),
    "pipe_flags": _table(names.DIRECT_NONBLOCK),
    "efd": _table(names.EFD),
    "tfd": _table(names.TFD),
    "sfd": _table(names.SFD),
    "mfd": _table(names.MFD),
    "flock": _table(names.LOCK),
    "rename": _table(names.RENAME),
    "family": _named(names.FAMILY, "AF_???"),
    "shut": _named(names.SHUT, "SHUT_???"),
    "msg": _table(names.MSG),
    "sol": _named(names.SOL, "SOL_???"),
    "ioctl": _named(names.IOCTL, "_IOC(...)"),
    "tls": lambda call, word: address(word),
}

BY_TYPE = {
    "Fd": "fd", "DirFd": "dirfd", "Int": "int", "UInt": "uint", "Long": "long", "ULong": "size",
    "Size": "size", "Loff": "long", "Pid": "pid", "Uid": "uid", "Gid": "uid", "Signo": "signal",
    "ClockId": "clock", "Mode": "mode", "OpenFlags": "open", "AtFlags": "at", "Prot": "prot",
    "MapFlags": "map", "CloneFlags": "clone", "Hex": "hex", "UserAddr": "addr", "UserPath": "path",
    "UserString": "string", "UserBuffer": "addr", "TimespecPtr": "timespec",
    "TimevalPtr": "timeval", "IovecPtr": "addr", "SigsetPtr": "sigset", "SockaddrPtr": "addr",
    "StringArrayPtr": "argv",
}  # fmt: skip
"""What to print for the argument types of a declaration where SIGNATURES has nothing better."""

SIGNATURES = {
    "read": "fd >buffer:r size",
    "write": "fd buffer:2 size",
    "pread64": "fd >buffer:r size offset",
    "pwrite64": "fd buffer:2 size offset",
    "readv": "fd >iovec:2 uint",
    "writev": "fd iovec:2 uint",
    "open": "path open create_mode",
    "openat": "dirfd path open create_mode",
    "creat": "path mode",
    "stat": "path >stat",
    "lstat": "path >stat",
    "fstat": "fd >stat",
    "newfstatat": "dirfd path >stat at",
    "access": "path access",
    "faccessat": "dirfd path access",
    "faccessat2": "dirfd path access at_access",
    "lseek": "fd offset whence",
    "mmap": "addr size prot map fd hex",
    "mprotect": "addr size prot",
    "mremap": "addr size size mremap addr",
    "madvise": "addr size madvice",
    "fadvise64": "fd offset size fadvise",
    "msync": "addr size msync",
    "brk": "addr",
    "rt_sigaction": "signal sigaction >sigaction size",
    "rt_sigprocmask": "sig_how sigset >sigset size",
    "rt_sigsuspend": "sigset size",
    "rt_sigpending": ">sigset size",
    "rt_sigtimedwait": "sigset >addr timespec size",
    "ioctl": "fd ioctl addr",
    "fcntl": "fd fcntl fcntl_arg",
    "getcwd": ">link size",
    "readlink": "path >buffer:r size",
    "readlinkat": "dirfd path >buffer:r size",
    "getdents64": "fd >dirents size",
    "pipe": ">ints",
    "pipe2": ">ints pipe_flags",
    "dup3": "fd fd cloexec",
    "poll": "pollfd:1 uint int",
    "ppoll": "pollfd:1 uint timespec sigset size",
    "execve": "path argv envp",
    "execveat": "dirfd path argv envp at",
    "wait4": "pid >status wait >addr",
    "exit": "int",
    "exit_group": "int",
    "kill": "pid signal",
    "tkill": "pid signal",
    "tgkill": "pid pid signal",
    "arch_prctl": "arch addr",
    "prctl": "prctl hex hex hex hex",
    "set_robust_list": "addr size",
    "rseq": "addr hex int hex",
    "prlimit64": "pid rlimit_name rlimit >rlimit",
    "getrlimit": "rlimit_name >rlimit",
    "setrlimit": "rlimit_name rlimit",
    "getrandom": ">random:r size grnd",
    "uname": ">utsname",
    "sysinfo": ">addr",
    "statfs": "path >addr",
    "fstatfs": "fd >addr",
    "clock_gettime": "clock >timespec",
    "clock_getres": "clock >timespec",
    "clock_settime": "clock timespec",
    "clock_nanosleep": "clock timer_flags timespec >timespec",
    "nanosleep": "timespec >timespec",
    "gettimeofday": ">timeval addr",
    "futex": "addr futex_op uint futex_timeout futex_uaddr2 futex_val3",
    "clone3": "clone_args size",
    "mkdir": "path mode",
    "mkdirat": "dirfd path mode",
    "mknod": "path file_mode hex",
    "mknodat": "dirfd path file_mode hex",
    "chmod": "path mode",
    "fchmod": "fd mode",
    "fchmodat": "dirfd path mode",
    "umask": "mode",
    "renameat2": "dirfd path dirfd path rename",
    "flock": "fd flock",
    "eventfd2": "uint efd",
    "epoll_create1": "epoll_create",
    "epoll_ctl": "fd epoll_ctl fd epoll_event",
    "epoll_wait": "fd >epoll_event:r int int",
    "epoll_pwait": "fd >epoll_event:r int int sigset size",
    "timerfd_create": "clock tfd",
    "memfd_create": "string mfd",
    "socket": "family sock_type int",
    "socketpair": "family sock_type int >ints",
    "shutdown": "fd shut",
    "connect": "fd sockaddr uint",
    "bind": "fd sockaddr uint",
    "listen": "fd int",
    "sendto": "fd buffer:2 size msg addr uint",
    "recvfrom": "fd >buffer:r size msg addr addr",
    "sendmsg": "fd addr msg",
    "recvmsg": "fd >addr msg",
    "setsockopt": "fd sol sockopt addr uint",
    "getsockopt": "fd sol sockopt >addr addr",
    "link": "path path",
    "symlink": "path path",
    "symlinkat": "path dirfd path",
}


@cache
def signature(declaration: Declaration) -> tuple[Argument, ...]:
    """How to show the arguments of a system call."""
    notation = SIGNATURES.get(declaration.name)
    if notation is None:
        notation = " ".join(BY_TYPE[kind] for _, kind in declaration.parameters)
    return tuple(_argument(word) for word in notation.split())


def _argument(word: str) -> Argument:
    late = word.startswith(">")
    kind, colon, length_of = word.removeprefix(">").partition(":")
    if kind in ("buffer", "random"):
        return Argument(_buffer(kind, length_of, late), late)
    if colon:
        return Argument(_array(kind, length_of, late), late)
    if kind in STRUCTS:
        return Argument(_struct(kind, late), late)
    return Argument(FORMATTERS[kind], late)


HEX_RESULTS = ("brk", "mmap", "mremap", "shmat")


def show_result(call: Call) -> str:
    """What follows the equals sign."""
    result = call.result
    if result is None:
        return "?"
    if result < 0:
        number = -result
        if number in names.RESTART:
            word, text = names.RESTART[number]
            return f"? {word} ({text})"
        import os

        return f"-1 {names.ERRNO.get(number, f'ERRNO_{number}')} ({os.strerror(number)})"
    if call.name in HEX_RESULTS:
        return f"{result:#x}" if result else "0"
    if call.name == "fcntl":
        command = names.FCNTL.get(call.words[1])
        if command == "F_GETFL":
            return f"{result:#x} (flags {f_open(call, result)})"
        if command == "F_GETFD":
            return f"{result:#x} (flags FD_CLOEXEC)" if result else "0"
    if call.name == "umask":
        return f_mode(call, result)
    if call.name in ("poll", "ppoll", "select", "pselect6") and not result:
        return "0 (Timeout)"
    if call.name in ("poll", "ppoll"):
        return f"{result} ({_ready(call)})"
    return str(sign64(result))


def _ready(call: Call) -> str:
    """What poll(2) found."""
    items = []
    try:
        for index in range(min(call.words[1], ARRAY_LIMIT)):
            base = call.words[0] + index * STRUCT_SIZES["pollfd"]
            revents = call.task.mm.read_u16(base + 6)
            if revents:
                text = names.flags(revents, names.POLL)
                items.append(f"{{fd={call.task.mm.read_s32(base)}, revents={text}}}")
    except LinuxError:
        return address(call.words[0])
    return f"[{', '.join(items)}]"
