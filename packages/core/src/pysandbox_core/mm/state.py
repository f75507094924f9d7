"""MmState: what a memory manager holds, and how it lets go of pages.

The lowest of the layers that `MemoryManager` is made of: state, pages (pages.py), access from the
kernel (user_access.py), mappings (mapping.py), the life of the whole (memory_manager.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.ranges import RangeMap

if TYPE_CHECKING:
    from pysandbox_platform import AddressSpace

    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.limits import ResourceLimits
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.mm.vma import Backing, Piece, Vma

STACK_GUARD_GAP = 256 << 12
"""Bytes kept free below a stack. Linux: stack_guard_gap."""
MAX_MAP_COUNT = 65530
"""Linux: vm.max_map_count"""
MMAP_MIN_ADDR = 0x10000
"""Linux: vm.mmap_min_addr"""
TASK_SIZE = 0x7FFFFFFFF000
"""End of user addresses with four-level page tables."""

_STALE_MAX = 16
TABLE_SHIFT = 21
_ABOVE_SHIFT = 30
"""Of the addresses that one page of page tables covers, and one of those above them."""
_SPACE_BYTES = 32 << 10
_HOST_MAPPING_BYTES = 200
"""struct mm_struct with the tables that every program has; struct vm_area_struct"""


class MmState:
    """State of one address space. Counted by `users`; see MemoryManager for its life."""

    _next_id = 1

    def __init__(
        self, kernel: Kernel, limits: ResourceLimits | None, address_space: AddressSpace
    ) -> None:
        self.kernel = kernel
        self.memory_file = kernel.memory_file
        self.memory_file.spaces[self] = None  # type: ignore[index]  # every MmState is a MmPages
        self.address_space = address_space
        low, high = kernel.platform.address_range
        self.min_address = max(MMAP_MIN_ADDR, low)
        self.task_size = min(TASK_SIZE, high)
        self.limits = limits
        """Resource limits of the process, None for none."""
        self.id = MmState._next_id
        MmState._next_id += 1
        self.users = 1
        """Tasks that run in it."""

        self.vmas: RangeMap[Vma] = RangeMap()
        self.pages: RangeMap[Piece] = RangeMap()
        """What is present; a part of `vmas`."""
        self.extents: dict[int, int] = {}
        """Address >> EXTENT_SHIFT -> the memory-file extent where new pages of it go."""
        self.backings: dict[FileDescription, Backing] = {}
        """Files that are mapped, so that mappings of one file can merge."""
        self.backing_bytes: dict[Backing, int] = {}
        """Bytes of VMAs that each backing has here."""
        self.max_mappings = self.mappings_left = kernel.platform.max_mappings
        """What the platform takes, and at least so many more; see MmPages.require_mappings."""
        self.changes = 0
        """Mappings that the platform was told of since `host_bytes_found` was found."""
        self.host_bytes_found = _SPACE_BYTES
        """What `host_bytes` was when it was last asked for."""
        """What `host_bytes` was."""
        self._host_ranges = 0
        """For how many runs of pages."""
        self._stale: list[Mappable] = []
        """No longer mapped, but the platform may not have let go of the host fd."""

        self.total_bytes = 0
        """Of all VMAs. Linux: total_vm"""
        self.data_bytes = 0
        """Of private writable ones that are no stack. Linux: data_vm"""
        self.locked_bytes = 0
        self.lock_future = 0
        """VM_LOCKED bits that new mappings get, mlockall(MCL_FUTURE)."""

        # Where things are, for brk(2), /proc/PID/stat, /proc/PID/auxv and prctl(PR_SET_MM).
        self.mmap_base = self.task_size
        self.start_code = self.end_code = 0
        self.start_data = self.end_data = 0
        self.start_brk = self.brk = 0
        self.start_stack = 0
        self.arg_start = self.arg_end = 0
        self.env_start = self.env_end = 0
        self.auxv = b""
        self.vdso = 0
        """Address of [vdso], 0 for none."""
        self.exe_file: FileDescription | None = None
        """The program, /proc/PID/exe; holds a reference."""
        self.dumpable = 1
        """prctl(PR_SET_DUMPABLE)"""
        self.has_seals = False
        """mseal(2) was used."""
        self.hot_pages: set[int] = set()
        """Addresses of pages that were written after a fork while both sides had them; shared with
        the relatives that run the same program."""
        self.membarrier = 0
        """What the process has registered for, membarrier(2)."""

        # The range that was last read and the one that was last written from the kernel: both lie
        # in one piece of the memory file that allows it. Empty after any change to VMAs or pages.
        self._read_start = self._read_end = self._read_delta = 0
        self._write_start = self._write_end = self._write_delta = 0
        # Search for the highest gap: none above `gap_addr` has more than `gap_hole` bytes.
        self.gap_addr = 0
        self.gap_hole = 0

    def forget_ranges(self) -> None:
        """VMAs or pages are about to change: what was cached of them is void."""
        self._read_start = self._read_end = self._write_start = self._write_end = 0

    def range_count(self) -> int:
        """VMAs and runs of pages: what the kernel's own memory for it grows with."""
        return len(self.vmas) + len(self.pages)

    def host_bytes(self) -> int:
        """About what the host's own kernel keeps for the address space: page tables above all. A
        page far from others has one of 512 to itself, and perhaps one above that. Frames and files
        may be mapped any number of times, so that a long run's tables count too, touched or not.
        Found anew when an eighth of it may have changed."""
        count = len(self.pages)
        if self.changes * 8 > count or abs(count - self._host_ranges) * 8 > self._host_ranges:
            tables = 0
            for shift in (TABLE_SHIFT, _ABOVE_SHIFT):
                before = -1
                for start, end in zip(self.pages.starts, self.pages.ends, strict=True):
                    first, last = start >> shift, end - 1 >> shift
                    tables += (first != before) + last - first
                    before = last
            self.host_bytes_found = _SPACE_BYTES + tables * PAGE_SIZE + count * _HOST_MAPPING_BYTES
            self._host_ranges = count
            self.changes = 0
        return self.host_bytes_found

    def others_running(self) -> bool:
        """May some context be executing in this address space now?"""
        kernel = self.kernel
        if self.users <= 1 or not (kernel.running or kernel.early_stops):
            return False
        return any(task.running and task.mm is self for task in kernel.tasks.values())

    def settle(self) -> None:
        """When this returns, no program can reach what was unmapped, or write what was
        protected."""
        if self.others_running():
            self.address_space.sync()

    # Backings.

    def use_backing(self, backing: Backing, length: int) -> None:
        """`length` more bytes of VMAs have `backing`."""
        if backing in self.backing_bytes:
            self.backing_bytes[backing] += length
            return
        self.backing_bytes[backing] = length
        backing.refs += 1
        mappings = backing.mappable.mappings
        mappings[self] = mappings.get(self, 0) + 1  # type: ignore[index, call-overload]  # every MmState is a MemoryManager
        if backing.file is not None:
            self.backings[backing.file] = backing

    def drop_backing(self, backing: Backing, length: int) -> None:
        """`length` bytes less of VMAs have `backing`."""
        left = self.backing_bytes[backing] - length
        if left:
            self.backing_bytes[backing] = left
            return
        del self.backing_bytes[backing]
        if backing.file is not None:
            del self.backings[backing.file]
        mappings = backing.mappable.mappings
        mappings[self] -= 1  # type: ignore[index]
        if not mappings[self]:  # type: ignore[index]
            del mappings[self]  # type: ignore[arg-type]
        self.release_backing(backing)

    def release_backing(self, backing: Backing) -> None:
        """One address space less has `backing`; host files are closed once the platform can't need
        them any more."""
        backing.refs -= 1
        if backing.refs:
            return
        if backing.file is not None:
            backing.file.decref()
        if backing.mappable.in_memory_file:
            backing.mappable.decref()
            return
        self._stale.append(backing.mappable)
        if len(self._stale) > _STALE_MAX:
            self.address_space.sync()
            self.drop_stale()

    def drop_stale(self) -> None:
        """Close what the platform has let go of."""
        for mappable in self._stale:
            mappable.decref()
        self._stale.clear()
