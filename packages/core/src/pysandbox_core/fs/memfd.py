"""Files in memory without a directory: what memfd_create(2) opens.

Interface: `open_memfd` gives a tmpfs file that no path leads to; /proc/PID/fd shows it as
b"/memfd:NAME (deleted)". Linux: mm/memfd.c, on the kernel's own mount of tmpfs.
"""

from __future__ import annotations

import os
from stat import S_IFREG
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pysandbox_core.abi.fcntl import O_LARGEFILE
from pysandbox_core.fs.dentry import Dentry, Path
from pysandbox_core.fs.mount import Mount
from pysandbox_core.fs.tmpfs import UNLIMITED, TmpFile, TmpFileDescription, TmpFs

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

_mounts: WeakKeyDictionary[Kernel, Mount] = WeakKeyDictionary()
"""Each kernel's tmpfs for such files."""


class MemfdFile(TmpFileDescription):
    """What memfd_create(2) opens; unlike other files it may be run while it is open for writing."""

    __slots__ = ()
    counts_as_writer = False


def open_memfd(task: Task, name: bytes, seals: int, permissions: int = 0o777) -> FileDescription:
    """A new empty file called `name`, open for reading and writing. `seals`: F_SEAL_* bits that it
    has from the start; F_SEAL_SEAL alone for one that can't be sealed. ENOSPC"""
    mount = _memory_mount(task.kernel)
    fs = mount.fs
    assert isinstance(fs, TmpFs)
    inode = fs.new_file(S_IFREG | permissions, task.creds.fsuid, task.creds.fsgid)
    assert isinstance(inode, TmpFile)
    inode.nlink = 0
    inode.seals = seals
    dentry = Dentry(b"memfd:" + name, mount.root, inode)
    dentry.unlinked = True
    return MemfdFile(os.O_RDWR | O_LARGEFILE, inode, Path(mount, dentry))


def _memory_mount(kernel: Kernel) -> Mount:
    mount = _mounts.get(kernel)
    if mount is None:
        fs = TmpFs(kernel, max_bytes=UNLIMITED, max_inodes=UNLIMITED)
        mount = _mounts[kernel] = Mount(0, fs, Dentry(b"", None, fs.root), b"tmpfs", 0)
    return mount
