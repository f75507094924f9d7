"""Where mappings go: the free range that mmap(2) chooses, and the random parts of a new layout.

From high to low: the stack at the top, a random gap, then mappings from `mmap_base` downwards, the
program and its heap far below. Linux: arch/x86/mm/mmap.c, vm_unmapped_area() in mm/mmap.c.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.abi.mman import MAP_32BIT, MAP_FIXED
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.state import STACK_GUARD_GAP
from pysandbox_core.mm.vma import VM_GROWSDOWN

if TYPE_CHECKING:
    from pysandbox_core.mm.state import MmState

MMAP_RANDOM_BITS = 28
"""Linux: vm.mmap_rnd_bits, in pages."""
STACK_RANDOM_BYTES = 0x3FFFFF << 12
BRK_RANDOM_BYTES = 0x02000000
_STACK_GAP_MIN = 128 << 20

ADDR_NO_RANDOMIZE = 0x0040000
"""personality(2)"""

_LOW_START, _LOW_END = 0x40000000, 0x80000000
"""Where MAP_32BIT looks."""


def random_bytes_below(limit: int) -> int:
    """A random multiple of PAGE_SIZE below `limit`, a power of two."""
    return int.from_bytes(os.urandom(8), "little") & (limit - 1) & -PAGE_SIZE


def choose_mmap_base(task_size: int, stack_limit: int, *, randomize: bool) -> int:
    """Where the search for free ranges starts. Linux: mmap_base()"""
    gap_max = task_size // 6 * 5
    pad = STACK_GUARD_GAP + (STACK_RANDOM_BYTES & -PAGE_SIZE if randomize else 0)
    gap = min(max(stack_limit + pad, _STACK_GAP_MIN), gap_max)
    random = random_bytes_below(PAGE_SIZE << MMAP_RANDOM_BITS) if randomize else 0
    return (task_size - gap - random) & -PAGE_SIZE


def find_range(mm: MmState, hint: int, length: int, flags: int) -> int:
    """Where a mapping of `length` bytes (a multiple of pages) goes. mmap(2)

    Errors, first match wins: ENOMEM too long; with MAP_FIXED: ENOMEM beyond the end, EINVAL not on
    a page, EPERM too low; ENOMEM no room.
    """
    if length > mm.task_size:
        raise LinuxError(ENOMEM)
    if flags & MAP_FIXED:
        if hint > mm.task_size - length:
            raise LinuxError(ENOMEM)
        if hint % PAGE_SIZE:
            raise LinuxError(EINVAL)
        if hint < mm.min_address:
            raise LinuxError(EPERM)
        return hint
    if flags & MAP_32BIT:
        return _find_upwards(mm, length, _LOW_START, min(_LOW_END, mm.task_size))
    if hint:
        hint = (hint + PAGE_SIZE - 1) & -PAGE_SIZE
        if mm.min_address <= hint <= mm.task_size - length and _is_free(mm, hint, length):
            return hint
    return _find_downwards(mm, length)


def _is_free(mm: MmState, start: int, length: int) -> bool:
    """Is the range free, and clear of the guard gap of a stack above?"""
    index = mm.vmas.first_after(start)
    if index == len(mm.vmas):
        return True
    return start + length <= gap_start(mm, index)


def gap_start(mm: MmState, index: int) -> int:
    """The start of VMA number `index`, or of the gap that must stay free below a stack."""
    start = mm.vmas.starts[index]
    if mm.vmas.values[index].flags & VM_GROWSDOWN:
        return max(0, start - STACK_GUARD_GAP)
    return start


def _find_upwards(mm: MmState, length: int, low: int, high: int) -> int:
    """The lowest free range of `length` bytes in [low, high). ENOMEM"""
    index = mm.vmas.first_after(low)
    while low + length <= high:
        if index == len(mm.vmas) or low + length <= gap_start(mm, index):
            return low
        low = mm.vmas.ends[index]
        index += 1
    raise LinuxError(ENOMEM)


def _find_downwards(mm: MmState, length: int) -> int:
    """The highest free range of `length` bytes below `mmap_base`, or else anywhere. ENOMEM"""
    starts, ends = mm.vmas.starts, mm.vmas.ends
    high = mm.mmap_base
    largest = 0
    if length > mm.gap_hole and mm.gap_addr:
        high, largest = min(high, mm.gap_addr), mm.gap_hole
    index = mm.vmas.first_after(high) - 1  # the last VMA that ends below `high`, or at it
    if index + 1 < len(starts):
        high = min(high, gap_start(mm, index + 1))
    while True:
        low = max(ends[index], mm.min_address) if index >= 0 else mm.min_address
        if high - low >= length:
            mm.gap_addr, mm.gap_hole = high, largest
            return high - length
        if index < 0:
            break
        largest = max(largest, high - low)
        high = gap_start(mm, index)
        index -= 1
    mm.gap_addr = mm.gap_hole = 0
    return _find_upwards(mm, length, mm.mmap_base, mm.task_size)
