"""Access to user memory from the kernel: what copy_from_user and copy_to_user are in Linux.

Interface: an address comes from the program and may be anything; EFAULT says that the program may
not reach it. Every read copies, once: what was checked is what is used, whatever other threads
write meanwhile. Values that are passed to `write` and `pack` are the kernel's.

Memory that is frames of the memory file is read as a slice of this process's mapping of it. Pages
of host files are read with pread: a mapping would end this process with SIGBUS when the file is
truncated.

Linux: lib/usercopy.c, mm/maccess.c, lib/iov_iter.c.
"""

from __future__ import annotations

import os
from errno import E2BIG, EFAULT, EINVAL, ENAMETOOLONG, ENOMEM
from struct import Struct
from typing import TYPE_CHECKING, Any

from pysandbox_platform import PAGE_SIZE, PROT_WRITE

from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.mm.io_buffer import Sink, Source
from pysandbox_core.mm.pages import MmPages
from pysandbox_core.mm.vma import VM_SHARED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pysandbox_platform import AddressSpace

    from pysandbox_core.kernel import Kernel
    from pysandbox_core.limits import ResourceLimits
    from pysandbox_core.mm.mappable import Mappable

MAX_RW_COUNT = 0x7FFFF000
"""Bytes that one read(2) or write(2) moves at most."""
PATH_MAX = 4096
"""With the NUL."""
MAX_ARG_STRLEN = 32 * PAGE_SIZE
"""Bytes of one argument of execve(2), with the NUL."""
UIO_MAXIOV = 1024

_U8 = Struct("<B")
_U16 = Struct("<H")
_U32 = Struct("<I")
_U64 = Struct("<Q")
_S32 = Struct("<i")
_S64 = Struct("<q")
_STRING_CHUNK = 256
_VIEWS_MAX = 64
_ATTEMPTS = 4


