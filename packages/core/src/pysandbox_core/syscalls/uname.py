"""The machine as a whole: names, memory, execution domain, random bytes. uname(2), sysinfo(2)"""

from __future__ import annotations

import os
from errno import EINVAL, EPERM
from struct import Struct
from time import monotonic_ns
from typing import TYPE_CHECKING

from pysandbox_core.abi.utsname import FIELD_LENGTH, MACHINE, RELEASE, SYSNAME, VERSION
from pysandbox_core.credentials import CAP_SYS_ADMIN
from pysandbox_core.declare import Int, Result, Size, UInt, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dev import write_random

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_SYSINFO = Struct("<q3Q6QH6x2QI4x")
"""uptime, loads[3]; totalram, freeram, sharedram, bufferram, totalswap, freeswap; procs; totalhigh,
freehigh; mem_unit."""

# getrandom(2)
_GRND_NONBLOCK = 1
_GRND_RANDOM = 2
_GRND_INSECURE = 4

_PERSONALITY_QUERY = 0xFFFFFFFF

# syslog(2)
_SYSLOG_SIZE_BUFFER = 10


@syscall("uname")
def uname(task: Task, buf: UserAddr) -> Result:
    """Store the names of the system. EFAULT. uname(2)"""
    kernel = task.kernel
    fields = (SYSNAME, kernel.hostname, RELEASE, VERSION, MACHINE, kernel.domainname)
    task.mm.write(buf, b"".join(field.ljust(FIELD_LENGTH, b"\0") for field in fields))
    return 0


@syscall("sethostname")
def sethostname(task: Task, name: UserAddr, length: Int) -> Result:
    """Set the node name, for the whole sandbox. EPERM, EINVAL length, EFAULT. sethostname(2)"""
    task.kernel.hostname = _read_name(task, name, length)
    return 0


@syscall("setdomainname")
def setdomainname(task: Task, name: UserAddr, length: Int) -> Result:
    """Set the NIS domain name, for the whole sandbox. EPERM, EINVAL length, EFAULT.
    setdomainname(2)"""
    task.kernel.domainname = _read_name(task, name, length)
    return 0


def _read_name(task: Task, name: int, length: int) -> bytes:
    if not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    if not 0 <= length < FIELD_LENGTH:
        raise LinuxError(EINVAL)
    return task.mm.read(name, length).split(b"\0")[0]


@syscall("sysinfo", note="load averages are 0; there is no swap")
def sysinfo(task: Task, info: UserAddr) -> Result:
    """Store uptime, memory and the number of tasks. EFAULT. sysinfo(2)"""
    from pysandbox_core.fs.proc.system import total_memory

    kernel = task.kernel
    total = total_memory(kernel)
    free = total - min(total, kernel.memory_file.usage())
    uptime = (monotonic_ns() - kernel.booted_ns) // 1_000_000_000 + 1  # rounded up
    fields = (uptime, 0, 0, 0, total, free, 0, 0, 0, 0, min(len(kernel.tasks), 0xFFFF), 0, 0, 1)
    task.mm.pack(info, _SYSINFO, *fields)
    return 0


@syscall("personality", note="kept and inherited; only PER_LINUX is acted on")
def personality(task: Task, persona: UInt) -> Result:
    """Set the execution domain and return the one before; 0xffffffff only asks. personality(2)"""
    previous = task.group.personality
    if persona != _PERSONALITY_QUERY:
        task.group.personality = persona
    return previous


@syscall("getrandom")
def getrandom(task: Task, buf: UserAddr, count: Size, flags: UInt) -> Result:
    """Fill `buf` with random bytes of the host's; how many. getrandom(2)

    Errors, first match wins: EINVAL flags; EFAULT.
    """
    if flags & ~(_GRND_NONBLOCK | _GRND_RANDOM | _GRND_INSECURE) or flags & (
        _GRND_INSECURE | _GRND_RANDOM
    ) == (_GRND_INSECURE | _GRND_RANDOM):
        raise LinuxError(EINVAL)
    if count <= 256:
        task.mm.write(buf, os.getrandom(count))
        return count
    return write_random(task, task.mm.sink(buf, count))


@syscall("syslog", note="the kernel log is empty")
def syslog(task: Task, action: Int, buf: UserAddr, length: Int) -> Result:
    """Nothing is logged where programs could read it: reads give 0 bytes. syslog(2)

    Errors, first match wins: EINVAL the action, or a bad buffer for one that reads; EPERM.
    """
    if not 0 <= action <= _SYSLOG_SIZE_BUFFER:
        raise LinuxError(EINVAL)
    if action not in (3, _SYSLOG_SIZE_BUFFER) and not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    if action in (2, 3, 4) and (not buf or length < 0):
        raise LinuxError(EINVAL)
    return 0
