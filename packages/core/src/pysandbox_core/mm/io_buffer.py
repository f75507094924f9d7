"""Sinks and sources: how file data gets to the program's memory and from it.

Interface: a read handler makes a `Sink` and a file writes to it; a write handler makes a `Source`
and a file reads from it. Either covers one or more ranges of user memory, or bytes of the kernel's
own (`BytesSink`, `BytesSource`). Both end early at an address that can't be reached: `write` and
`read` then move less than was asked for, and raise EFAULT only if nothing at all has moved since
the object was made, so that a file simply returns what it moved.

Linux: struct iov_iter, copy_to_iter, copy_from_iter.
"""

from __future__ import annotations

from errno import EFAULT
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.mm.memory_manager import MemoryManager

Buffer = bytes | bytearray | memoryview


class Sink:
    """User memory to be filled, from `addr` on. `remaining` is the room left in all ranges."""

    __slots__ = ("_addr", "_left", "_mm", "_more", "moved", "remaining")

    def __init__(
        self, mm: MemoryManager, addr: int, length: int, more: list[tuple[int, int]] | None = None
    ) -> None:
        self._mm = mm
        self._addr = addr
        self._left = length
        self._more = more
        """Ranges after this one, last first."""
        self.remaining = length
        self.moved = 0
        """Bytes moved since it was made."""
        if more:
            self.remaining += sum(size for _, size in more)

    def write(self, data: Buffer) -> int:
        """Copy `data`, or as much of it as there is room for; how many bytes. EFAULT"""
        size = len(data)
        if size <= self._left:  # the common case: one range, room enough
            done = self._mm.write_some(self._addr, data)
            self._advance(done)
            if done < size and not self.moved:
                raise LinuxError(EFAULT)
            return done
        return self._write_ranges(memoryview(data))

    def _write_ranges(self, data: memoryview) -> int:
        total = 0
        while total < len(data) and self.remaining:
            if not self._left:
                self._next()
                continue
            part = data[total : total + self._left]
            done = self._mm.write_some(self._addr, part)
            self._advance(done)
            total += done
            if done < len(part):
                break
        if not total and len(data) and self.remaining and not self.moved:
            raise LinuxError(EFAULT)
        return total

    def views(self, limit: int) -> list[memoryview]:
        """The memory itself, for a host call to fill: the next writable bytes in order, at most
        `limit`, in at most 64 pieces; `advance` says how many were filled. EFAULT"""
        found: list[memoryview] = []
        if not self._left and self.remaining:
            self._next()
        found = self._mm.views(self._addr, min(limit, self._left), write=True)
        if not found and limit and self.remaining and not self.moved:
            raise LinuxError(EFAULT)
        return found

    def advance(self, count: int) -> None:
        """`count` bytes of what `views` gave were filled."""
        self._advance(count)

    def _advance(self, count: int) -> None:
        self._addr += count
        self._left -= count
        self.remaining -= count
        self.moved += count

    def _next(self) -> None:
        while not self._left and self._more:
            self._addr, self._left = self._more.pop()


class Source:
    """User memory to be taken from, from `addr` on. `remaining` is what is left in all ranges."""

    __slots__ = ("_addr", "_last", "_left", "_mm", "_more", "_pushed", "moved", "remaining")

    def __init__(
        self, mm: MemoryManager, addr: int, length: int, more: list[tuple[int, int]] | None = None
    ) -> None:
        self._mm = mm
        self._addr = addr
        self._left = length
        self._more = more
        self._pushed = b""
        """Given back by `undo`, to be read first."""
        self._last = b""
        self.remaining = length
        self.moved = 0
        if more:
            self.remaining += sum(size for _, size in more)

    def read(self, n: int = -1) -> bytes:
        """Take up to `n` bytes (-1: all that is left), copied once; fewer only at the end or at a
        bad address. EFAULT"""
        if n < 0 or n > self.remaining:
            n = self.remaining
        if self._pushed:
            data = self._pushed[:n]
            self._pushed = self._pushed[n:]
            if len(data) < n:
                data += self._read_ranges(n - len(data))
        elif n <= self._left:
            data = self._mm.read_some(self._addr, n)
            self._addr += len(data)
            self._left -= len(data)
        else:
            data = self._read_ranges(n)
        self.remaining -= len(data)
        self.moved += len(data)
        self._last = data
        if n and not self.moved:
            raise LinuxError(EFAULT)
        return data

    def _read_ranges(self, n: int) -> bytes:
        parts = []
        while n:
            while not self._left and self._more:
                self._addr, self._left = self._more.pop()
            size = min(n, self._left)
            data = self._mm.read_some(self._addr, size) if size else b""
            self._addr += len(data)
            self._left -= len(data)
            n -= len(data)
            parts.append(data)
            if len(data) < size or not data:
                break
        return b"".join(parts)

    def undo(self, n: int) -> None:
        """The last `n` bytes that the latest `read` gave were not used: they are read again."""
        if n:
            self._pushed = self._last[len(self._last) - n :] + self._pushed
            self._last = self._last[: len(self._last) - n]
            self.remaining += n
            self.moved -= n

    def peek(self, n: int) -> bytes:
        """The next bytes, at most `n`, left where they are (copied: they are what `read` will
        give). EFAULT"""
        data = self.read(n)
        self.undo(len(data))
        return data


class BytesSink(Sink):
    """A sink whose bytes stay in the kernel, at most `limit` of them; `data` is what came."""

    __slots__ = ("_parts",)

    def __init__(self, limit: int) -> None:
        self.remaining = limit
        self.moved = 0
        self._parts: list[bytes] = []

    def write(self, data: Buffer) -> int:
        part = bytes(data[: self.remaining])
        self._parts.append(part)
        self.remaining -= len(part)
        self.moved += len(part)
        return len(part)

    def views(self, limit: int) -> list[memoryview]:
        """One buffer, which `advance` turns into data."""
        size = min(limit, self.remaining, 1 << 20)
        buffer = bytearray(size)
        self._parts.append(buffer)  # type: ignore[arg-type]  # made bytes by advance
        return [memoryview(buffer)]

    def advance(self, count: int) -> None:
        self._parts[-1] = bytes(self._parts[-1][:count])
        self.remaining -= count
        self.moved += count

    @property
    def data(self) -> bytes:
        """Everything written so far."""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""


class BytesSource(Source):
    """A source of bytes that are the kernel's own."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: Buffer) -> None:
        self._data = bytes(data)
        self._at = 0
        self.remaining = len(self._data)
        self.moved = 0

    def read(self, n: int = -1) -> bytes:
        if n < 0 or n > self.remaining:
            n = self.remaining
        data = self._data[self._at : self._at + n]
        self._at += n
        self.remaining -= n
        self.moved += n
        return data

    def undo(self, n: int) -> None:
        self._at -= n
        self.remaining += n
        self.moved -= n
