"""rename(2), renameat(2), renameat2(2)."""

from __future__ import annotations

from errno import EINVAL

from pysandbox_core.abi.fcntl import AT_FDCWD, RENAME_EXCHANGE, RENAME_NOREPLACE
from pysandbox_core.declare import DirFd, Result, UInt, UserPath, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.names import rename_name
from pysandbox_core.task import Task


@syscall("rename")
def rename(task: Task, oldpath: UserPath, newpath: UserPath) -> Result:
    """Move a file to another name, over what is there. rename(2)

    Errors: those of path resolution; EXDEV; EBUSY `.`, `..` or a mount point; EROFS; ENOENT;
    ENOTDIR; EISDIR; EINVAL into itself; ENOTEMPTY; EACCES; EPERM sticky.
    """
    read_path = task.mm.read_path
    rename_name(task, AT_FDCWD, read_path(oldpath), AT_FDCWD, read_path(newpath), 0)
    return 0


@syscall("renameat")
def renameat(
    task: Task, olddirfd: DirFd, oldpath: UserPath, newdirfd: DirFd, newpath: UserPath
) -> Result:
    """rename(2) from directories."""
    read_path = task.mm.read_path
    rename_name(task, olddirfd, read_path(oldpath), newdirfd, read_path(newpath), 0)
    return 0


@syscall("renameat2", note="RENAME_WHITEOUT is EINVAL")
def renameat2(
    task: Task,
    olddirfd: DirFd,
    oldpath: UserPath,
    newdirfd: DirFd,
    newpath: UserPath,
    flags: UInt,
) -> Result:
    """rename(2) with RENAME_NOREPLACE (EEXIST instead of replacing) or RENAME_EXCHANGE."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
        raise LinuxError(EINVAL)
    read_path = task.mm.read_path
    rename_name(task, olddirfd, read_path(oldpath), newdirfd, read_path(newpath), flags)
    return 0
