"""How strace shows structures in the program's memory.

Interface: `STRUCTS[kind](task, addr)` is the text of the structure at `addr`, which is not 0.
LinuxError(EFAULT) if it can't be read.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, TypeAlias

from pysandbox_core import strace_flags as names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.task import Task

Show: TypeAlias = "Callable[[Task, int], str]"

_TWO_LONGS = struct.Struct("<qq")
_TWO_WORDS = struct.Struct("<QQ")
_STAT = struct.Struct("<QQQIIIIQqqq")
_SIGACTION = struct.Struct("<QQQQ")
_CLONE_ARGS = struct.Struct("<8Q")
_POLLFD = struct.Struct("<ihh")
_EPOLL_EVENT = struct.Struct("<IIi")

RLIM_INFINITY = (1 << 64) - 1
_UTSNAME_FIELD = 65


def timespec(task: Task, addr: int) -> str:
    seconds, nanoseconds = task.mm.unpack(addr, _TWO_LONGS)
    return f"{{tv_sec={seconds}, tv_nsec={nanoseconds}}}"


def timeval(task: Task, addr: int) -> str:
    seconds, microseconds = task.mm.unpack(addr, _TWO_LONGS)
    return f"{{tv_sec={seconds}, tv_usec={microseconds}}}"


def stat(task: Task, addr: int) -> str:
    fields = task.mm.unpack(addr, _STAT)
    mode, rdev, size = fields[3], fields[7], fields[8]
    kind = names.FILE_TYPE.get(mode & 0o170000)
    special = names.flags(mode & 0o7000, names.MODE, "")
    bits = f"0{mode & 0o777:02o}"
    text = "|".join(filter(None, (kind, special, bits)))
    if kind in ("S_IFCHR", "S_IFBLK"):
        what = f"st_rdev=makedev({os.major(rdev):#x}, {os.minor(rdev):#x})"
    else:
        what = f"st_size={size}"
    return f"{{st_mode={text}, {what}, ...}}"


def rlimit(task: Task, addr: int) -> str:
    soft, hard = task.mm.unpack(addr, _TWO_WORDS)
    return f"{{rlim_cur={_limit(soft)}, rlim_max={_limit(hard)}}}"


def _limit(value: int) -> str:
    if value == RLIM_INFINITY:
        return "RLIM64_INFINITY"
    return f"{value >> 10}*1024" if value > 1024 and not value & 1023 else str(value)


def sigaction(task: Task, addr: int) -> str:
    handler, flags, restorer, mask = task.mm.unpack(addr, _SIGACTION)
    who = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler, f"{handler:#x}")
    text = f"{{sa_handler={who}, sa_mask={names.sigset(mask)}, "
    text += f"sa_flags={names.flags(flags & 0xFFFFFFFF, names.SIGACTION)}"
    return text + (f", sa_restorer={restorer:#x}}}" if flags & 0x04000000 else "}")


def utsname(task: Task, addr: int) -> str:
    data = task.mm.read(addr, 6 * _UTSNAME_FIELD)
    fields = [
        data[start : start + _UTSNAME_FIELD].partition(b"\0")[0].decode(errors="replace")
        for start in range(0, len(data), _UTSNAME_FIELD)
    ]
    return f'{{sysname="{fields[0]}", nodename="{fields[1]}", ...}}'


def clone_args(task: Task, addr: int) -> str:
    fields = task.mm.unpack(addr, _CLONE_ARGS)
    flags, _, child_tid, parent_tid, exit_signal, stack, size, tls = fields
    parts = [f"flags={names.flags(flags, names.CLONE)}"]
    if flags & 0x01200000:
        parts.append(f"child_tid={child_tid:#x}")
    if flags & 0x00100000:
        parts.append(f"parent_tid={parent_tid:#x}")
    parts.append(f"exit_signal={names.signal_name(exit_signal) if exit_signal else 0}")
    parts += [f"stack={stack:#x}" if stack else "stack=NULL", f"stack_size={size:#x}"]
    if flags & 0x80000:
        parts.append(f"tls={tls:#x}")
    return f"{{{', '.join(parts)}}}"


def pollfd(task: Task, addr: int) -> str:
    fd, events, _ = task.mm.unpack(addr, _POLLFD)
    if fd < 0:
        return f"{{fd={fd}}}"
    return f"{{fd={fd}, events={names.flags(events & 0xFFFF, names.POLL)}}}"


def iovec(task: Task, addr: int) -> str:
    from pysandbox_core.strace_format import STRING_LIMIT, quote

    base, length = task.mm.unpack(addr, _TWO_WORDS)
    data = task.mm.read(base, min(length, STRING_LIMIT + 1)) if length else b""
    return f"{{iov_base={quote(data)}, iov_len={length}}}"


def epoll_event(task: Task, addr: int) -> str:
    events, low, high = task.mm.unpack(addr, _EPOLL_EVENT)
    text = names.flags(events, names.EPOLL)
    return f"{{events={text}, data={{u32={low}, u64={(high & 0xFFFFFFFF) << 32 | low}}}}}"


def status(task: Task, addr: int) -> str:
    """A wait(2) status word."""
    value = task.mm.read_u32(addr)
    signo = value & 0x7F
    if value == 0xFFFF:
        return "[{WIFCONTINUED(s)}]"
    if value & 0xFF == 0x7F:
        return f"[{{WIFSTOPPED(s) && WSTOPSIG(s) == {names.signal_name(value >> 8 & 0xFF)}}}]"
    if signo:
        dumped = " && WCOREDUMP(s)" if value & 0x80 else ""
        return f"[{{WIFSIGNALED(s) && WTERMSIG(s) == {names.signal_name(signo)}{dumped}}}]"
    return f"[{{WIFEXITED(s) && WEXITSTATUS(s) == {value >> 8 & 0xFF}}}]"


def sockaddr(task: Task, addr: int) -> str:
    family = task.mm.read_u16(addr)
    if family == socket.AF_UNIX:
        path = task.mm.read_some(addr + 2, 108)
        if path.startswith(b"\0"):
            return "{sa_family=AF_UNIX, sun_path=@...}"
        text = path.partition(b"\0")[0].decode(errors="backslashreplace")
        return f'{{sa_family=AF_UNIX, sun_path="{text}"}}'
    if family == socket.AF_INET:
        data = task.mm.read(addr + 2, 6)
        port = int.from_bytes(data[:2], "big")
        host = socket.inet_ntoa(data[2:])
        return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{host}")}}'
    return f"{{sa_family={names.name(family, names.FAMILY, 'AF_???')}, ...}}"


STRUCTS: dict[str, Show] = {
    "timespec": timespec,
    "timeval": timeval,
    "stat": stat,
    "rlimit": rlimit,
    "sigaction": sigaction,
    "utsname": utsname,
    "clone_args": clone_args,
    "pollfd": pollfd,
    "iovec": iovec,
    "epoll_event": epoll_event,
    "status": status,
    "sockaddr": sockaddr,
}
