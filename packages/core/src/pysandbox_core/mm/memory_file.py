"""MemoryFile: the one host file whose pages are all of the sandbox's memory.

Interface:
- Offsets and lengths are bytes, multiples of PAGE_SIZE. A frame is one page of the file; each that
  is in use has a reference count, one for every address space or file that holds it. `allocate` and
  `claim` make frames with count 1 that read as zeros; `decref` to 0 gives them back.
- Who gives a frame back has seen to it that no running context can still reach it.
- `fd` is what platforms map, `view` and `mapping` are the same bytes in this process.

Memory that was granted costs nothing until it is touched, so address spaces grant in large pieces.
The limit is held against the grants; when they reach it, address spaces take back what no program
has touched (`reclaim`), and grant page by page from then on.

The file's offsets are plentiful (16 TiB) and are handed out in extents of 16 MiB. An address space
owns an extent for each 16 MiB of its addresses that it uses, and places a page where the address
says: pages that are neighbours in memory are neighbours in the file, however they came, so that a
heap that grows stays one mapping on the host. Files take small runs from extents that all of them
share.
"""

from __future__ import annotations

import fcntl
import heapq
import mmap
import os
from errno import ENOMEM
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.abi.mman import MAP_NORESERVE, MAP_SHARED
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.extents import EXTENT_SIZE, ExtentRanges
from pysandbox_core.ranges import RangeMap

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.mm.pages import MmPages

_PENDING_BYTES = 8 << 20
_PENDING_RANGES = 64
_FIRST_FIT_STEPS = 64
_PROBES = 16
"""Pages of data that are looked at one by one."""


