"""Booting: from a configuration and a platform to a kernel that can start processes.

Interface: `boot(kernel)` once, then `spawn` for each process that the user asks for, all on the
kernel thread. What was asked for and can't be had is a SandboxError; that a program can't be
executed is the LinuxError of execve(2).
"""

from __future__ import annotations

from errno import EACCES, ENOENT, ENOSYS, ENOTDIR
from typing import TYPE_CHECKING

from pysandbox_core import cpu_limit, task_clone, task_exec, task_exit, task_signals
from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.config import show
from pysandbox_core.credentials import Credentials
from pysandbox_core.declare import DECLARATIONS, TABLE_SIZE, Entry, Result, build_entry
from pysandbox_core.errors import InvalidOptionError, LinuxError
from pysandbox_core.fs.context import FsContext
from pysandbox_core.fs.fd_table import FdTable
from pysandbox_core.fs.host_stdio import open_stdio
from pysandbox_core.fs.permissions import MAY_EXEC, check_access
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.fs.setup import build_mounts
from pysandbox_core.fs.sources import find_sources
from pysandbox_core.mm.memory_file import MemoryFile
from pysandbox_core.mm.memory_manager import MemoryManager
from pysandbox_core.syscalls import declare_family
from pysandbox_core.syscalls.index import CALLS
from pysandbox_core.time.clocks import Clocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysandbox_core.config import ProcessSpec
    from pysandbox_core.fs.sources import Source
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task, ThreadGroup


def boot(kernel: Kernel, sources: Sequence[Source] | None = None) -> None:
    """Give `kernel` its memory, clocks, process 1, file systems and system calls. `sources` is
    where the jail has the host's files; without a jail they are where they are."""
    kernel.memory_file = MemoryFile(kernel.config.memory)
    kernel.clocks = Clocks(kernel)
    task_clone.new_init(kernel)
    build_mounts(kernel, find_sources(kernel.config) if sources is None else sources)
    kernel.table = build_table()
    kernel.memory.start()
    cpu_limit.watch_sandbox(kernel)


def spawn(kernel: Kernel, spec: ProcessSpec, paths: list[bytes]) -> ThreadGroup:
    """Start the first program that is at one of `paths`, as `spec` says, as a child of process 1
    and in a session of its own.

    It is an empty process that executes the program, so that execve(2) is the only way in. Errors:
    those of execve(2); InvalidOptionError if the working directory is required and can't be
    entered.
    """
    user = spec.user or kernel.config.user
    creds = Credentials.for_user(user.uid, user.gid, tuple(user.groups))
    root = kernel.mounts.root
    task = task_clone.new_process(
        kernel,
        mm=MemoryManager(kernel, None, kernel.platform.new_address_space()),
        files=FdTable(),
        fs=FsContext(root, root),
        creds=creds,
    )
    try:
        task.sighand.ignore(spec.ignored)  # which execve(2) leaves as it is
        enter_directory(task, spec)
        for fd, file in enumerate(open_stdio(kernel, spec.stdio)):
            if file is not None:
                task.files.set(fd, file, cloexec=False)
        if kernel.console is not None:
            from pysandbox_core.fs.host_tty import attach

            attach(task, task.files)
        execute_first_of(task, paths, spec)
    except BaseException:
        task_exit.exit_task(task)
        raise
    task_clone.start(task)
    return task.group


def execute_first_of(task: Task, paths: list[bytes], spec: ProcessSpec) -> None:
    """As execvp(3) does it: a file that may not be executed counts only if no other is found."""
    failure = LinuxError(ENOENT)
    for path in paths:
        try:
            task_exec.start_first(task, path, spec.argv, spec.env)
            return
        except LinuxError as error:
            if error.errno not in (ENOENT, ENOTDIR):
                failure = error
            if error.errno not in (ENOENT, ENOTDIR, EACCES):
                break
    raise failure


def enter_directory(task: Task, spec: ProcessSpec) -> None:
    """Make `spec.cwd` the working directory; if it may be missing, `/` serves instead."""
    try:
        cwd = resolve(task, AT_FDCWD, spec.cwd)
        if not cwd.inode.is_dir:
            raise LinuxError(ENOTDIR)
        check_access(task.creds, cwd.inode, MAY_EXEC)
    except LinuxError as error:
        if spec.cwd_required:
            raise InvalidOptionError(
                f"working directory {show(spec.cwd)} can't be entered in the sandbox: {error}"
            ) from None
        return
    task.fs.set_cwd(cwd)


def send_signal(group: ThreadGroup, signo: int) -> None:
    """Pass on a signal that the sandbox was sent from outside, as from the host's kernel."""
    if group.exit_status is None:
        task_signals.send(group, signo)


def build_table() -> list[Entry]:
    """The table the loop calls through: entry by number, the last one for every other number."""
    table: list[Entry] = [_unknown] * (TABLE_SIZE + 1)
    for family, names in CALLS.items():
        for name in names.split():
            table[NUMBERS[name]] = _on_first_call(table, NUMBERS[name], family)
    return table


def _unknown(task: Task, regs: memoryview) -> Result:
    """A number without a declaration. Of one that is too large Linux sees the low half alone.
    do_syscall_64()"""
    number = task.syscall_number & 0xFFFFFFFF
    if number < TABLE_SIZE <= task.syscall_number:
        task.syscall_number = number
        return task.kernel.table[number](task, regs)
    raise LinuxError(ENOSYS)


def _on_first_call(table: list[Entry], number: int, family: str) -> Entry:
    """An entry that puts the real one in its place when it is called."""

    def resolve(task: Task, regs: memoryview) -> Result:
        declare_family(family)
        declaration = DECLARATIONS[number]
        entry = build_entry(declaration)
        if table[number] is resolve:
            table[number] = entry
        if declaration.handler is None:
            task.kernel.log(f"{declaration.name}: not implemented, {declaration.note}", "info")
        return entry(task, regs)

    return resolve
