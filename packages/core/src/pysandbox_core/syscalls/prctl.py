"""A process's and a thread's odd attributes: prctl(2). Those of capabilities are in credentials.

Linux: kernel/sys.c, security/commoncap.c.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ENODEV, EPERM
from typing import TYPE_CHECKING

from pysandbox_core.abi.securebits import (
    SECBIT_KEEP_CAPS,
    SECBIT_KEEP_CAPS_LOCKED,
    SECBIT_NO_CAP_AMBIENT_RAISE,
    SECURE_ALL_BITS,
    SECURE_ALL_LOCKS,
)
from pysandbox_core.abi.signal import NSIG
from pysandbox_core.credentials import CAP_LAST, CAP_SETPCAP, replace
from pysandbox_core.declare import Int, Result, ULong, syscall
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_COMM_LENGTH = 15
"""Bytes of a thread's name, without the NUL."""
_DEFAULT_TIMER_SLACK_NS = 50_000

_PR_CAP_AMBIENT_IS_SET = 1
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_LOWER = 3
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_PR_SET_VMA_ANON_NAME = 0
_VMA_NAME_LENGTH = 80


def _set_pdeathsig(task: Task, signo: int, *_: int) -> int:
    if signo > NSIG:
        raise LinuxError(EINVAL)
    task.pdeath_signal = signo
    return 0


def _get_pdeathsig(task: Task, addr: int, *_: int) -> int:
    task.mm.write_u32(addr, task.pdeath_signal)
    return 0


def _get_dumpable(task: Task, *_: int) -> int:
    return task.mm.dumpable


def _set_dumpable(task: Task, value: int, *_: int) -> int:
    if value not in (0, 1):
        raise LinuxError(EINVAL)
    task.mm.dumpable = value
    return 0


def _get_keepcaps(task: Task, *_: int) -> int:
    return int(bool(task.creds.securebits & SECBIT_KEEP_CAPS))


def _set_keepcaps(task: Task, value: int, *_: int) -> int:
    if value > 1:
        raise LinuxError(EINVAL)
    securebits = task.creds.securebits
    if securebits & SECBIT_KEEP_CAPS_LOCKED:
        raise LinuxError(EPERM)
    securebits = securebits & ~SECBIT_KEEP_CAPS | value * SECBIT_KEEP_CAPS
    task.creds = replace(task.creds, securebits=securebits)
    return 0


def _set_name(task: Task, addr: int, *_: int) -> int:
    """A longer name is cut, and its end is not even read."""
    name = b""
    while len(name) < _COMM_LENGTH:
        byte = task.mm.read(addr + len(name), 1)
        if byte == b"\0":
            break
        name += byte
    task.comm = name
    return 0


def _get_name(task: Task, addr: int, *_: int) -> int:
    task.mm.write(addr, task.comm.ljust(_COMM_LENGTH + 1, b"\0"))
    return 0


def _get_securebits(task: Task, *_: int) -> int:
    return task.creds.securebits


def _set_securebits(task: Task, value: int, *_: int) -> int:
    """A lock keeps its bit and itself. Linux: cap_task_prctl"""
    creds = task.creds
    old = creds.securebits
    locked = (old & SECURE_ALL_LOCKS) >> 1
    if (
        locked & (old ^ value)
        or old & SECURE_ALL_LOCKS & ~value
        or value & ~(SECURE_ALL_BITS | SECURE_ALL_LOCKS)
        or not creds.capable(CAP_SETPCAP)
    ):
        raise LinuxError(EPERM)
    task.creds = replace(creds, securebits=value)
    return 0


def _capbset_read(task: Task, capability: int, *_: int) -> int:
    if capability > CAP_LAST:
        raise LinuxError(EINVAL)
    return task.creds.cap_bounding >> capability & 1


def _capbset_drop(task: Task, capability: int, *_: int) -> int:
    creds = task.creds
    if not creds.capable(CAP_SETPCAP):
        raise LinuxError(EPERM)
    if capability > CAP_LAST:
        raise LinuxError(EINVAL)
    task.creds = replace(creds, cap_bounding=creds.cap_bounding & ~(1 << capability))
    return 0


def _cap_ambient(task: Task, action: int, capability: int, arg4: int, arg5: int) -> int:
    creds = task.creds
    if action == _PR_CAP_AMBIENT_CLEAR_ALL:
        if capability or arg4 or arg5:
            raise LinuxError(EINVAL)
        task.creds = replace(creds, cap_ambient=0)
        return 0
    if arg4 or arg5 or capability > CAP_LAST:
        raise LinuxError(EINVAL)
    bit = 1 << capability
    if action == _PR_CAP_AMBIENT_IS_SET:
        return int(bool(creds.cap_ambient & bit))
    if action == _PR_CAP_AMBIENT_RAISE:
        if (
            not creds.cap_permitted & creds.cap_inheritable & bit
            or creds.securebits & SECBIT_NO_CAP_AMBIENT_RAISE
        ):
            raise LinuxError(EPERM)
        task.creds = replace(creds, cap_ambient=creds.cap_ambient | bit)
        return 0
    if action == _PR_CAP_AMBIENT_LOWER:
        task.creds = replace(creds, cap_ambient=creds.cap_ambient & ~bit)
        return 0
    raise LinuxError(EINVAL)