class MemoryFile:
    """Frames and their reference counts. One for each kernel, from its start until `close`."""

    SIZE = 16 << 40

    def __init__(self, limit: int | None = None) -> None:
        self.fd = os.memfd_create("pysandbox-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.SIZE)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.mapping = mmap.mmap(self.fd, self.SIZE, flags=MAP_SHARED | MAP_NORESERVE)
        self.view = memoryview(self.mapping)
        self.limit = limit
        """Bytes that the sandbox may use, None for no limit."""
        self.total = limit or os.sysconf("SC_PHYS_PAGES") * PAGE_SIZE
        """Bytes that there are at all."""
        self.granted = 0
        """Bytes of frames in use, touched or not."""
        self.remeasure: Callable[[], None] = lambda: None
        """Brings `reserved` up to date: whoever counts for it does so now and then."""
        self.reserved = 0
        """Bytes of the limit that the kernel's own objects take: kernel_memory.py."""
        self.generation = 0
        """Changes whenever address spaces may have lost pages to others' need."""
        self.spaces: dict[MmPages, None] = {}
        """Address spaces that have frames, for `reclaim`."""
        self._refs: ExtentRanges[int] = ExtentRanges()
        self._pending: RangeMap[bool] = RangeMap()
        """Freed, not yet given back to the host."""
        self._pending_bytes = 0
        self._free_extents: list[int] = []
        """Heap of the extents (their offsets) that were used before."""
        self._next_extent = 0
        self._orphans: set[int] = set()
        """Extents that nobody allocates from any more: free once their last frame is."""
        self._pool: ExtentRanges[bool] = ExtentRanges()
        """Free parts of the extents that `allocate` shares out."""
        self._pool_extents: set[int] = set()

    def close(self) -> None:
        """Give everything back to the host. Nothing may use the file any more. Idempotent."""
        if self.fd >= 0:
            self.view.release()
            self.mapping.close()
            os.close(self.fd)
            self.fd = -1

    # Frames.

    def allocate(self, npages: int) -> int:
        """`npages` contiguous frames; their offset. May `reclaim`. ENOMEM at the limit."""
        length = npages * PAGE_SIZE
        self._charge(length, reclaims=True)
        if length > EXTENT_SIZE // 4:
            offset = self._take_extents(-(-length // EXTENT_SIZE))
            for extent in range(offset, offset + length, EXTENT_SIZE):
                self._orphans.add(extent)
        else:
            offset = self._from_pool(length)
        self._grant(offset, length)
        return offset

    def claim(self, offset: int, length: int) -> bool:
        """Take exactly these frames of an extent that the caller owns; False if one of them is in
        use. ENOMEM at the limit."""
        if self._refs.overlaps(offset, offset + length):
            return False
        self._charge(length)
        self._grant(offset, length)
        return True

    def incref(self, offset: int, length: int) -> None:
        """One more owner for frames that are in use."""
        for start, end, count in self._refs.within(offset, offset + length):
            self._refs.set(start, end, count + 1)

    def decref(self, offset: int, length: int) -> None:
        """One owner less; frames without any are free."""
        refs = self._refs
        for start, end, count in refs.within(offset, offset + length):
            if count > 1:
                refs.set(start, end, count - 1)
            else:
                refs.clear(start, end)
                self._freed(start, end)
        if self._pending_bytes > _PENDING_BYTES or len(self._pending) > _PENDING_RANGES:
            self.flush()

    def is_shared(self, offset: int) -> bool:
        """Does the frame have more than one owner?"""
        return (self._refs.get(offset) or 0) > 1

    def owners(self, offset: int, length: int) -> tuple[int, int]:
        """The reference count of the frame at `offset`, and how many bytes from there, at most
        `length`, have the same."""
        count = self._refs.get(offset)
        if count is None:
            return 0, PAGE_SIZE
        return count, self._refs.end_of(offset, offset + length) - offset

    # Extents.

    def take_extent(self) -> int:
        """An extent of the caller's own, none of its frames in use; its offset. ENOMEM"""
        return self._take_extents(1)

    def release_extent(self, extent: int) -> None:
        """The owner lets go of the extent; frames in it that are in use stay."""
        self._orphans.add(extent)
        self._recycle(extent)

    # What the host keeps.

    def usage(self) -> int:
        """Bytes that the host keeps for the file now."""
        self.flush()
        return os.fstat(self.fd).st_blocks * 512

    @property
    def tight(self) -> bool:
        """The limit is near: grant only what is needed at once."""
        limit = self.limit
        return limit is not None and self.granted > limit - self.reserved - (limit >> 3)

    def reclaim(self) -> bool:
        """Take back what was granted to address spaces and never touched; False if there is
        nothing. Changes their pages: not while one of them is being walked."""
        granted = self.granted
        if self.usage() < granted:
            self.generation += 1
            for space in tuple(self.spaces):
                space.trim()
            self.flush()
        return self.granted < granted

    def flush(self) -> None:
        """Give the frames that were freed back to the host."""
        if self._pending_bytes:
            for start, end, _ in self._pending:
                self.mapping.madvise(mmap.MADV_REMOVE, start, end - start)
            self._pending = RangeMap()
            self._pending_bytes = 0

    def map_anew(self) -> None:
        """Have the host forget the page tables of `mapping`, which has one for every 2 MiB that was
        ever reached, whatever has become of the frames."""
        from ctypes import addressof, c_char

        from pysandbox_core.host_calls import mmap_again

        mmap_again(addressof(c_char.from_buffer(self.mapping)), self.SIZE, self.fd)

    def zero(self, offset: int, length: int) -> None:
        """Make frames in use read as zeros again, and give their memory back."""
        self.mapping.madvise(mmap.MADV_REMOVE, offset, length)

    def data_ranges(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Where in the range anything was ever written, as (offset, length): the rest reads as
        zeros, and reading it through the mapping would make the host keep pages for it."""
        found = []
        end = offset + length
        while offset < end:
            try:
                start = os.lseek(self.fd, offset, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole up to the end of the file
                break
            if start >= end:
                break
            offset = self._data_end(start, end)
            found.append((start, offset - start))
        return found

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy frames to fresh ones, leaving holes as holes."""
        for start, size in self.data_ranges(source, length):
            to = target + start - source
            os.pwrite(self.fd, self.view[start : start + size], to)

    # Inside.

    def _data_end(self, start: int, end: int) -> int:
        """Where the data that begins at `start` ends, at most `end`. The host looks for a hole page
        by page, through all the data of whoever has the frames behind: a short way is gone here."""
        for page in range(start + PAGE_SIZE, start + _PROBES * PAGE_SIZE, PAGE_SIZE):
            if page >= end:
                return end
            try:
                if os.lseek(self.fd, page, os.SEEK_DATA) != page:
                    return page
            except OSError:
                return page
        return min(os.lseek(self.fd, start, os.SEEK_HOLE), end)

    def _charge(self, length: int, *, reclaims: bool = False) -> None:
        """ENOMEM unless `length` more bytes are within the limit, after a `reclaim` if asked."""
        if self._fits(length):
            return
        self.remeasure()
        if not self._fits(length) and not (reclaims and self.reclaim() and self._fits(length)):
            raise LinuxError(ENOMEM)

    def _fits(self, length: int) -> bool:
        return self.limit is None or self.granted + length <= self.limit - self.reserved

    def _grant(self, offset: int, length: int) -> None:
        if self._pending_bytes and self._pending.overlaps(offset, offset + length):
            self.flush()
        self._refs.set(offset, offset + length, 1)
        self.granted += length

    def _freed(self, start: int, end: int) -> None:
        self.granted -= end - start
        self._pending.set(start, end, True)
        self._pending_bytes += end - start
        for extent in range(start & -EXTENT_SIZE, end, EXTENT_SIZE):
            if extent in self._pool_extents:  # each for itself: neighbours may be somebody's own
                self._pool.set(max(start, extent), min(end, extent + EXTENT_SIZE), True)
            elif extent in self._orphans:
                self._recycle(extent)

    def _recycle(self, extent: int) -> None:
        if not self._refs.overlaps(extent, extent + EXTENT_SIZE):
            self._orphans.discard(extent)
            heapq.heappush(self._free_extents, extent)

    def _take_extents(self, count: int) -> int:
        if count == 1 and self._free_extents:
            return heapq.heappop(self._free_extents)
        extent = self._next_extent
        if extent + count * EXTENT_SIZE > self.SIZE:
            raise LinuxError(ENOMEM)
        self._next_extent = extent + count * EXTENT_SIZE
        return extent

    def _from_pool(self, length: int) -> int:
        pool = self._pool
        steps = _FIRST_FIT_STEPS
        for extent in pool.order:
            parts = pool.maps[extent]
            for start, end in zip(parts.starts[:steps], parts.ends[:steps], strict=True):
                if end - start >= length:
                    pool.clear(start, start + length)
                    return start
            steps -= len(parts)
            if steps <= 0:
                last = pool.maps[pool.order[-1]]
                start = last.starts[-1]
                if last.ends[-1] - start < length:
                    break
                pool.clear(start, start + length)
                return start
        extent = self._take_extents(1)
        self._pool_extents.add(extent)
        pool.set(extent + length, extent + EXTENT_SIZE, True)
        return extent