class MmAccess(MmPages):
    """The kernel's own way into an address space."""

    def __init__(
        self, kernel: Kernel, limits: ResourceLimits | None, address_space: AddressSpace
    ) -> None:
        super().__init__(kernel, limits, address_space)
        self._bytes = self.memory_file.mapping
        """A slice of it is bytes."""
        self._view = self.memory_file.view

    # Bytes.

    def read(self, addr: int, n: int) -> bytes:
        """`n` bytes at `addr`. EFAULT"""
        if self._read_start <= addr and addr + n <= self._read_end:
            offset = addr + self._read_delta
            return self._bytes[offset : offset + n]
        data = self.read_some(addr, n)
        if len(data) < n:
            raise LinuxError(EFAULT)
        return data

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """Copy `data` to `addr`. EFAULT, with what could be written written."""
        n = len(data)
        if self._write_start <= addr and addr + n <= self._write_end:
            offset = addr + self._write_delta
            self._view[offset : offset + n] = data
        elif self.write_some(addr, data) < n:
            raise LinuxError(EFAULT)

    def read_some(self, addr: int, n: int) -> bytes:
        """As many of the `n` bytes at `addr` as can be reached."""
        if self._read_start <= addr and addr + n <= self._read_end:
            offset = addr + self._read_delta
            return self._bytes[offset : offset + n]
        parts = []
        while n > 0:
            try:
                end, source = self._reach(addr, write=False)
            except LinuxError as error:
                if error.errno != EFAULT:
                    raise
                break
            size = min(n, end - addr)
            if source is None:
                offset = addr + self._read_delta
                parts.append(self._bytes[offset : offset + size])
            else:
                data = _read_file(source[0], addr + source[1], size)
                parts.append(data)
                if len(data) < size:
                    break
            addr += size
            n -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write_some(self, addr: int, data: bytes | bytearray | memoryview) -> int:
        """Copy as much of `data` to `addr` as can be reached; how many bytes."""
        n = len(data)
        if self._write_start <= addr and addr + n <= self._write_end:
            offset = addr + self._write_delta
            self._view[offset : offset + n] = data
            return n
        done = 0
        whole = memoryview(data)
        while done < n:
            try:
                end, source = self._reach(addr + done, write=True)
            except LinuxError as error:
                if error.errno != EFAULT:
                    raise
                break
            size = min(n - done, end - addr - done)
            if source is None:
                offset = addr + done + self._write_delta
                self._view[offset : offset + size] = whole[done : done + size]
            elif not _write_file(source[0], addr + done + source[1], whole[done : done + size]):
                break
            done += size
        return done

    def views(self, addr: int, n: int, *, write: bool) -> list[memoryview]:
        """The memory at `addr` itself, as much of the `n` bytes as can be reached and is frames of
        the memory file, in at most 64 pieces. Use them at once: the next change to the address
        space makes them somebody else's. ENOMEM"""
        found: list[memoryview] = []
        first, total = addr, n
        generation, attempts = self.memory_file.generation, 0
        while n > 0 and len(found) < _VIEWS_MAX:
            try:
                end, source = self._reach(addr, write=write)
            except LinuxError as error:
                if error.errno != EFAULT:
                    raise
                break
            if source is not None:
                break
            if generation != self.memory_file.generation:
                # memory is short, and what was found may have been taken back: once more
                generation = self.memory_file.generation
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise LinuxError(ENOMEM)
                if found:
                    found.clear()
                    addr, n = first, total
                    continue
            offset = addr + (self._write_delta if write else self._read_delta)
            size = min(n, end - addr)
            found.append(self._view[offset : offset + size])
            addr += size
            n -= size
        return found

    def _reach(self, addr: int, *, write: bool) -> tuple[int, tuple[Mappable, int] | None]:
        """Make `addr` present and find out how far its piece goes: (end, None) for frames, with the
        range cached, (end, (mappable, delta)) for pages of a host file. EFAULT, ENOMEM"""
        index = self.vmas.find(addr)
        if index < 0:
            if not self.grow_stack(addr):
                raise LinuxError(EFAULT)
            index = self.vmas.find(addr)
        prot = self.vmas.values[index].prot
        if not (prot & PROT_WRITE if write else prot):
            raise LinuxError(EFAULT)
        at = self.pages.find(addr)
        if at < 0 or (write and self.pages.values[at].cow):
            self.make_present(index, addr, write)
            at = self.pages.find(addr)
        source, delta, _ = self.pages.values[at]
        start = max(self.vmas.starts[index], self.pages.starts[at])
        end = min(self.vmas.ends[index], self.pages.ends[at])
        if source is not None and not source.in_memory_file:
            return end, (source, delta)
        if write:
            self._write_start, self._write_end, self._write_delta = start, end, delta
        else:
            self._read_start, self._read_end, self._read_delta = start, end, delta
        return end, None

    # Numbers and structures.

    def unpack(self, addr: int, layout: Struct) -> tuple[Any, ...]:
        """The structure at `addr`. EFAULT"""
        if self._read_start <= addr and addr + layout.size <= self._read_end:
            return layout.unpack_from(self._view, addr + self._read_delta)
        return layout.unpack(self.read(addr, layout.size))

    def pack(self, addr: int, layout: Struct, *values: Any) -> None:
        """Write a structure to `addr`. EFAULT"""
        self.write(addr, layout.pack(*values))

    def read_u8(self, addr: int) -> int:
        return self.read(addr, 1)[0]

    def read_u16(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 2), "little")

    def read_u32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little")

    def read_u64(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 8), "little")

    def read_s32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little", signed=True)

    def read_s64(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 8), "little", signed=True)

    def write_u8(self, addr: int, value: int) -> None:
        self.write(addr, _U8.pack(value))

    def write_u16(self, addr: int, value: int) -> None:
        self.write(addr, _U16.pack(value))

    def write_u32(self, addr: int, value: int) -> None:
        self.write(addr, _U32.pack(value))

    def write_u64(self, addr: int, value: int) -> None:
        self.write(addr, _U64.pack(value))

    def write_s32(self, addr: int, value: int) -> None:
        self.write(addr, _S32.pack(value))

    def write_s64(self, addr: int, value: int) -> None:
        self.write(addr, _S64.pack(value))

    # Strings.

    def read_cstring(self, addr: int, limit: int) -> bytes:
        """The NUL-terminated string at `addr`, without the NUL. ENAMETOOLONG if there is none in
        the first `limit` bytes; EFAULT"""
        parts = []
        chunk = _STRING_CHUNK
        while limit > 0:
            # Never more than to the end of the page: what follows may not be there.
            size = min(limit, chunk, PAGE_SIZE - (addr & (PAGE_SIZE - 1)))
            data = self.read(addr, size)
            end = data.find(b"\0")
            if end >= 0:
                parts.append(data[:end])
                return parts[0] if len(parts) == 1 else b"".join(parts)
            parts.append(data)
            addr += size
            limit -= size
            chunk = PAGE_SIZE
        raise LinuxError(ENAMETOOLONG)

    def read_path(self, addr: int) -> bytes:
        """The path at `addr`; may be empty. ENAMETOOLONG, EFAULT"""
        return self.read_cstring(addr, PATH_MAX)

    def read_string_array(
        self, addr: int, budget: int, pause: Callable[[], None] = lambda: None
    ) -> tuple[list[bytes], int]:
        """The strings of the NULL-terminated array of pointers at `addr` (argv, envp), none if
        `addr` is NULL; and what is left of `budget`, in bytes, that strings and pointers may take.
        `pause` is called now and then. E2BIG if they take more, or one string more than
        MAX_ARG_STRLEN; EFAULT"""
        found: list[bytes] = []
        for pointer in self._pointers(addr, pause) if addr else ():
            try:
                text = self.read_cstring(pointer, MAX_ARG_STRLEN)
            except LinuxError as error:
                raise LinuxError(E2BIG if error.errno == ENAMETOOLONG else error.errno) from None
            budget -= len(text) + 9
            if budget < 0:
                raise LinuxError(E2BIG)
            found.append(text)
        return found, budget

    def _pointers(self, addr: int, pause: Callable[[], None]) -> Iterator[int]:
        """The words at `addr` up to the first that is NULL. EFAULT"""
        while True:
            # never more than to the end of the page: what follows may not be there
            count = (PAGE_SIZE - addr % PAGE_SIZE) // 8 or 1
            for pointer in memoryview(self.read(addr, 8 * count)).cast("Q"):
                if not pointer:
                    return
                yield pointer
            addr += 8 * count
            pause()

    # Sinks and sources.

    def sink(self, addr: int, count: int) -> Sink:
        """Where read(2) puts `count` bytes. EFAULT if the range leaves user space."""
        self._check_range(addr, count)
        return Sink(self, addr, min(count, MAX_RW_COUNT))  # type: ignore[arg-type]

    def source(self, addr: int, count: int) -> Source:
        """Where write(2) takes `count` bytes from. EFAULT if the range leaves user space."""
        self._check_range(addr, count)
        return Source(self, addr, min(count, MAX_RW_COUNT))  # type: ignore[arg-type]

    def sink_iov(self, iov_addr: int, iovcnt: int) -> Sink:
        """Where readv(2) puts its bytes. EINVAL, EFAULT"""
        ranges = self.read_iov(iov_addr, iovcnt)
        addr, length = ranges.pop() if ranges else (0, 0)
        return Sink(self, addr, length, ranges)  # type: ignore[arg-type]

    def source_iov(self, iov_addr: int, iovcnt: int) -> Source:
        """Where writev(2) takes its bytes from. EINVAL, EFAULT"""
        ranges = self.read_iov(iov_addr, iovcnt)
        addr, length = ranges.pop() if ranges else (0, 0)
        return Source(self, addr, length, ranges)  # type: ignore[arg-type]

    def read_iov(self, iov_addr: int, iovcnt: int, *, check: bool = True) -> list[tuple[int, int]]:
        """The array of `iovcnt` struct iovec at `iov_addr`, last first, cut off at MAX_RW_COUNT
        bytes in all. EINVAL for a bad count or a negative length; EFAULT, also, with `check`, for a
        range that leaves user space."""
        if not 0 <= iovcnt <= UIO_MAXIOV:
            raise LinuxError(EINVAL)
        words = memoryview(self.read(iov_addr, 16 * iovcnt)).cast("Q")
        ranges = []
        room = MAX_RW_COUNT
        for index in range(0, 2 * iovcnt, 2):
            addr, length = words[index], words[index + 1]
            if length >= 1 << 63:
                raise LinuxError(EINVAL)
            if check:
                self._check_range(addr, length)
            length = min(length, room)
            room -= length
            ranges.append((addr, length))
        ranges.reverse()
        return ranges

    def _check_range(self, addr: int, count: int) -> None:
        """EFAULT unless [addr, addr+count) lies in user space. Linux: access_ok"""
        if addr + count > self.task_size:
            raise LinuxError(EFAULT)

    # Identity.

    def futex_key(self, addr: int) -> tuple[object, int]:
        """The key of the shared futex at `addr`. EFAULT"""
        return self.kernel, self.frame_of(addr)

    def frame_of(self, addr: int) -> int:
        """A number that is the same wherever this very byte of memory is mapped, and for no other:
        what a shared futex is known by. EFAULT"""
        index = self.vmas.find(addr)
        if index < 0 or not self.vmas.values[index].prot:
            raise LinuxError(EFAULT)
        vma = self.vmas.values[index]
        if vma.backing is None or not vma.flags & VM_SHARED:
            return (self.id << 64 | addr) << 2 | 1
        return vma.backing.mappable.identity(addr + vma.delta) << 2


def _read_file(mappable: Mappable, offset: int, size: int) -> bytes:
    """Bytes of a mapped host file; zeros after its end up to the end of the page, then nothing."""
    with linux_errors():
        data = os.pread(mappable.host_fd, size, offset)
    if len(data) < size:
        mapped = (mappable.size + PAGE_SIZE - 1) & -PAGE_SIZE
        data += bytes(max(0, min(size, mapped - offset) - len(data)))
    return data


def _write_file(mappable: Mappable, offset: int, data: memoryview) -> bool:
    """Change bytes of a host file that is mapped shared; False beyond its end. What falls behind
    the end in its last page is lost, as it is in Linux."""
    size = mappable.size
    if offset + len(data) > (size + PAGE_SIZE - 1) & -PAGE_SIZE:
        return False
    with linux_errors():
        os.pwrite(mappable.host_fd, data[: max(0, size - offset)], offset)
    return True
