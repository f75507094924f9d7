"""mmap(2), munmap(2), mprotect(2), mremap(2), brk(2), remap_file_pages(2), mseal(2), pkeys(7)"""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ENOMEM, ENOSPC, EOVERFLOW, EPERM
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_POPULATE,
    MAP_SHARED,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_SEM,
)
from pysandbox_core.credentials import CAP_IPC_LOCK
from pysandbox_core.declare import (
    Hex,
    Int,
    MapFlags,
    Prot,
    Result,
    Size,
    ULong,
    UserAddr,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm import remap
from pysandbox_core.mm.vma import PROT_ALL, VM_GROWSDOWN, VM_LOCKED, VM_SEALED, VM_SHARED

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_PAGE_MASK = -PAGE_SIZE
_U64 = 0xFFFFFFFFFFFFFFFF
_MAX_FILE_SIZE = (1 << 63) - 1


def page_align(length: int) -> int:
    """`length` rounded up to pages, in 64 bits as Linux does it: it may come to 0."""
    return (length + PAGE_SIZE - 1) & _PAGE_MASK & _U64


@syscall("mmap")
def mmap(
    task: Task, addr: UserAddr, length: Size, prot: Prot, flags: MapFlags, fd: Int, offset: Hex
) -> Result:
    """Map a file or anonymous memory; the address. mmap(2)

    Errors, first match wins: EINVAL `offset` not on a page; EBADF; EINVAL MAP_HUGETLB of a file,
    `length` 0; ENOMEM huge pages, length, number of mappings, no room; EINVAL, EPERM `addr` with
    MAP_FIXED; EEXIST; EPERM, EAGAIN locked memory; EOVERFLOW; EINVAL type; EOPNOTSUPP; EACCES,
    EPERM, ENODEV the file; ENOMEM limits.
    """
    if offset % PAGE_SIZE:
        raise LinuxError(EINVAL)
    file = None
    if not flags & MAP_ANONYMOUS:
        file = task.files.get(fd)
        if flags & MAP_HUGETLB:
            raise LinuxError(EINVAL)
    elif flags & MAP_HUGETLB:
        raise LinuxError(ENOMEM)  # as where no huge pages are set aside
    if not length:
        raise LinuxError(EINVAL)
    mm = task.mm
    length = page_align(length)
    if not length:
        raise LinuxError(ENOMEM)
    if offset + length > _U64:
        raise LinuxError(EOVERFLOW)
    if not flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
        addr &= _PAGE_MASK
        if 0 < addr < mm.min_address:
            addr = mm.min_address
    if flags & MAP_LOCKED or mm.lock_future:
        _require_lockable(task, flags, length)
    if file is not None and offset + length > _MAX_FILE_SIZE:
        raise LinuxError(EOVERFLOW)
    return mm.mmap(task, addr, length, prot, flags, file, offset)


def _require_lockable(task: Task, flags: int, length: int) -> None:
    """EPERM, EAGAIN unless `length` more bytes may be locked."""
    limit = task.group.limits.memlock
    if task.creds.capable(CAP_IPC_LOCK):
        return
    if flags & MAP_LOCKED and limit == 0:
        raise LinuxError(EPERM)
    if task.mm.locked_bytes + length > limit:
        raise LinuxError(EAGAIN)


@syscall("munmap")
def munmap(task: Task, addr: UserAddr, length: Size) -> Result:
    """Remove every mapping of the range. munmap(2)

    Errors: EINVAL `addr` not on a page, length 0, beyond user space; EPERM sealed; ENOMEM too many
    mappings.
    """
    task.mm.munmap(addr, length)
    return 0


@syscall("mprotect")
def mprotect(task: Task, addr: UserAddr, length: Size, prot: Prot) -> Result:
    """Change the protection of a range. mprotect(2)

    Errors, first match wins: EINVAL `prot`, `addr` not on a page; ENOMEM overflow, a gap; EINVAL a
    PROT_GROWS flag that does not fit; EPERM sealed; EACCES more than the file was opened for.
    """
    grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
    prot &= ~grows
    if grows == PROT_GROWSDOWN | PROT_GROWSUP or addr % PAGE_SIZE:
        raise LinuxError(EINVAL)
    if not length:
        return 0
    mm = task.mm
    end = addr + page_align(length)
    if not addr < end <= _U64:
        raise LinuxError(ENOMEM)
    if prot & ~(PROT_ALL | PROT_SEM):
        raise LinuxError(EINVAL)
    if grows:
        addr = _growing_start(task, addr, end, grows)
    mm.mprotect(addr, end, prot & PROT_ALL)
    return 0


def _growing_start(task: Task, addr: int, end: int, grows: int) -> int:
    """Where the range starts with PROT_GROWSDOWN: at the start of the stack it is in."""
    vmas = task.mm.vmas
    index = vmas.first_after(addr)
    if index == len(vmas):
        raise LinuxError(ENOMEM)
    if grows == PROT_GROWSUP:
        raise LinuxError(ENOMEM if vmas.starts[index] > addr else EINVAL)
    if vmas.starts[index] >= end:
        raise LinuxError(ENOMEM)
    if not vmas.values[index].flags & VM_GROWSDOWN:
        raise LinuxError(EINVAL)
    return vmas.starts[index]


@syscall("pkey_mprotect", note="without protection keys, as on a processor that has none")
def pkey_mprotect(task: Task, addr: UserAddr, length: Size, prot: Prot, pkey: Int) -> Result:
    """mprotect with a protection key; only -1, none, is valid here. pkey_mprotect(2)"""
    if pkey != -1:
        raise LinuxError(EINVAL)
    return mprotect(task, addr, length, prot)


@syscall("pkey_alloc", note="without protection keys, as on a processor that has none")
def pkey_alloc(task: Task, flags: ULong, access_rights: ULong) -> Result:
    """Errors: EINVAL flags or rights; ENOSPC. pkey_alloc(2)"""
    if flags or access_rights & ~3:
        raise LinuxError(EINVAL)
    raise LinuxError(ENOSPC)


@syscall("pkey_free", note="without protection keys, as on a processor that has none")
def pkey_free(task: Task, pkey: Int) -> Result:
    """EINVAL: no key is ever allocated. pkey_free(2)"""
    raise LinuxError(EINVAL)


@syscall("mremap")
def mremap(
    task: Task,
    old_address: UserAddr,
    old_size: Size,
    new_size: Size,
    flags: Hex,
    new_address: UserAddr,
) -> Result:
    """Resize or move a mapping; its address. mremap(2); errors: see mm/remap.py."""
    return remap.mremap(task.mm, old_address, old_size, new_size, flags, new_address)


@syscall("brk")
def brk(task: Task, addr: UserAddr) -> Result:
    """Move the end of the heap; where it is then, unchanged if that can't be. brk(2)"""
    mm = task.mm
    if mm.lock_future and addr > mm.brk:
        try:
            _require_lockable(task, 0, page_align(addr - mm.brk))
        except LinuxError:
            return mm.brk
    return mm.set_brk(addr)


@syscall("remap_file_pages")
def remap_file_pages(
    task: Task, addr: UserAddr, size: Size, prot: Prot, pgoff: ULong, flags: Hex
) -> Result:
    """Map other pages of the file that is mapped shared at `addr`. remap_file_pages(2)

    As Linux does it since 4.0: by a mapping of its own. Errors: EINVAL.
    """
    start = addr & _PAGE_MASK
    length = size & _PAGE_MASK
    offset = pgoff << 12
    if prot or start + length <= start or start + length > _U64 or offset + length > _MAX_FILE_SIZE:
        raise LinuxError(EINVAL)
    mm = task.mm
    vma = mm.vmas.get(start)
    if vma is None or not vma.flags & VM_SHARED or vma.backing is None or vma.backing.file is None:
        raise LinuxError(EINVAL)
    for at, stop, other in mm.vmas.within(start, start + length):
        if other.backing is not vma.backing or other.prot != vma.prot or at > stop:
            raise LinuxError(EINVAL)
    if not mm.vmas.covers(start, start + length):
        raise LinuxError(EINVAL)
    how = MAP_SHARED | MAP_FIXED | MAP_POPULATE | (flags & MAP_NONBLOCK)
    if vma.flags & VM_LOCKED:
        how |= MAP_LOCKED
    mm.mmap(task, start, length, vma.prot, how, vma.backing.file, offset)
    return 0


@syscall("mseal")
def mseal(task: Task, addr: UserAddr, length: Size, flags: Hex) -> Result:
    """Keep a range as it is mapped for good. mseal(2)

    Errors: EINVAL flags, `addr`, overflow; ENOMEM a gap.
    """
    if flags or addr % PAGE_SIZE:
        raise LinuxError(EINVAL)
    end = addr + page_align(length)
    if (length and end == addr) or end > _U64:
        raise LinuxError(EINVAL)
    if end > addr:
        if not task.mm.vmas.covers(addr, end):
            raise LinuxError(ENOMEM)
        task.mm.has_seals = True
        task.mm.change_flags(addr, end, VM_SEALED, 0)
    return 0
