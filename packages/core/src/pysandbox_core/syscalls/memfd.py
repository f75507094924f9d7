"""memfd_create(2), memfd_secret(2)"""

from __future__ import annotations

from errno import EINVAL, ENAMETOOLONG, ENOMEM, ENOSYS
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import F_SEAL_EXEC, F_SEAL_SEAL
from pysandbox_core.abi.mman import (
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    MFD_EXEC,
    MFD_HUGETLB,
    MFD_NOEXEC_SEAL,
)
from pysandbox_core.declare import Result, UInt, UserString, refused, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.memfd import open_memfd

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_NAME_MAX = 250
"""With the NUL: what is left of NAME_MAX after the prefix."""
_ALL_FLAGS = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL | MFD_EXEC


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
    seals, permissions = F_SEAL_SEAL, 0o777
    if flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL):
        seals = 0
    if flags & MFD_NOEXEC_SEAL:
        seals, permissions = F_SEAL_EXEC, 0o666
    file = open_memfd(task, text, seals, permissions)
    return task.files.install(task, file, cloexec=bool(flags & MFD_CLOEXEC))


refused("memfd_secret", ENOSYS, "as on a kernel started without secretmem.enable")
