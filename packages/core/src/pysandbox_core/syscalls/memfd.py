"""memfd_create(2), memfd_secret(2)"""

from __future__ import annotations

import os
from errno import EINVAL, ENAMETOOLONG, ENOMEM, ENOSYS
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pysandbox_core.abi.fcntl import F_SEAL_EXEC, F_SEAL_SEAL, O_LARGEFILE
from pysandbox_core.abi.mman import (
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    MFD_EXEC,
    MFD_HUGETLB,
    MFD_NOEXEC_SEAL,
)
from pysandbox_core.declare import Result, UInt, UserString, refused, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Dentry, Path
from pysandbox_core.fs.mount import Mount
from pysandbox_core.fs.tmpfs import TmpFs

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

_NAME_MAX = 250
"""With the NUL: what is left of NAME_MAX after the prefix."""
_ALL_FLAGS = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL | MFD_EXEC
_S_IFREG = 0o100000

_mounts: WeakKeyDictionary[Kernel, Mount] = WeakKeyDictionary()


@syscall("memfd_create")
def memfd_create(task: Task, name: UserString, flags: UInt) -> Result:
    """An open file in memory that has no place in any directory; its descriptor. memfd_create(2)

    Errors, first match wins: EINVAL flags; EFAULT, EINVAL name; ENOMEM huge pages; EMFILE.
    """
    if not flags & MFD_HUGETLB and flags & ~_ALL_FLAGS:
        raise LinuxError(EINVAL)
    if flags & MFD_EXEC and flags & MFD_NOEXEC_SEAL:
        raise LinuxError(EINVAL)
    try:
        text = task.mm.read_cstring(name, _NAME_MAX)
    except LinuxError as error:
        raise LinuxError(EINVAL if error.errno == ENAMETOOLONG else error.errno) from None
    if flags & MFD_HUGETLB:
        raise LinuxError(ENOMEM)  # as where no huge pages are set aside
    mount = _memory_mount(task.kernel)
    fs = mount.fs
    assert isinstance(fs, TmpFs)
    inode = fs.new_file(_S_IFREG | 0o777, task.creds.fsuid, task.creds.fsgid)
    inode.seals = F_SEAL_SEAL
    if flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL):
        inode.seals = 0
    if flags & MFD_NOEXEC_SEAL:
        inode.mode &= ~0o111
        inode.seals |= F_SEAL_EXEC
    dentry = Dentry(b"memfd:" + text, mount.root, inode)
    dentry.unlinked = True
    file = inode.open(task, Path(mount, dentry), os.O_RDWR | O_LARGEFILE)
    return task.files.install(task, file, cloexec=bool(flags & MFD_CLOEXEC))


def _memory_mount(kernel: Kernel) -> Mount:
    """The mount of `kernel` that no path leads to. Linux: shm_mnt"""
    mount = _mounts.get(kernel)
    if mount is None:
        fs = TmpFs(kernel, max_inodes=None)
        root = Dentry(b"", None, fs.root)
        mount = _mounts[kernel] = Mount(0, fs, root, b"tmpfs", 0)
    return mount


refused("memfd_secret", ENOSYS, "as on a kernel started without secretmem.enable")
