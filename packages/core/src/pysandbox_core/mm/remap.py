"""Moving and resizing mappings. mremap(2); Linux: mm/mremap.c"""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.abi.mman import MAP_FIXED, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.layout import find_range, gap_start
from pysandbox_core.mm.state import MAX_MAP_COUNT
from pysandbox_core.mm.vma import VM_LOCKED, VM_SHARED, VM_SPECIAL, Piece, Vma

if TYPE_CHECKING:
    from pysandbox_core.mm.memory_manager import MemoryManager

_PAGE_MASK = -PAGE_SIZE


def mremap(
    mm: MemoryManager, addr: int, old_length: int, new_length: int, flags: int, new_addr: int
) -> int:
    """All of mremap(2) but reading the registers; the new address.

    Errors, first match wins: EINVAL flags, `addr`, no length; EFAULT nothing there; with
    MREMAP_FIXED: EINVAL `new_addr`, overlap; EFAULT, EINVAL, EAGAIN, ENOMEM what is there can't be
    resized; EPERM sealed; ENOMEM no room.
    """
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP):
        raise LinuxError(EINVAL)
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) and not flags & MREMAP_MAYMOVE:
        raise LinuxError(EINVAL)
    old_length = (old_length + PAGE_SIZE - 1) & _PAGE_MASK & 0xFFFFFFFFFFFFFFFF
    new_length = (new_length + PAGE_SIZE - 1) & _PAGE_MASK & 0xFFFFFFFFFFFFFFFF
    if addr % PAGE_SIZE or not new_length:
        raise LinuxError(EINVAL)
    if flags & MREMAP_DONTUNMAP and old_length != new_length:
        raise LinuxError(EINVAL)
    index = mm.vmas.find(addr)
    if index < 0:
        raise LinuxError(EFAULT)
    mm.require_unsealed(addr, addr + max(old_length, 1))
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        return _move_to(mm, addr, old_length, new_length, flags, new_addr)
    if old_length >= new_length:
        if old_length > new_length:
            mm.munmap(addr + new_length, old_length - new_length)
        return addr
    vma, end = _check_resize(mm, addr, old_length, new_length, flags)
    if addr + old_length == end and _expand(mm, vma, addr, end, new_length - old_length):
        return addr
    if not flags & MREMAP_MAYMOVE:
        raise LinuxError(ENOMEM)
    target = find_range(mm, 0, new_length, 0)
    return _move(mm, vma, addr, old_length, new_length, target, flags)


def _check_resize(
    mm: MemoryManager, addr: int, old_length: int, new_length: int, flags: int
) -> tuple[Vma, int]:
    """The VMA at `addr` and its end, if it may be resized. Linux: vma_to_resize()"""
    index = mm.vmas.find(addr)
    if index < 0:
        raise LinuxError(EFAULT)
    vma, end = mm.vmas.values[index], mm.vmas.ends[index]
    if not old_length and not vma.flags & VM_SHARED:
        raise LinuxError(EINVAL)
    if flags & MREMAP_DONTUNMAP and vma.flags & VM_SPECIAL:
        raise LinuxError(EINVAL)
    if old_length > end - addr:
        raise LinuxError(EFAULT)
    if new_length == old_length:
        return vma, end
    if vma.backing is not None and addr + vma.delta + new_length >= 1 << 63:
        raise LinuxError(EINVAL)
    if vma.flags & VM_SPECIAL:
        raise LinuxError(EFAULT)
    limits = mm.limits
    grow = new_length - old_length
    if vma.flags & VM_LOCKED and limits is not None and mm.locked_bytes + grow > limits.memlock:
        raise LinuxError(EAGAIN)
    if grow > 0:
        mm.require_room(vma, grow)
    return vma, end


def _expand(mm: MemoryManager, vma: Vma, addr: int, end: int, grow: int) -> bool:
    """Make the VMA that ends at `end` longer where it is, if there is room."""
    if end + grow > mm.task_size:
        return False
    index = mm.vmas.first_after(end)
    if index < len(mm.vmas) and gap_start(mm, index) < end + grow:
        return False
    mm.insert(end, end + grow, vma)
    mm.bring_in_eagerly(end, end + grow, vma)
    return True


def _move_to(
    mm: MemoryManager, addr: int, old_length: int, new_length: int, flags: int, new_addr: int
) -> int:
    """MREMAP_FIXED and MREMAP_DONTUNMAP. Linux: mremap_to()"""
    if new_addr % PAGE_SIZE or new_length > mm.task_size or new_addr > mm.task_size - new_length:
        raise LinuxError(EINVAL)
    if addr + old_length > new_addr and new_addr + new_length > addr:
        raise LinuxError(EINVAL)
    if len(mm.vmas) + 2 >= MAX_MAP_COUNT - 3:
        raise LinuxError(ENOMEM)
    if flags & MREMAP_FIXED:
        mm.munmap(new_addr, new_length)
    if old_length > new_length:
        mm.munmap(addr + new_length, old_length - new_length)
        old_length = new_length
    vma, _ = _check_resize(mm, addr, old_length, new_length, flags)
    if flags & MREMAP_DONTUNMAP:
        mm.require_room(vma, new_length)
    fixed = MAP_FIXED if flags & MREMAP_FIXED else 0
    target = find_range(mm, new_addr, new_length, fixed)
    return _move(mm, vma, addr, old_length, new_length, target, flags)


def _move(
    mm: MemoryManager,
    vma: Vma,
    addr: int,
    old_length: int,
    new_length: int,
    target: int,
    flags: int,
) -> int:
    """Move [addr, addr+old_length), part of `vma`, to `target`, where it is `new_length` long."""
    if len(mm.vmas) >= MAX_MAP_COUNT - 3:
        raise LinuxError(ENOMEM)
    mm.require_mappings()
    shift = target - addr
    moved = vma if vma.backing is None else vma._replace(delta=vma.delta - shift)
    mm.insert(target, target + new_length, moved)
    if old_length:  # 0 makes a second mapping of shared memory
        pieces = mm.pages.take(addr, addr + old_length)
        if pieces:
            mm.address_space.unmap(pieces[0][0], pieces[-1][1] - pieces[0][0])
        for start, end, (source, delta, cow) in pieces:
            mm.adopt(start + shift, end + shift, Piece(source, delta - shift, cow), moved)
        if flags & MREMAP_DONTUNMAP:
            if vma.flags & VM_LOCKED:
                unlocked = vma._replace(flags=vma.flags & ~VM_LOCKED)
                mm.replace(addr, addr + old_length, vma, unlocked)
        else:
            mm.remove(addr, addr + old_length)
        mm.settle()
    mm.bring_in_eagerly(target + old_length, target + new_length, moved)
    return target
