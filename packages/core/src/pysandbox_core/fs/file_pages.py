"""FilePages: the content of a file that lives in memory, perhaps over a host file that it began as.

Interface: pages are made in the memory file as they are written; the rest are holes. A hole reads
as zeros, or, below `lower_size`, as what the host file `lower` has there: that is how the overlay
copies up, a page at a time and only what is changed. Mappings see the same pages that read and
write do.

Space is charged to `space` a page at a time and given back with the pages; both limits, that of the
file system and that of the sandbox's memory, are ENOSPC to a writer; to a mapping the second is
ENOMEM, for which somebody may be killed.

Linux: mm/shmem.c.
"""

from __future__ import annotations

import os
from contextlib import suppress
from errno import EINVAL, ENOSPC, ENXIO, EPERM
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE, PROT_WRITE

from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.mm.mappable import MemoryMappable, page_up
from pysandbox_core.mm.vma import VM_SHARED

if TYPE_CHECKING:
    from pysandbox_core.accounting import Account
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import HostFileMappable
    from pysandbox_core.mm.memory_file import MemoryFile

CHUNK = 1 << 20
"""Bytes moved at a time."""
_AHEAD = 16
"""Pages that an appending writer is given at a time."""
_ZEROS = bytes(1 << 16)
_END = 1 << 63


class SpaceLimit:
    """Pages and inodes that a file system in memory has and may have; None for no limit.

    What else takes memory (more names of a file, extended attributes, texts of links) counts as
    inodes, one for each `INODE_BYTES` begun.
    """

    __slots__ = ("account", "inodes", "max_inodes", "max_pages", "pages")

    INODE_BYTES = 1024
    """Linux: BOGO_INODE_SIZE."""

    def __init__(self, max_pages: int | None = None, max_inodes: int | None = None) -> None:
        self.pages = 0
        self.inodes = 0
        self.max_pages = max_pages
        self.max_inodes = max_inodes
        self.account: Account | None = None
        """Who is to know that it is full: the caller, of what he limited."""

    def take_pages(self, count: int) -> None:
        if self.max_pages is not None and self.pages + count > self.max_pages:
            raise self._full(f"{self.max_pages * PAGE_SIZE} bytes")
        self.pages += count

    def take_inodes(self, count: int) -> None:
        if self.max_inodes is not None and self.inodes + count > self.max_inodes and count > 0:
            raise self._full(f"{self.max_inodes} inodes")
        self.inodes += count

    def set_pages(self, count: int | None) -> None:
        """Remounted with another size. EINVAL less than is used; EPERM more than the caller of the
        sandbox allowed"""
        if count is not None and count < self.pages:
            raise LinuxError(EINVAL)
        self._may_set(self.max_pages, count)
        self.max_pages = count

    def set_inodes(self, count: int | None) -> None:
        """The same for the number of files."""
        if count is not None and count < self.inodes:
            raise LinuxError(EINVAL)
        self._may_set(self.max_inodes, count)
        self.max_inodes = count

    def _may_set(self, before: int | None, after: int | None) -> None:
        if self.account is not None and before is not None and (after is None or after > before):
            raise LinuxError(EPERM)

    def _full(self, what: str) -> LinuxError:
        if self.account is not None:
            self.account.reach("tmpfs", f"a file system in memory has no more than {what}")
        return LinuxError(ENOSPC)


