"""What thread libraries tell the kernel: set_tid_address, robust lists, rseq, thread-local storage.

The words told here are addresses that are used when the thread ends (task_exit, futex).
"""

from __future__ import annotations

from errno import EINVAL, ENOSYS, EPERM, ESRCH
from typing import TYPE_CHECKING

from pysandbox_platform.registers_amd64 import FS_BASE, GS_BASE

from pysandbox_core.credentials import CAP_SYS_PTRACE
from pysandbox_core.declare import Int, Pid, Result, Size, UserAddr, refused, syscall
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_ROBUST_LIST_HEAD_SIZE = 24

# arch_prctl(2), arch/x86/include/uapi/asm/prctl.h
_ARCH_SET_GS = 0x1001
_ARCH_SET_FS = 0x1002
_ARCH_GET_FS = 0x1003
_ARCH_GET_GS = 0x1004
_ARCH_GET_CPUID = 0x1011
_ARCH_GET_XCOMP_SUPP = 0x1021
_ARCH_GET_XCOMP_PERM = 0x1022
_TASK_SIZE_MAX = (1 << 47) - 4096

refused(
    "rseq",
    ENOSYS,
    "the kernel is not told when the host preempts a thread; C libraries do without",
)


@syscall("set_tid_address")
def set_tid_address(task: Task, tidptr: UserAddr) -> Result:
    """Have the word at `tidptr` cleared, and its futex woken, when the thread ends; returns the
    tid. set_tid_address(2)"""
    task.clear_child_tid = tidptr
    return task.tid


@syscall("set_robust_list")
def set_robust_list(task: Task, head: UserAddr, length: Size) -> Result:
    """Say where the list of held robust futexes is. EINVAL a wrong `length`. set_robust_list(2)"""
    if length != _ROBUST_LIST_HEAD_SIZE:
        raise LinuxError(EINVAL)
    task.robust_list = head
    return 0


@syscall("get_robust_list")
def get_robust_list(task: Task, tid: Pid, head_ptr: UserAddr, length_ptr: UserAddr) -> Result:
    """Where a thread's list of held robust futexes is; 0 is the caller. get_robust_list(2)

    Errors, first match wins: ESRCH; EPERM another user's; EFAULT.
    """
    other = task.kernel.tasks.get(tid) if tid else task
    if other is None:
        raise LinuxError(ESRCH)
    if (
        other.group is not task.group
        and other.creds.uid != task.creds.fsuid
        and not task.creds.capable(CAP_SYS_PTRACE)
    ):
        raise LinuxError(EPERM)
    task.mm.write_u64(length_ptr, _ROBUST_LIST_HEAD_SIZE)
    task.mm.write_u64(head_ptr, other.robust_list)
    return 0


@syscall("arch_prctl", note="dynamic XSAVE features (AMX) and CPUID faulting are not offered")
def arch_prctl(task: Task, option: Int, argument: UserAddr) -> Result:
    """Get or set the FS or GS base. arch_prctl(2)

    Errors: EPERM a base outside of user space; EFAULT; EINVAL another option.
    """
    if option in (_ARCH_SET_FS, _ARCH_SET_GS):
        if argument >= _TASK_SIZE_MAX:
            raise LinuxError(EPERM)
        task.regs[FS_BASE if option == _ARCH_SET_FS else GS_BASE] = argument
        return 0
    if option in (_ARCH_GET_FS, _ARCH_GET_GS):
        base = task.regs[FS_BASE if option == _ARCH_GET_FS else GS_BASE]
        task.mm.write_u64(argument, base)
        return 0
    if option == _ARCH_GET_CPUID:
        return 1
    if option in (_ARCH_GET_XCOMP_SUPP, _ARCH_GET_XCOMP_PERM):
        task.mm.write_u64(argument, task.kernel.platform.xstate_features)
        return 0
    raise LinuxError(EINVAL)
