"""Booting: from a configuration and a platform to a kernel that can start processes.

Interface: `boot(kernel)` once, then `spawn` for each process that the user asks for, both on the kernel
thread. What the program can't see yet may fail here with SandboxError.
"""

from __future__ import annotations

from errno import EACCES, ENOENT, ENOSYS, ENOTDIR
from typing import TYPE_CHECKING

from pysandbox_core import syscalls
from pysandbox_core.declare import DECLARATIONS, TABLE_SIZE, Declaration, Entry, Result, build_entry
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pysandbox_core.credentials import Credentials
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task, ThreadGroup

_ = (syscalls, EACCES, ENOENT, ENOTDIR)


def build_table(kernel: Kernel) -> list[Entry]:
    """The table the loop calls through: entry by number, the last one for every other number."""
    table: list[Entry] = [_unknown] * (TABLE_SIZE + 1)
    for number, declaration in DECLARATIONS.items():
        table[number] = _on_first_call(table, declaration)
    return table


def _unknown(task: Task, regs: memoryview) -> Result:
    raise LinuxError(ENOSYS)


def _on_first_call(table: list[Entry], declaration: Declaration) -> Entry:
    """An entry that puts the real one in its place when it is called."""

    def resolve(task: Task, regs: memoryview) -> Result:
        entry = build_entry(declaration)
        if table[declaration.number] is resolve:
            table[declaration.number] = entry
        if declaration.handler is None:
            task.kernel.log(f"{declaration.name}: not implemented, {declaration.note}", "info")
        return entry(task, regs)

    return resolve
