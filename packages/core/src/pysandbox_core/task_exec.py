"""Replacing a task's program. execve(2)

Interface: `execute` runs an opened file in place of what `task` runs; `start_first` does the same
for a process that has run nothing yet. Until the program is known to be one, errors leave the task
as it was; after that there is no way back, and a failure kills it with SIGSEGV, as in Linux.

Set-user-ID and set-group-ID bits and file capabilities are ignored, as they are for every process
with no_new_privs.

Linux: bprm_execve() and begin_new_exec() in fs/exec.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform.registers_amd64 import (
    CS,
    EFLAGS,
    EFLAGS_FIXED,
    NREGS,
    ORIG_RAX,
    RIP,
    RSP,
    SS,
    USER_CS,
    USER_DS,
)

from pysandbox_core import task_exit, task_signals
from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.abi.signal import SIGCHLD, SIGSEGV
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.open_file import open_for_exec
from pysandbox_core.loader.image import LoadedImage, Program, load, open_program
from pysandbox_core.signals import NO_ALTSTACK, SigInfo

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.task import Task

COMM_MAX = 15

_INITIAL_FPSTATE = b"\x7f\x03" + bytes(22) + b"\x80\x1f\0\0" + bytes(484)
"""FCW 0x37f and MXCSR 0x1f80 in an FXSAVE area; the other components are initial."""
_NO_SYSCALL = (1 << 64) - 1


def execute(
    task: Task,
    file: FileDescription,
    path: bytes,
    argv: list[bytes],
    envp: list[bytes],
    *,
    comm: bytes | None = None,
    reopenable: bool = True,
) -> None:
    """Run `file`, whose reference is taken over, as `path`. The registers are those of the new
    program then. Errors: those of open_program; EAGAIN the process is ending."""
    program = open_program(task, file, path, argv, envp, reopenable=reopenable)
    try:
        task_exit.kill_other_threads(task)
        task_exit.become_leader(task)
        try:
            image = _load(task, program)
        except LinuxError:
            task_signals.force(task, SigInfo.kernel(SIGSEGV), default=True)
            raise
        _replace_memory(task, image)
        _reset(task, program, comm)
        _start_at(task, image)
    finally:
        program.close()


def start_first(task: Task, path: bytes, argv: list[bytes], envp: list[bytes]) -> None:
    """Give a new process, which has an empty address space, its first program. Any errno of
    execve(2); the process is as it was then."""
    file = open_for_exec(task, AT_FDCWD, path)
    program = open_program(task, file, path, argv, envp)
    try:
        image = _load(task, program)
        _replace_memory(task, image)
        _reset(task, program, None)
        _start_at(task, image)
    finally:
        program.close()


def _load(task: Task, program: Program) -> LoadedImage:
    group = task.group
    return load(task, task.kernel, program, task.creds, group.limits, group.personality)


def _replace_memory(task: Task, image: LoadedImage) -> None:
    """Let go of the old memory, which a vfork parent may be waiting for, and take the new."""
    task_exit.release_memory(task)
    old = task.mm
    task.mm = image.mm
    old.release(task)


def _reset(task: Task, program: Program, comm: bytes | None) -> None:
    """What does not outlive a program. execve(2), "Effect on process attributes" """
    group = task.group
    if task.files.users > 1:
        files = task.files.copy()
        task.files.release(task)
        task.files = files
    task.files.close_on_exec(task)
    if task.sighand.users > 1:
        task.sighand.users -= 1
        task.sighand = task.sighand.copy()
    task.sighand.reset_for_exec()
    task.altstack = NO_ALTSTACK
    task.robust_list = 0
    task.clear_child_tid = 0
    task.rseq_area = task.rseq_length = task.rseq_signature = 0
    task.restart_block = None
    task.creds = task.creds.after_exec()
    if group.timers is not None:
        group.timers.delete_posix()
    task.comm = (comm or program.path.rsplit(b"/", 1)[-1])[:COMM_MAX]
    group.exit_signal = SIGCHLD
    group.has_execed = True
    path = program.file.path
    if path is not None:
        group.exe_path = path.absolute()


def _start_at(task: Task, image: LoadedImage) -> None:
    """The registers of a new program: all zero but what says where it is."""
    regs = task.regs
    for index in range(NREGS):
        regs[index] = 0
    regs[CS], regs[SS] = USER_CS, USER_DS
    regs[EFLAGS] = EFLAGS_FIXED
    regs[RIP], regs[RSP] = image.entry, image.stack_pointer
    regs[ORIG_RAX] = _NO_SYSCALL
    task.context.set_fpstate(_INITIAL_FPSTATE)
