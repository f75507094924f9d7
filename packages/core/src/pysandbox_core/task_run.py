"""What a task does between its stops besides answering system calls.

The slow paths of loop.py: a failed system call, a stop that is no system call, and work to be done
before the program goes on (signals, exits, job control). Linux: kernel/entry/common.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform import (
    ACCESS_EXEC,
    ACCESS_WRITE,
    STOP_EXCEPTION,
    STOP_FAULT,
    STOP_KILLED,
    PlatformError,
)
from pysandbox_platform.registers_amd64 import RAX

from pysandbox_core import task_signals
from pysandbox_core.abi.numbers_amd64 import NAMES
from pysandbox_core.declare import ARGUMENT_REGISTERS
from pysandbox_core.errors import ERESTARTSYS, LinuxError
from pysandbox_core.task import WORK_EXIT, WORK_OTHER, WORK_RESTART, WORK_SIGNAL

if TYPE_CHECKING:
    from pysandbox_platform import Context

    from pysandbox_core.task import Task

_U64 = 0xFFFFFFFFFFFFFFFF


def finish_failed_syscall(task: Task, error: LinuxError) -> None:
    """Put -errno where the program sees it, or remember how the call is to be restarted."""
    if error.errno >= ERESTARTSYS:
        task.restart_errno = error.errno
        task.work |= WORK_RESTART | WORK_SIGNAL
    else:
        task.regs[RAX] = -error.errno & _U64


def blame(task: Task, error: Exception) -> None:
    """Note on `error`, a kernel bug, which system call of which task it ended."""
    name = NAMES.get(task.syscall_number, str(task.syscall_number))
    words = ", ".join(hex(task.regs[register]) for register in ARGUMENT_REGISTERS)
    error.add_note(f"in system call {name}({words}) of {task!r}")


def handle_stop(task: Task, context: Context) -> None:
    """Deal with a stop that is not a system call."""
    task.syscall_number = -1
    if context.stop == STOP_FAULT:
        handle_fault(task, context)
    elif context.stop == STOP_EXCEPTION:
        task_signals.force_fault(task, context.signo, context.code, context.fault_addr)
    elif context.stop == STOP_KILLED:
        raise PlatformError(f"task {task.tid} was lost: {context.message}")


def handle_fault(task: Task, context: Context) -> None:
    """Bring the page in, or send the signal that says it can't be."""
    signo, code = task.mm.handle_fault(context.fault_addr, context.fault_access, context.signo)
    if signo:
        access = context.fault_access
        error_code = 4 | (access == ACCESS_WRITE) << 1 | (access == ACCESS_EXEC) << 4
        task_signals.force_fault(task, signo, code, context.fault_addr, error_code)


def return_to_user(task: Task) -> None:
    """Do the task's work and resume it, unless it exits, stops or parks on the way."""
    while task.work:
        if task.work & WORK_EXIT:
            task_signals.exit_if_dying(task)
            return
        if task.work & WORK_OTHER:
            task.work &= ~WORK_OTHER
            for function in task.task_work[:]:
                task.task_work.remove(function)
                function(task)
            continue
        task_signals.deliver(task)
    task.running = True
    task.kernel.running += 1
    task.context.resume(task.mm.address_space)