class FilePages(MemoryMappable):
    """What one inode contains. Owned by it; open mappings hold references of their own."""

    __slots__ = ("lower", "lower_size", "space")

    def __init__(
        self,
        memory_file: MemoryFile,
        space: SpaceLimit,
        lower: HostFileMappable | None = None,
        size: int = 0,
    ) -> None:
        super().__init__(memory_file, size)
        self.space = space
        self.lower = lower
        """Where unwritten pages below `lower_size` are; one reference of ours."""
        self.lower_size = size if lower is not None else 0

    def read(self, sink: Sink, offset: int, limit: int) -> int:
        """Move at most `limit` bytes from `offset` to `sink`, which has room for them; how many, 0
        at the end of the file."""
        start = offset
        end = min(offset + limit, self._size)
        pages = self.pages
        view = self._memory_file.view
        while offset < end:
            index = pages.find(offset)
            if index >= 0:
                stop = min(pages.ends[index], end)
                delta = pages.values[index]
                data: bytes | memoryview = view[offset + delta : stop + delta]
            else:
                after = pages.first_after(offset)
                stop = min(pages.starts[after], end) if after < len(pages) else end
                data = self._hole(offset, stop)
                stop = offset + len(data)
            done = sink.write(data)
            offset += done
            if offset < stop:
                break
        return offset - start

    def write(self, source: Source, offset: int, limit: int) -> int:
        """Take at most `limit` bytes from `source` to `offset`; how many. ENOSPC if not even one
        has room, in the file system or in memory. Grows the file."""
        start = offset
        while limit:
            data = source.read(min(limit, CHUNK))
            if not data:
                break
            try:
                self._put(data, offset)
            except LinuxError:
                done = self._put_what_fits(data, offset)
                source.undo(len(data) - done)
                offset += done
                if offset > start:
                    break
                raise LinuxError(ENOSPC) from None
            offset += len(data)
            limit -= len(data)
            if len(data) < CHUNK:
                break
        return offset - start

    def put(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`, or nothing. ENOSPC"""
        self._put(data, offset)

    def resize(self, size: int) -> None:
        """truncate(2). ENOSPC, ENOMEM, with nothing changed"""
        old = self._size
        if size < old:
            first_gone = page_up(size)
            if size < self.lower_size and size % PAGE_SIZE and self.pages.find(size) < 0:
                self._copy_lower(
                    size & -PAGE_SIZE, first_gone
                )  # its tail reads as zeros from now on
            self._size = size
            self.invalidate(first_gone, page_up(old))
            self.lower_size = min(self.lower_size, size)
            self._drop(first_gone, _END)
            delta = self.pages.get(size)
            if size < first_gone and delta is not None:
                self._memory_file.view[size + delta : first_gone + delta] = bytes(first_gone - size)
        self._size = size

    def allocate_range(self, start: int, end: int) -> None:
        """Have pages for all of [start, end): fallocate(2), mode 0."""
        self._ensure(start & -PAGE_SIZE, page_up(end), page_up(end))

    def zero_range(self, start: int, end: int) -> None:
        """Make [start, end) read as zeros; whole pages become holes. FALLOC_FL_PUNCH_HOLE"""
        first, last = page_up(start), end & -PAGE_SIZE
        if first < last:
            if self.lower is not None and first < self.lower_size:
                # what the host has below must not show again: the pages have to be there, empty,
                # and where they can't be, nothing that was written may be lost for it
                covered = min(last, page_up(self.lower_size))
                self._fill_gaps(first, covered)
                for start_, stop, delta in self.pages.within(first, covered):
                    self._memory_file.zero(start_ + delta, stop - start_)
                self.punch(covered, last)
            else:
                self.punch(first, last)
        edges = ((start, first), (last, end)) if first < last else ((start, end),)
        for edge_start, edge_end in edges:
            if edge_start < min(edge_end, self.lower_size):
                self._ensure(edge_start & -PAGE_SIZE, page_up(edge_end), 0)
            for piece, stop, delta in self.pages.within(edge_start, edge_end):
                self._memory_file.view[piece + delta : stop + delta] = bytes(stop - piece)

    def collapse(self, start: int, end: int) -> None:
        """Take [start, end), page multiples, out of the file. FALLOC_FL_COLLAPSE_RANGE"""
        if end >= self._size:
            raise LinuxError(EINVAL)
        self._shift(end, start - end)

    def insert(self, start: int, length: int) -> None:
        """Make a hole of `length` bytes at `start`, page multiples. FALLOC_FL_INSERT_RANGE"""
        self._shift(start, length)

    def seek(self, offset: int, data: bool) -> int:
        """SEEK_DATA, SEEK_HOLE: the next data, or the next hole. ENXIO"""
        if offset < 0 or offset >= self._size:
            raise LinuxError(ENXIO)
        while offset < self._size:
            index = self.pages.find(offset)
            if index >= 0 or offset < self.lower_size:
                if data:
                    return offset
                offset = (
                    self.pages.ends[index] if index >= 0 else self._gap_end(offset, self.lower_size)
                )
            else:
                if not data:
                    return offset
                offset = self._gap_end(offset, self._size)
        if data:
            raise LinuxError(ENXIO)
        return self._size

    @property
    def mapped_writable(self) -> bool:
        """Some shared mapping of it may be written, or made so."""
        return any(
            vma.flags & VM_SHARED and vma.max_prot & PROT_WRITE
            for mm in self.mappings
            for vma in mm.vmas.values
            if vma.backing is not None and vma.backing.mappable is self
        )

    @property
    def blocks(self) -> int:
        """Of 512 bytes: pages below the end that exist here or in the host file."""
        end = page_up(self._size)
        total = sum(stop - start for start, stop, _ in self.pages.within(0, end))
        if self.lower_size:
            total += sum(
                stop - start for start, stop in self.pages.gaps(0, page_up(self.lower_size))
            )
        return total >> 9

    def release(self) -> None:
        super().release()
        if self.lower is not None:
            self.lower.decref()
            self.lower = None

    # Pages.

    def _put(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        pages = self.pages
        first, last = offset & -PAGE_SIZE, page_up(end)
        index = pages.find(first)
        if index < 0 or pages.ends[index] < last:
            self._ensure_for_write(offset, end)
            index = pages.find(first)
        self._size = max(self._size, end)
        view = self._memory_file.view
        if pages.ends[index] >= end:
            delta = pages.values[index]
            view[offset + delta : end + delta] = data
            return
        source = memoryview(data)
        for start, stop, delta in pages.within(offset, end):
            view[start + delta : stop + delta] = source[start - offset : stop - offset]

    def _put_what_fits(self, data: bytes, offset: int) -> int:
        """Write a page at a time until there is no room; how many bytes."""
        done = 0
        with suppress(LinuxError):
            while done < len(data):
                stop = min(len(data), (offset + done | PAGE_SIZE - 1) + 1 - offset)
                self._put(data[done:stop], offset + done)
                done = stop
        return done

    def _ensure_for_write(self, offset: int, end: int) -> None:
        """Have pages for [offset, end), which is overwritten next: only its edges need what is
        there. A writer at the end of the file gets some pages more."""
        first, last = offset & -PAGE_SIZE, page_up(end)
        ahead = last
        if last >= page_up(self._size) and first <= page_up(self._size) and first:
            ahead = last + min(_AHEAD * PAGE_SIZE, first)
        if self.lower_size > first:
            for edge in {first, last - PAGE_SIZE}:
                covered = edge >= offset and edge + PAGE_SIZE <= end
                if edge < self.lower_size and not covered and self.pages.find(edge) < 0:
                    self._copy_lower(edge, edge + PAGE_SIZE)
        self._fill_gaps(first, last, ahead)

    def _ensure(self, first: int, last: int, ahead: int) -> None:
        """Have pages for [first, last), page multiples, with what they contain."""
        if first < self.lower_size:
            for start, stop in self.pages.gaps(first, min(last, page_up(self.lower_size))):
                self._copy_lower(start, stop)
        self._fill_gaps(first, last, ahead)

    def _fill_gaps(self, first: int, last: int, ahead: int = 0) -> None:
        """Make zeroed pages where there are none in [first, last); if there is none at `last`
        either, up to `ahead`."""
        gaps = self.pages.gaps(first, last)
        room = self.space.max_pages is None or self.space.pages + 4 * _AHEAD < self.space.max_pages
        if gaps and gaps[-1][1] == last and ahead > last and room and not self._memory_file.tight:
            start = gaps[-1][0]
            gaps[-1] = self.pages.gap_around(start, start, ahead)
        for start, stop in gaps:
            self._new_pages(start, stop)

    def _new_pages(self, start: int, stop: int) -> int:
        """Make zeroed pages in a hole; their memory-file offset."""
        count = (stop - start) // PAGE_SIZE
        self.space.take_pages(count)
        try:
            frames = self._memory_file.allocate(count)
        except LinuxError:
            self.space.pages -= count
            raise
        self.pages.set(start, stop, frames - start)
        return frames

    def _copy_lower(self, start: int, stop: int) -> None:
        """Make pages in a hole with what the host file has there; none if it can't be read."""
        frames = self._new_pages(start, stop)
        wanted = min(stop, self.lower_size) - start
        try:
            with linux_errors():
                self._read_lower(frames, start, wanted)
        except LinuxError:
            self._drop(start, stop)
            raise

    def _read_lower(self, frames: int, start: int, wanted: int) -> None:
        assert self.lower is not None
        done = 0
        while done < wanted:
            room = self._memory_file.view[frames + done : frames + wanted]
            count = os.preadv(self.lower.host_fd, [room], start + done)
            if not count:
                break
            done += count

    def _hole(self, offset: int, stop: int) -> bytes:
        """What a hole reads as, at least a byte of it and at most up to `stop`."""
        if offset < self.lower_size and self.lower is not None:
            stop = min(stop, self.lower_size, offset + CHUNK)
            with linux_errors():
                data = os.pread(self.lower.host_fd, stop - offset, offset)
            if data:
                return data
        length = stop - offset
        return _ZEROS if length >= len(_ZEROS) else _ZEROS[:length]

    def _gap_end(self, offset: int, end: int) -> int:
        after = self.pages.first_after(offset)
        return min(self.pages.starts[after], end) if after < len(self.pages) else end

    def _fill(self, offset: int, end: int) -> None:
        """A mapping needs the page at `offset`, which is a hole. (MemoryMappable)"""
        start, stop = self.pages.gap_around(offset, offset & -(_AHEAD * PAGE_SIZE), end)
        stop = min(stop, (offset & -(_AHEAD * PAGE_SIZE)) + _AHEAD * PAGE_SIZE)
        if start < self.lower_size:
            self._copy_lower(start, min(stop, page_up(self.lower_size)))
            start = min(stop, page_up(self.lower_size))
            if start >= stop or start > offset:
                return
        self._new_pages(start, stop)

    def _drop(self, start: int, end: int) -> None:
        for first, last, delta in self.pages.take(start, end):
            self._memory_file.decref(first + delta, last - first)
            self.space.pages -= (last - first) // PAGE_SIZE

    def _shift(self, start: int, by: int) -> None:
        """Move everything from `start` on by `by` bytes; for by < 0 over what is before it."""
        if self.lower_size:
            self._ensure(0, page_up(self.lower_size), 0)
            self.lower_size = 0
        self.invalidate(min(start, start + by), page_up(self._size) + max(by, 0))
        moved = self.pages.take(start, _END)
        if by < 0:
            self._drop(start + by, start)
        for first, last, delta in moved:
            self.pages.set(first + by, last + by, delta - by)
        self._size += by