def _set_no_new_privs(task: Task, value: int, arg3: int, arg4: int, arg5: int) -> int:
    if value != 1 or arg3 or arg4 or arg5:
        raise LinuxError(EINVAL)
    if not task.creds.no_new_privs:
        task.creds = replace(task.creds, no_new_privs=True)
    return 0


def _get_no_new_privs(task: Task, arg2: int, arg3: int, arg4: int, arg5: int) -> int:
    if arg2 or arg3 or arg4 or arg5:
        raise LinuxError(EINVAL)
    return int(task.creds.no_new_privs)


def _set_timerslack(task: Task, slack_ns: int, *_: int) -> int:
    task.timer_slack_ns = slack_ns or _DEFAULT_TIMER_SLACK_NS
    return 0


def _get_timerslack(task: Task, *_: int) -> int:
    return min(task.timer_slack_ns, (1 << 63) - 1)


def _set_child_subreaper(task: Task, value: int, *_: int) -> int:
    task.group.is_child_subreaper = bool(value)
    return 0


def _get_child_subreaper(task: Task, addr: int, *_: int) -> int:
    task.mm.write_u32(addr, int(task.group.is_child_subreaper))
    return 0


def _set_thp_disable(task: Task, value: int, arg3: int, arg4: int, arg5: int) -> int:
    if arg3 or arg4 or arg5:
        raise LinuxError(EINVAL)
    task.group.thp_disabled = bool(value)
    return 0


def _get_thp_disable(task: Task, arg2: int, arg3: int, arg4: int, arg5: int) -> int:
    if arg2 or arg3 or arg4 or arg5:
        raise LinuxError(EINVAL)
    return int(task.group.thp_disabled)


def _get_tid_address(task: Task, addr: int, *_: int) -> int:
    task.mm.write_u64(addr, task.clear_child_tid)
    return 0


def _set_vma(task: Task, attribute: int, addr: int, length: int, name: int) -> int:
    """Names are checked and not kept: /proc/PID/maps does not show them."""
    if attribute != _PR_SET_VMA_ANON_NAME or addr & 4095:
        raise LinuxError(EINVAL)
    if name:
        text = task.mm.read_cstring(name, _VMA_NAME_LENGTH)
        if any(byte < 0x20 or byte > 0x7E or byte in b"\\`$[]" for byte in text):
            raise LinuxError(EINVAL)
    return 0


def _nothing(task: Task, *_: int) -> int:
    return 0


def _mce_kill_get(task: Task, *_: int) -> int:
    return 2


def _eperm(task: Task, *_: int) -> int:
    raise LinuxError(EPERM)


def _enodev(task: Task, *_: int) -> int:
    raise LinuxError(ENODEV)


def _get_tsc(task: Task, addr: int, *_: int) -> int:
    task.mm.write_u32(addr, 1)
    return 0


_OPTIONS: dict[int, Callable[[Task, int, int, int, int], int]] = {
    1: _set_pdeathsig,
    2: _get_pdeathsig,
    3: _get_dumpable,
    4: _set_dumpable,
    7: _get_keepcaps,
    8: _set_keepcaps,
    13: _nothing,  # PR_GET_TIMING: PR_TIMING_STATISTICAL
    15: _set_name,
    16: _get_name,
    21: _nothing,  # PR_GET_SECCOMP: no filter
    23: _capbset_read,
    24: _capbset_drop,
    25: _get_tsc,
    27: _get_securebits,
    28: _set_securebits,
    29: _set_timerslack,
    30: _get_timerslack,
    33: _nothing,  # PR_MCE_KILL
    34: _mce_kill_get,
    35: _eperm,  # PR_SET_MM, which takes CAP_SYS_RESOURCE of the initial user namespace
    36: _set_child_subreaper,
    37: _get_child_subreaper,
    38: _set_no_new_privs,
    39: _get_no_new_privs,
    40: _get_tid_address,
    41: _set_thp_disable,
    42: _get_thp_disable,
    47: _cap_ambient,
    52: _enodev,  # PR_GET_SPECULATION_CTRL
    53: _enodev,  # PR_SET_SPECULATION_CTRL
    0x53564D41: _set_vma,
    0x59616D61: _nothing,  # PR_SET_PTRACER: there is no ptrace to restrict
}
"""By PR_* number, include/uapi/linux/prctl.h."""


@syscall(
    "prctl",
    note="PR_SET_SECCOMP is EINVAL, as in a kernel without CONFIG_SECCOMP",
)
def prctl(task: Task, option: Int, arg2: ULong, arg3: ULong, arg4: ULong, arg5: ULong) -> Result:
    """Get or set an attribute of the process or thread. EINVAL an option that is not known; others
    as prctl(2) has them for each option."""
    handler = _OPTIONS.get(option)
    if handler is None:
        raise LinuxError(EINVAL)
    return handler(task, arg2, arg3, arg4, arg5)
