"""Opening what is no regular file and no directory: devices, fifos, sockets. Linux: fs/inode.c,
init_special_inode().

Interface: `open_special` for inodes of these types, of any file system that may hold them.
"""

from __future__ import annotations

from errno import ENXIO
from stat import S_IFCHR, S_IFIFO
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.task import Task


def open_special(task: Task, inode: Inode, path: Path, flags: int) -> FileDescription:
    """A fifo is a pipe of this kernel, a character device is whatever driver has its number. ENXIO
    for sockets, block devices and numbers that nothing answers to. open(2)"""
    kind = inode.mode & 0o170000
    if kind == S_IFIFO:
        from pysandbox_core.fs.pipe import open_fifo

        return open_fifo(task, inode, path, flags)
    if kind == S_IFCHR:
        from pysandbox_core.fs.dev import open_device

        return open_device(task, path, inode, flags)
    raise LinuxError(ENXIO)
