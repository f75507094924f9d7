"""Mappings: mmap, munmap, mprotect and brk on an address space.

Interface: addresses and lengths are whole pages and inside user space unless a method says that it
checks. Changing VMAs is one of three steps: `insert` (a new one over a free range), `remove`, and
`replace` (another Vma for the range of an existing one); they keep the counts, `vmas` does the
splitting and merging.

Linux: mm/mmap.c, mm/mprotect.c.
"""

from __future__ import annotations

from errno import EACCES, EEXIST, EINVAL, ENODEV, ENOMEM, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE

from pysandbox_core.abi.fcntl import F_SEAL_FUTURE_WRITE, F_SEAL_WRITE
from pysandbox_core.abi.mman import (
    MAP_32BIT,
    MAP_ABOVE4G,
    MAP_ANONYMOUS,
    MAP_DENYWRITE,
    MAP_EXECUTABLE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_TYPE,
    MAP_UNINITIALIZED,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FMODE_READ, FMODE_WRITE
from pysandbox_core.fs.mount import MS_NOEXEC
from pysandbox_core.kernel_memory import MAPPING
from pysandbox_core.mm.layout import find_range, gap_start
from pysandbox_core.mm.mappable import MemoryMappable
from pysandbox_core.mm.pages import EAGER_COPY_MAX, EAGER_MAX
from pysandbox_core.mm.state import MAX_MAP_COUNT, TASK_SIZE
from pysandbox_core.mm.user_access import MmAccess
from pysandbox_core.mm.vma import (
    PROT_ALL,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_NORESERVE,
    VM_SEALED,
    VM_SHARED,
    Backing,
    Vma,
)
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.task import Task

_PAGE_MASK = -PAGE_SIZE

_SHARED_FLAGS = (
    MAP_SHARED_VALIDATE | MAP_FIXED | MAP_ANONYMOUS | MAP_32BIT | MAP_ABOVE4G | MAP_GROWSDOWN
    | MAP_DENYWRITE | MAP_EXECUTABLE | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK
    | MAP_STACK | MAP_HUGETLB | MAP_UNINITIALIZED | 21 << 26 | 30 << 26
)  # fmt: skip
"""What MAP_SHARED_VALIDATE allows: sizes of huge pages are in it, MAP_SYNC needs persistent memory.
Linux: LEGACY_MAP_MASK"""


def is_data(vma: Vma) -> bool:
    """Does it count against RLIMIT_DATA? Linux: is_data_mapping()"""
    return vma.prot & PROT_WRITE != 0 and not vma.flags & (VM_SHARED | VM_GROWSDOWN)


class MmMapping(MmAccess):
    """The VMAs of an address space."""

    # The three steps.

    def insert(self, start: int, end: int, vma: Vma) -> None:
        """Put a new VMA over a free range."""
        self.forget_ranges()
        self.vmas.set(start, end, vma)
        self._count(vma, end - start)
        if vma.backing is not None:
            self.use_backing(vma.backing, end - start)

    def remove(self, start: int, end: int) -> None:
        """Take VMAs and pages of the range away; what is free is no error."""
        removed = self.vmas.take(start, end)
        if not removed:
            return
        self.forget_ranges()
        self.zap(start, end)
        for at, stop, vma in removed:
            self._count(vma, at - stop)
            if vma.backing is not None:
                self.drop_backing(vma.backing, stop - at)
        self.drop_extents(start, end)
        if end > self.gap_addr:
            index = self.vmas.first_after(start)
            low = self.vmas.ends[index - 1] if index else 0
            high = self.vmas.starts[index] if index < len(self.vmas) else self.task_size
            self.gap_hole = max(self.gap_hole, high - low)

    def replace(self, start: int, end: int, old: Vma, new: Vma) -> None:
        """Change the VMA of a range that all has `old`; the backing stays."""
        self.forget_ranges()
        self._count(old, start - end)
        self._count(new, end - start)
        self.vmas.set(start, end, new)

    def _count(self, vma: Vma, length: int) -> None:
        self.total_bytes += length
        if is_data(vma):
            self.data_bytes += length
        if vma.flags & VM_LOCKED:
            self.locked_bytes += length

    # Limits.

    def require_room(self, vma: Vma, length: int, replaced: int = 0) -> None:
        """ENOMEM unless `length` more bytes of `vma` fit RLIMIT_AS, RLIMIT_DATA and, for memory
        that has to be paid for, what the sandbox can ever have; `replaced` bytes go away for it."""
        limits = self.limits
        if limits is not None:
            if self.total_bytes - replaced + length > limits.as_:
                raise LinuxError(ENOMEM)
            if is_data(vma) and self.data_bytes + length > limits.data:
                raise LinuxError(ENOMEM)
        self.require_memory(vma, length)

    def require_memory(self, vma: Vma, length: int) -> None:
        """ENOMEM for an obvious overcommit: more private writable memory at once than there is in
        all. Linux: vm.overcommit_memory=0"""
        if (
            length > self.memory_file.total
            and vma.prot & PROT_WRITE
            and not vma.flags & (VM_SHARED | VM_NORESERVE)
        ):
            raise LinuxError(ENOMEM)

    def require_split(self, start: int, end: int) -> None:
        """ENOMEM if cutting VMAs at `start` and `end` makes too many."""
        if len(self.vmas) >= MAX_MAP_COUNT - 1:
            raise LinuxError(ENOMEM)
        self.require_mappings()

    def require_unsealed(self, start: int, end: int) -> None:
        """EPERM if part of the range was sealed by mseal(2)."""
        if self.has_seals and any(
            vma.flags & VM_SEALED for _, _, vma in self.vmas.within(start, end)
        ):
            raise LinuxError(EPERM)

    # mmap(2)

    def mmap(
        self,
        task: Task | None,
        addr: int,
        length: int,
        prot: int,
        flags: int,
        file: FileDescription | None = None,
        offset: int = 0,
    ) -> int:
        """Map `file` from `offset`, or anonymous memory; the address. `length` has been rounded up
        to pages and is not 0; `addr` and the flags come from the program.

        Errors, first match wins: ENOMEM too many mappings; those of find_range; EEXIST
        MAP_FIXED_NOREPLACE; EINVAL type; EOPNOTSUPP flags of MAP_SHARED_VALIDATE; EACCES mode of
        the file; EPERM noexec; ENODEV can't be mapped; ENOMEM limits.
        """
        if len(self.vmas) > MAX_MAP_COUNT:
            raise LinuxError(ENOMEM)
        self.require_mappings()
        self.kernel.memory.grow(MAPPING)
        if flags & MAP_FIXED_NOREPLACE:
            flags |= MAP_FIXED
        start = find_range(self, addr, length, flags)
        end = start + length
        replaces = bool(flags & MAP_FIXED) and self.vmas.overlaps(start, end)
        if replaces and flags & MAP_FIXED_NOREPLACE:
            raise LinuxError(EEXIST)
        vma = self._new_vma(task, start, length, prot & PROT_ALL, flags, file, offset)
        try:
            replaced = 0
            if replaces:
                replaced = sum(e - s for s, e, _ in self.vmas.within(start, end))
                self.require_unsealed(start, end)
                self.require_split(start, end)
            self.require_room(vma, length, replaced)
        except LinuxError:
            self._drop_new(vma)
            raise
        if replaces:
            if vma.backing is not None:  # what is replaced may be all that keeps it
                self.use_backing(vma.backing, length)
            self.remove(start, end)
            self.insert(start, end, vma)
            if vma.backing is not None:
                self.drop_backing(vma.backing, length)
        else:
            self.insert(start, end, vma)
        if flags & MAP_POPULATE and not flags & MAP_NONBLOCK:
            self.populate(start, end, turn=None if task is None else Turn(task))
        else:
            self.bring_in_eagerly(start, end, vma)
        return start

    def _new_vma(
        self,
        task: Task | None,
        start: int,
        length: int,
        prot: int,
        flags: int,
        file: FileDescription | None,
        offset: int,
    ) -> Vma:
        """The Vma that mmap's arguments ask for."""
        kind = flags & MAP_TYPE
        if kind not in (MAP_SHARED, MAP_PRIVATE) and not (kind == MAP_SHARED_VALIDATE and file):
            raise LinuxError(EINVAL)
        if kind == MAP_SHARED_VALIDATE and flags & ~_SHARED_FLAGS:
            raise LinuxError(EOPNOTSUPP)
        vm_flags = self.lock_future
        if kind != MAP_PRIVATE:
            vm_flags |= VM_SHARED
        if flags & MAP_LOCKED:
            vm_flags |= VM_LOCKED
        if flags & MAP_NORESERVE:
            vm_flags |= VM_NORESERVE
        if file is not None:
            return self._file_vma(task, file, start, prot, vm_flags, flags, offset)
        if kind != MAP_PRIVATE:
            if flags & MAP_GROWSDOWN:
                raise LinuxError(EINVAL)
            backing = Backing(None, MemoryMappable(self.memory_file, length))
            return Vma(prot, vm_flags, PROT_ALL, backing, -start)
        if flags & MAP_GROWSDOWN:
            vm_flags |= VM_GROWSDOWN
        return Vma(prot, vm_flags)

    def _file_vma(
        self,
        task: Task | None,
        file: FileDescription,
        start: int,
        prot: int,
        vm_flags: int,
        flags: int,
        offset: int,
    ) -> Vma:
        max_prot = PROT_ALL
        if vm_flags & VM_SHARED:
            if not file.mode & FMODE_WRITE:
                if prot & PROT_WRITE:
                    raise LinuxError(EACCES)
                max_prot &= ~PROT_WRITE
            if getattr(file.inode, "seals", 0) & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
                if prot & PROT_WRITE:
                    raise LinuxError(EPERM)
                max_prot &= ~PROT_WRITE
        if not file.mode & FMODE_READ:
            raise LinuxError(EACCES)
        if file.path is not None and file.path.mount.flags & MS_NOEXEC:
            if prot & PROT_EXEC:
                raise LinuxError(EPERM)
            max_prot &= ~PROT_EXEC
        backing = self.backings.get(file)
        if backing is None:
            backing = Backing(file, file.mappable(task))  # type: ignore[arg-type]  # None: a test's
        try:
            mappable = backing.mappable
            if flags & MAP_GROWSDOWN:
                raise LinuxError(EINVAL)
            if vm_flags & VM_SHARED:
                if not mappable.can_write:
                    if prot & PROT_WRITE:
                        raise LinuxError(EACCES)
                    max_prot &= ~PROT_WRITE
                if not mappable.can_map(bool(prot & PROT_EXEC)):
                    raise LinuxError(ENODEV)
        except LinuxError:
            self._drop_new_backing(backing)
            raise
        return Vma(prot, vm_flags, max_prot, backing, offset - start)

    def _drop_new(self, vma: Vma) -> None:
        """The Vma was not used after all."""
        if vma.backing is not None:
            self._drop_new_backing(vma.backing)

    def _drop_new_backing(self, backing: Backing) -> None:
        if backing not in self.backing_bytes:
            backing.refs = 1
            self.release_backing(backing)

    def bring_in_eagerly(self, start: int, end: int, vma: Vma) -> None:
        """Make what is cheap to have, and likely to be used, present at once: it saves a fault."""
        if not vma.prot or self.memory_file.tight:
            return
        try:
            if vma.backing is None:
                if end - start <= EAGER_MAX and not vma.flags & VM_GROWSDOWN:
                    for gap_start_, gap_end in self.pages.gaps(start, end):
                        self.grant(vma, gap_start_, gap_end)
                return
            mappable = vma.backing.mappable
            if mappable.in_memory_file or self.pages.overlaps(start, end):
                return
            private = not vma.flags & VM_SHARED
            copies = private and vma.prot & PROT_WRITE and not mappable.can_write
            if copies and end - start <= EAGER_COPY_MAX:
                self._copy_file(vma, mappable, start, end, start)
            elif mappable.can_map(bool(vma.prot & PROT_EXEC)):
                self._map_file(vma, mappable, start, end, start, False)
        except LinuxError:
            pass  # a fault will say what is wrong, if anything gets there

    def populate(
        self, start: int, end: int, *, write: bool | None = None, turn: Turn | None = None
    ) -> None:
        """Make all pages of the range present: for writing where VMAs allow, or as `write` says.
        What fails is left for faults to find, unless `write` is given. With a `turn` others have
        theirs in between, and the rest is left out if the task is to die. Linux: mm_populate()"""
        while start < end:
            index = self.vmas.first_after(start)
            if index == len(self.vmas) or self.vmas.starts[index] >= end:
                return
            start = self._populate_some(index, max(start, self.vmas.starts[index]), write)
            if turn is not None and not turn.goes_on(killable_only=True):
                return

    def _populate_some(self, index: int, at: int, write: bool | None) -> int:
        """Make the page at `at`, in VMA number `index`, present; where to go on."""
        vma, stop = self.vmas.values[index], self.vmas.ends[index]
        if not vma.prot:
            return stop
        want = bool(vma.prot & PROT_WRITE) if write is None else write
        if vma.flags & VM_SHARED and write is None:
            want = False
        found = self.pages.find(at)
        if found < 0 or (want and self.pages.values[found].cow):
            try:
                self.make_present(index, at, want)
            except LinuxError:
                if write is not None:
                    raise
                return stop
            found = self.pages.find(at)
        return min(stop, self.pages.ends[found])

    # munmap(2)

    def munmap(self, addr: int, length: int) -> None:
        """Checks all. Errors: EINVAL; EPERM sealed; ENOMEM too many mappings."""
        if addr % PAGE_SIZE or addr > TASK_SIZE or length > TASK_SIZE - addr:
            raise LinuxError(EINVAL)
        end = addr + ((length + PAGE_SIZE - 1) & _PAGE_MASK)
        if end == addr:
            raise LinuxError(EINVAL)
        end = min(end, self.task_size)  # nothing is mapped in what the platform keeps for itself
        if addr >= end:
            return
        first = self.vmas.find(addr)
        if first >= 0 and self.vmas.starts[first] < addr and end < self.vmas.ends[first]:
            self.require_split(addr, end)
        self.require_unsealed(addr, end)
        self.remove(addr, end)

    # mprotect(2)

    def mprotect(self, start: int, end: int, prot: int) -> None:
        """Give the pages of the range, not empty, the protection `prot`. What precedes an error is
        done. Errors: EPERM sealed; ENOMEM a gap; EACCES more than the mapping may have; ENOMEM
        limits."""
        self.require_unsealed(start, end)
        at = start
        for vma_start, vma_end, vma in self.vmas.within(start, end):
            if vma_start != at:
                break
            at = vma_end
            if vma.prot != prot:
                self._protect_one(vma_start, vma_end, vma, prot)
        if at < end:
            raise LinuxError(ENOMEM)

    def _protect_one(self, start: int, end: int, vma: Vma, prot: int) -> None:
        """The part of mprotect that one VMA makes."""
        if prot & ~vma.max_prot:
            raise LinuxError(EACCES)
        new = vma._replace(prot=prot)
        if is_data(new) and not is_data(vma):
            limits = self.limits
            if limits is not None and self.data_bytes + end - start > limits.data:
                raise LinuxError(ENOMEM)
            self.require_memory(new, end - start)
        self.require_split(start, end)
        self.kernel.memory.grow(2 * MAPPING)
        backing = vma.backing
        if (
            prot & PROT_EXEC
            and not vma.prot & PROT_EXEC
            and backing is not None
            and not backing.mappable.can_map(True)
        ):
            if vma.flags & VM_SHARED:
                raise LinuxError(EACCES)
            for at, stop, piece in self.pages.within(start, end):
                if piece.source is not None:
                    self.zap(at, stop)  # to be copied: the host would not run them
        self.replace(start, end, vma, new)
        self.protect_pages(start, end, prot)
        if vma.prot & ~prot:
            self.settle()
        if backing is None:
            self.bring_in_eagerly(start, end, new)

    # brk(2)

    def set_brk(self, brk: int) -> int:
        """Move the end of the heap to `brk` if that can be; where it is then."""
        if brk < self.start_brk:
            return self.brk
        old_end = (self.brk + PAGE_SIZE - 1) & _PAGE_MASK
        new_end = (brk + PAGE_SIZE - 1) & _PAGE_MASK
        limits = self.limits
        if (
            limits is not None
            and brk - self.start_brk + self.end_data - self.start_data > limits.data
        ):
            return self.brk
        try:
            if new_end < old_end:
                self.require_unsealed(new_end, old_end)
                self.remove(new_end, old_end)
            elif new_end > old_end:
                self._grow_brk(old_end, new_end)
        except LinuxError:
            return self.brk
        self.brk = brk
        return brk

    def _grow_brk(self, start: int, end: int) -> None:
        if end > self.task_size:
            raise LinuxError(ENOMEM)
        index = self.vmas.first_after(start)
        if index < len(self.vmas) and end + PAGE_SIZE > gap_start(self, index):
            raise LinuxError(ENOMEM)
        vma = Vma(PROT_READ | PROT_WRITE, self.lock_future)
        self.require_room(vma, end - start)
        if len(self.vmas) > MAX_MAP_COUNT:
            raise LinuxError(ENOMEM)
        self.insert(start, end, vma)
        self.bring_in_eagerly(start, end, vma)

    # Flags.

    def change_flags(self, start: int, end: int, add: int, remove: int) -> None:
        """Set and clear VM_* bits in every VMA of the range; gaps are skipped."""
        for at, stop, vma in self.vmas.within(start, end):
            flags = vma.flags & ~remove | add
            if flags != vma.flags:
                self.replace(at, stop, vma, vma._replace(flags=flags))
