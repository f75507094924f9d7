"""Who may look into whose process. ptrace(2), "Ptrace access mode checking".

Interface: `may_access` decides; `require_access` raises. File system credentials (fsuid, fsgid,
effective capabilities) count, since everything here is reached through a path.

Linux: __ptrace_may_access() in kernel/ptrace.c.
"""

from __future__ import annotations

from errno import EACCES
from typing import TYPE_CHECKING

from pysandbox_core.credentials import CAP_SYS_PTRACE
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.task import Task


def may_access(task: Task, target: Task) -> bool:
    """May `task` read what is private to `target`? PTRACE_MODE_READ_FSCREDS"""
    if task.group is target.group:
        return True
    mine, other = task.creds, target.creds
    if mine.capable(CAP_SYS_PTRACE):
        return True
    if not (
        mine.fsuid == other.euid == other.suid == other.uid
        and mine.fsgid == other.egid == other.sgid == other.gid
    ):
        return False
    return is_dumpable(target) and not other.cap_permitted & ~mine.cap_effective


def require_access(task: Task, target: Task, errno: int = EACCES) -> None:
    """Raise `errno` unless `task` may read what is private to `target`."""
    if not may_access(task, target):
        raise LinuxError(errno)


def is_dumpable(target: Task) -> bool:
    """prctl(PR_GET_DUMPABLE) of `target`; a process without memory is not."""
    mm = memory_of(target)
    return mm is not None and mm.dumpable == 1


def memory_of(target: Task) -> MemoryManager | None:
    """The memory of `target`, None once it has exited."""
    return None if target.exited else target.mm


def owner(target: Task) -> tuple[int, int]:
    """uid and gid of the files of `target`: its effective ones, root's if it is not dumpable."""
    if is_dumpable(target):
        return target.creds.euid, target.creds.egid
    return 0, 0
