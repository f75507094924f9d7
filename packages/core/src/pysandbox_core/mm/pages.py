"""Pages: making memory present, copy-on-write, and taking it away again.

The rules:
- What is in `pages` has been given to the platform with the rights that its VMA and its `cow` mark
  allow; what is not in it is not mapped there.
- Private anonymous memory is granted in large pieces: whole mappings up to EAGER_MAX, windows that
  grow with their neighbours in larger ones. The host zero-fills on first touch.
- Pages of host files are mapped as they are. A private one that is written is copied first, RUN
  bytes at a time.
- A frame that fork has made two address spaces share is copied by the first that writes; the last
  owner takes it back as it is.

Linux: mm/memory.c.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from errno import EFAULT, ENOMEM
from signal import SIGBUS, SIGKILL, SIGSEGV
from typing import TYPE_CHECKING

from pysandbox_platform import ACCESS_EXEC, ACCESS_WRITE, PAGE_SIZE, PROT_EXEC, PROT_WRITE

from pysandbox_core import oom
from pysandbox_core.abi.mman import BUS_ADRERR, SEGV_ACCERR, SEGV_MAPERR, SI_KERNEL
from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.kernel_memory import MAPPING
from pysandbox_core.mm.extents import EXTENT_SHIFT, EXTENT_SIZE
from pysandbox_core.mm.state import STACK_GUARD_GAP, TABLE_SHIFT, MmState
from pysandbox_core.mm.vma import HOST_PROT, VM_GROWSDOWN, VM_LOCKED, VM_SHARED, Piece, Vma

if TYPE_CHECKING:
    from pysandbox_core.mm.mappable import Mappable

EAGER_MAX = 2 << 20
"""Bytes of private anonymous memory that are granted at once, when mapped."""
EAGER_COPY_MAX = 64 << 10
"""Bytes of a private writable file mapping (a .data section) that are copied when mapped."""
FILE_WINDOW = 64 << 20
"""Bytes of a host file that are mapped at once. It may be all holes and have any size, and there
are page tables for what is mapped: with some platforms from then on, and they count with all."""
RUN = 32 << 10
"""Bytes copied by one copy-on-write fault. Copying costs 2 us a page, a fault's round trip 15
us."""
HOT_PAGES_MAX = 48
"""Pages that fork copies because earlier forks showed that they will be written."""
TRIM_MIN = 32 << 10
"""Shorter runs are not worth another mapping on the host."""
MAPPINGS_MIN = 512
"""Mappings that one operation may add."""
STACK_STEP = 128 << 10
"""Bytes that a stack grows by at least, as far as its limit allows."""

_PAGE_MASK = -PAGE_SIZE


class MmPages(MmState):
    """The pages of an address space."""

    # Faults.

    def handle_fault(self, addr: int, access: int, signo: int = SIGSEGV) -> tuple[int, int]:
        """The program could not reach `addr`: make it reachable, (0, 0); or say what signal it
        gets.

        `access` is one of ACCESS_*, `signo` what the platform reported: SIGBUS for a page that is
        mapped but lies beyond the end of its file.
        """
        index = self.vmas.find(addr)
        if index < 0:
            if not self.grow_stack(addr):
                return SIGSEGV, SEGV_MAPERR
            index = self.vmas.find(addr)
        vma = self.vmas.values[index]
        write = access == ACCESS_WRITE
        if access == ACCESS_EXEC:
            allowed = vma.prot & PROT_EXEC
        else:
            allowed = vma.prot & PROT_WRITE if write else vma.prot
        if not allowed:
            return SIGSEGV, SEGV_ACCERR
        try:
            if signo == SIGBUS and addr in self.pages:
                return SIGBUS, BUS_ADRERR
            self.make_present(index, addr, write)
        except LinuxError as error:
            if error.errno == ENOMEM:
                if oom.dying(self.kernel):
                    return 0, 0  # until they are gone, the program comes here again
                self.kernel.log("out of memory: a program has too many mappings")
                return SIGKILL, SI_KERNEL
            return SIGBUS, BUS_ADRERR
        return 0, 0

    def make_present(self, index: int, addr: int, write: bool) -> None:
        """Make the page at `addr`, in VMA number `index`, reachable as its VMA says, and ready to
        be written if `write`. The caller has checked the VMA's rights. EFAULT beyond the end of the
        file, ENOMEM at the limit, if killing another process does not help at once."""
        self.require_mappings()
        self.kernel.memory.grow(MAPPING)
        tight = self.memory_file.tight
        try:
            self._make_present(index, addr, write, PAGE_SIZE if tight else RUN)
        except LinuxError as error:
            if error.errno != ENOMEM:
                raise
        else:
            return
        self.memory_file.reclaim()
        while True:
            try:
                self._make_present(index, addr, write, PAGE_SIZE)
                return
            except LinuxError as error:
                if error.errno != ENOMEM or not oom.make_room(self):
                    raise

    def _make_present(self, index: int, addr: int, write: bool, run: int) -> None:
        """The same, bringing in `run` bytes at a time where there is a choice."""
        vma = self.vmas.values[index]
        if vma.backing is not None and vma.backing.mappable.can_write:
            run = PAGE_SIZE  # pages that are not written still show what happens to the file
        start, end = self.vmas.starts[index], self.vmas.ends[index]
        at = self.pages.find(addr)
        if at < 0:
            start, end = self.pages.gap_around(addr, start, end)
            self._fill(vma, start, end, addr & _PAGE_MASK, write, run)
            return
        piece = self.pages.values[at]
        start, end = max(start, self.pages.starts[at]), min(end, self.pages.ends[at])
        if write and piece.cow:
            self._unshare(vma, piece, start, end, addr & _PAGE_MASK, run)
        else:  # reached meanwhile by another context, or the platform lost it: tell it again
            self._tell(vma, start, end, piece)

    def grow_stack(self, addr: int) -> bool:
        """Extend the stack above `addr` down to it, if there is one and its limits allow."""
        index = self.vmas.first_after(addr)
        if index == len(self.vmas) or not self.vmas.values[index].flags & VM_GROWSDOWN:
            return False
        vma, start, end = self.vmas.values[index], self.vmas.starts[index], self.vmas.ends[index]
        limits = self.limits
        room = self.task_size if limits is None else limits.stack
        lowest = max(end - room, self.min_address)
        if limits is not None and limits.as_ < 1 << 63:
            lowest = max(lowest, start - (limits.as_ - self.total_bytes))
        if index > 0:
            below = self.vmas.values[index - 1]
            gap = 0 if below.flags & VM_GROWSDOWN or not below.prot else STACK_GUARD_GAP
            lowest = max(lowest, self.vmas.ends[index - 1] + gap)
        lowest = (lowest + PAGE_SIZE - 1) & _PAGE_MASK
        if addr < lowest:
            return False
        bottom = max(min(addr & _PAGE_MASK, start - STACK_STEP), lowest)
        self.forget_ranges()
        self.vmas.set(bottom, start, vma)
        self.total_bytes += start - bottom
        if vma.flags & VM_LOCKED:
            self.locked_bytes += start - bottom
        return True

    # Making pages present.

    def _fill(self, vma: Vma, start: int, end: int, addr: int, write: bool, run: int) -> None:
        """Bring in the page at `addr`, and what of the gap [start, end) around it is worth it."""
        self.forget_ranges()
        backing = vma.backing
        if backing is None:
            if run == PAGE_SIZE:
                start, end = addr, addr + PAGE_SIZE
            else:
                start, end = self._window(start, end, addr)
            self.grant(vma, start, end)
        elif not vma.flags & VM_SHARED and write:
            start, end = max(start, addr & -run), min(end, (addr & -run) + run)
            self._copy_file(vma, backing.mappable, start, end, addr)
        else:
            self._map_file(vma, backing.mappable, start, end, addr, write)

    def _window(self, start: int, end: int, addr: int) -> tuple[int, int]:
        """How much of a gap in private anonymous memory to grant around `addr`."""
        if end - start <= EAGER_MAX:
            return start, end
        size = EAGER_MAX
        at = self.pages.first_after(start - 1)
        if at < len(self.pages) and self.pages.ends[at] == start and addr - start < EXTENT_SIZE:
            # The piece below ends here: a program that walks upwards gets as much again.
            size = max(size, min(self.pages.ends[at] - self.pages.starts[at], EXTENT_SIZE))
        size = 1 << (size.bit_length() - 1)
        return max(start, addr & -size), min(end, (addr & -size) + size)

    def grant(self, vma: Vma, start: int, end: int) -> None:
        """Give the gap [start, end) of a private VMA fresh zero pages."""
        prot = HOST_PROT[vma.prot]
        fd = self.memory_file.fd
        for at, stop, offset in self.new_frames(start, end):
            self.pages.set(at, stop, Piece(None, offset - at, False))
            self.host_map(at, stop - at, prot, fd, offset)

    def new_frames(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Zeroed frames for [start, end), as (start, end, memory-file offset). ENOMEM"""
        memory_file = self.memory_file
        extents = self.extents
        found: list[tuple[int, int, int]] = []
        try:
            while start < end:
                number = start >> EXTENT_SHIFT
                stop = min(end, (number + 1) << EXTENT_SHIFT)
                extent = extents.get(number)
                if extent is None:
                    extent = extents[number] = memory_file.take_extent()
                offset = extent + (start & (EXTENT_SIZE - 1))
                if not memory_file.claim(offset, stop - start):
                    # Others still have what was here before a fork: go on in a fresh extent.
                    extents[number] = memory_file.take_extent()
                    memory_file.release_extent(extent)
                    continue
                found.append((start, stop, offset))
                start = stop
        except LinuxError:
            for at, stop, offset in found:
                memory_file.decref(offset, stop - at)
            raise
        return found

    def _map_file(
        self, vma: Vma, mappable: Mappable, start: int, end: int, addr: int, write: bool
    ) -> None:
        """Map a file's own pages: a window of the gap, a large one for a host file."""
        private = not vma.flags & VM_SHARED
        if not mappable.can_map(bool(vma.prot & PROT_EXEC)):
            start, end = max(start, addr & -RUN), min(end, (addr & -RUN) + RUN)
            self._copy_file(vma, mappable, start, end, addr)
            return
        size = EAGER_MAX if mappable.in_memory_file else FILE_WINDOW
        start, end = max(start, addr & -size), min(end, (addr & -size) + size)
        delta = vma.delta
        found = mappable.frames(start + delta, end - start, write)
        if sum(frame[2] for frame in found) <= addr - start:
            start = addr  # the file ends before, or what it gave did not reach the page
            found = mappable.frames(start + delta, end - start, write)
            if not found:
                raise LinuxError(EFAULT)
        prot = HOST_PROT[vma.prot + 8 * private]
        for fd, offset, length, in_memory_file in found:
            if in_memory_file:
                self.memory_file.incref(offset, length)
            self.pages.set(start, start + length, Piece(mappable, offset - start, private))
            self.host_map(start, length, prot, fd, offset)
            start += length

    def _copy_file(self, vma: Vma, mappable: Mappable, start: int, end: int, addr: int) -> None:
        """Give the gap [start, end) of a private file mapping copies of the file's pages. EFAULT if
        the file ends before `addr`."""
        delta = vma.delta
        size = (mappable.size + PAGE_SIZE - 1) & _PAGE_MASK
        end = min(end, size - delta)
        if addr >= end:
            raise LinuxError(EFAULT)
        fd = self.memory_file.fd
        prot = HOST_PROT[vma.prot]
        unused = self.new_frames(start, end)
        try:
            while unused:
                at, stop, offset = unused[0]
                self._copy_range(mappable, at + delta, stop - at, offset)
                self.pages.set(at, stop, Piece(None, offset - at, False))
                del unused[0]
                self.host_map(at, stop - at, prot, fd, offset)
        finally:
            for at, stop, offset in unused:
                self.memory_file.decref(offset, stop - at)

    def _copy_range(self, mappable: Mappable, position: int, size: int, target: int) -> None:
        """Copy `size` bytes of a file from `position` to frames. ENOMEM, EIO"""
        for host_fd, offset, length, _ in mappable.frames(position, size, False):
            with linux_errors():
                os.pwrite(self.memory_file.fd, os.pread(host_fd, length, offset), target)
            target += length

    # Copy-on-write.

    def _unshare(self, vma: Vma, piece: Piece, start: int, end: int, addr: int, run: int) -> None:
        """Make the page at `addr` of `piece`, which is mapped read-only in [start, end),
        writable."""
        self.forget_ranges()
        source = piece.source
        run_start, run_end = max(start, addr & -run), min(end, (addr & -run) + run)
        if source is not None and not source.in_memory_file:
            self._copy_file(vma, source, run_start, run_end, addr)
            self.settle()
            return
        memory_file = self.memory_file
        count, same = memory_file.owners(addr + piece.delta, end - addr)
        if count == 1:  # the others are gone
            end = addr + same
            self.pages.set(addr, end, Piece(None, piece.delta, False))
            self.host_protect(addr, end - addr, HOST_PROT[vma.prot])
            return
        if len(self.hot_pages) >= HOT_PAGES_MAX:
            self.hot_pages.clear()
        self.hot_pages.add(addr)
        run_end = min(run_end, addr + same)
        if memory_file.owners(run_start + piece.delta, addr - run_start)[1] < addr - run_start:
            run_start = addr
        prot = HOST_PROT[vma.prot]
        for at, stop, offset in self.new_frames(run_start, run_end):
            memory_file.copy(at + piece.delta, offset, stop - at)
            self.pages.set(at, stop, Piece(None, offset - at, False))
            self.host_map(at, stop - at, prot, memory_file.fd, offset)
        self.settle()  # other threads see the copy before it changes
        memory_file.decref(run_start + piece.delta, run_end - run_start)

    # Telling the platform.

    def host_map(self, addr: int, length: int, prot: int, fd: int, offset: int) -> None:
        """AddressSpace.map, counted."""
        self.mappings_left -= 2
        self.changes += 1
        self.kernel.memory.announce(((length >> TABLE_SHIFT) + 1) * PAGE_SIZE)  # page tables
        self.address_space.map(addr, length, prot, fd, offset)

    def host_protect(self, addr: int, length: int, prot: int) -> None:
        """AddressSpace.protect, counted."""
        self.mappings_left -= 2
        self.address_space.protect(addr, length, prot)

    def require_mappings(self) -> None:
        """ENOMEM if the address space may be near the number of mappings that the platform takes:
        our VMAs and copied pages make more of them than Linux would."""
        if self.mappings_left > MAPPINGS_MIN:
            return
        pages = self.pages
        count = len(pages)
        if count + len(self.vmas) > self.max_mappings - MAPPINGS_MIN:
            starts = set(pages.starts)
            count += sum(start not in starts and start in pages for start in self.vmas.starts)
        else:
            count += len(self.vmas)
        self.mappings_left = self.max_mappings - count
        if self.mappings_left <= MAPPINGS_MIN:
            raise LinuxError(ENOMEM)

    def _tell(self, vma: Vma, start: int, end: int, piece: Piece) -> None:
        """Give the platform, again, what is present in [start, end)."""
        source = piece.source
        fd = self.memory_file.fd
        if source is not None and not source.in_memory_file:
            fd = source.host_fd
        prot = HOST_PROT[vma.prot + 8 * piece.cow]
        self.host_map(start, end - start, prot, fd, start + piece.delta)

    def protect_pages(self, start: int, end: int, prot: int) -> None:
        """The VMA of [start, end) now has `prot`: tell the platform, in as few calls as may be."""
        pending_start = pending_end = pending_prot = -1
        for at, stop, piece in self.pages.within(start, end):
            host_prot = HOST_PROT[prot + 8 * piece.cow]
            if host_prot != pending_prot:
                if pending_prot >= 0:
                    self.host_protect(pending_start, pending_end - pending_start, pending_prot)
                pending_start, pending_prot = at, host_prot
            pending_end = stop
        if pending_prot >= 0:
            self.host_protect(pending_start, pending_end - pending_start, pending_prot)

    # Taking pages away.

    def zap(self, start: int, end: int) -> None:
        """Take every page of [start, end) away; the VMAs stay as they are."""
        dropped = self.pages.take(start, end)
        if dropped:
            self.forget_ranges()
            first, last = dropped[0][0], dropped[-1][1]
            self.address_space.unmap(first, last - first)
            self.settle()
            self.drop_pieces(dropped)

    def trim(self) -> None:
        """Give back runs of private pages that were granted and never touched.

        Any task's call may come here, while contexts of this space run: what looks untouched is
        taken from the platform first, then looked at again. What was touched in between stays in
        `pages` and is told to the platform again when it is reached.
        """
        candidates = self._untouched()
        if not candidates:
            return
        self.forget_ranges()
        for start, end, _ in candidates:
            self.address_space.unmap(start, end - start)
        self.address_space.sync()
        for start, end, delta in candidates:
            for first, last in self._holes(start, end, delta):
                self.drop_pieces(self.pages.take(first, last))

    def reap(self) -> None:
        """Give back the private pages of programs that were killed, before they get to it
        themselves. As for `trim`, contexts may still be running here. Linux: mm/oom_kill.c"""
        private = [(start, end) for start, end, piece in self.pages if piece.source is None]
        if not private:
            return
        self.forget_ranges()
        self.memory_file.generation += 1
        for start, end in private:
            self.address_space.unmap(start, end - start)
        self.address_space.sync()
        for start, end in private:
            self.drop_pieces(self.pages.take(start, end))
        self.memory_file.flush()

    def _untouched(self) -> list[tuple[int, int, int]]:
        """Runs of private pages without data that are worth it: (start, end, delta)."""
        return [
            (first, last, delta)
            for start, end, (source, delta, _) in self.pages
            if source is None
            for first, last in self._holes(start, end, delta)
            if last - first >= TRIM_MIN
        ]

    def _holes(self, start: int, end: int, delta: int) -> list[tuple[int, int]]:
        """The parts of [start, end), pages at `delta`, that the memory file has no data for."""
        holes = []
        for offset, length in (
            *self.memory_file.data_ranges(start + delta, end - start),
            (end + delta, 0),
        ):
            if offset - delta > start:
                holes.append((start, offset - delta))
            start = offset - delta + length
        return holes

    def drop_pieces(self, dropped: list[tuple[int, int, Piece]]) -> None:
        """Give back the frames of pieces that no program can reach any more."""
        decref = self.memory_file.decref
        frames = [
            (start + delta, end + delta)
            for start, end, (source, delta, _) in dropped
            if source is None or source.in_memory_file
        ]
        frames.sort()
        first = last = 0
        for start, end in frames:
            if start != last:
                decref(first, last - first)
                first = start
            last = end
        decref(first, last - first)

    def drop_extents(self, start: int, end: int) -> None:
        """Let go of the extents behind [start, end) in whose addresses there is no VMA any more:
        the memory file's offsets are everybody's, and a program may use one address after the
        other."""
        extents = self.extents
        numbers = range(start >> EXTENT_SHIFT, (end - 1 >> EXTENT_SHIFT) + 1)
        for number in numbers if len(numbers) < len(extents) else tuple(extents):
            first = number << EXTENT_SHIFT
            if (
                number in numbers
                and number in extents
                and not self.vmas.overlaps(first, first + EXTENT_SIZE)
            ):
                self.memory_file.release_extent(extents.pop(number))

    def zap_file(self, mappable: Mappable, start: int, end: int, copies: bool) -> None:
        """The file's pages [start, end) go away, see Mappable.invalidate."""
        pages = self.pages
        count = len(pages)
        index = 0
        gone: list[tuple[int, int, Piece]] = []
        for vma_start, vma_end, vma in self.vmas:
            if vma.backing is None or vma.backing.mappable is not mappable:
                continue
            first = max(vma_start, start - vma.delta)
            last = min(vma_end, end - vma.delta)
            if first >= last:
                continue
            index = bisect_right(pages.ends, first, index)
            if index == count:
                break
            while index < count and pages.starts[index] < last:
                piece = pages.values[index]
                if copies or piece.source is not None:
                    at, stop = pages.starts[index], pages.ends[index]
                    gone.append((max(at, first), min(stop, last), piece))
                index += 1
            index = max(index - 1, 0)  # it may go on in the next one
        if gone:
            self._zap_pieces(gone)

    def _zap_pieces(self, gone: list[tuple[int, int, Piece]]) -> None:
        """Take these away, which `pages` has, lowest first. They may be tens of thousands."""
        self.forget_ranges()
        pages = self.pages
        pages.clear_each(gone)
        first, last, _ = gone[0]
        for start, end, _ in gone:
            if pages.overlaps(last, start):
                self.address_space.unmap(first, last - first)
                first = start
            last = end
        self.address_space.unmap(first, last - first)
        self.settle()
        self.drop_pieces(gone)
