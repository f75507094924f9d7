"""A platform that only keeps page tables, and a program that accesses memory through them.

What the memory manager tells the platform is all that `FakeSpace` knows, so that a test sees
exactly what a program would see, with host files read through the fd that was passed.
"""

from __future__ import annotations

import os
from collections import deque
from types import SimpleNamespace

import pytest
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.mm.mappable import HostFileMappable, Mappable, MemoryMappable
from pysandbox_core.mm.memory_file import MemoryFile
from pysandbox_core.mm.memory_manager import MemoryManager
from pysandbox_platform import ACCESS_READ, ACCESS_WRITE, PAGE_SIZE, PROT_READ, PROT_WRITE

SIGSEGV, SIGBUS = 11, 7


class FakeSpace:
    """Page tables: page address -> (fd, file offset, prot)."""

    def __init__(self) -> None:
        self.table: dict[int, tuple[int, int, int]] = {}
        self.calls: list[tuple[str, int, int]] = []
        self.released = False

    def _check(self, addr: int, length: int) -> None:
        assert addr % PAGE_SIZE == 0 and length % PAGE_SIZE == 0 and length > 0
        assert addr >= 0x10000 and addr + length <= 0x7FFFFFFFF000
        assert not self.released

    def map(self, addr: int, length: int, prot: int, fd: int, offset: int) -> None:
        self._check(addr, length)
        assert offset % PAGE_SIZE == 0
        os.fstat(fd)
        self.calls.append(("map", addr, length))
        for at in range(addr, addr + length, PAGE_SIZE):
            self.table[at] = (fd, offset + at - addr, prot)

    def protect(self, addr: int, length: int, prot: int) -> None:
        self._check(addr, length)
        self.calls.append(("protect", addr, length))
        for at in range(addr, addr + length, PAGE_SIZE):
            if at in self.table:
                self.table[at] = (*self.table[at][:2], prot)

    def unmap(self, addr: int, length: int) -> None:
        self._check(addr, length)
        self.calls.append(("unmap", addr, length))
        for at in range(addr, addr + length, PAGE_SIZE):
            self.table.pop(at, None)

    def sync(self) -> None:
        assert not self.released
        self.calls.append(("sync", 0, 0))

    def release(self) -> None:
        self.released = True
        self.table.clear()


class FakePlatform:
    address_range = (0x10000, 0x7FFFFFFFF000)
    max_mappings = 2**63 - 1

    def new_address_space(self) -> FakeSpace:
        return FakeSpace()


def new_kernel(limit: int | None = None) -> SimpleNamespace:
    """As much of a kernel as the memory manager asks for."""
    log: list[str] = []
    return SimpleNamespace(
        memory_file=MemoryFile(limit),
        platform=FakePlatform(),
        running=0,
        early_stops=deque(),
        tasks={},
        groups={},
        memory=SimpleNamespace(
            victims=[], grow=lambda amount, kill=True: None, announce=lambda amount: None
        ),
        log=log.append,
        messages=log,
    )


def new_mm(kernel: SimpleNamespace, limits: object = None) -> MemoryManager:
    return MemoryManager(kernel, limits, kernel.platform.new_address_space())  # type: ignore[arg-type]


def errno_of(function, *arguments, **keywords) -> int:  # type: ignore[no-untyped-def]
    """What `function` fails with."""
    with pytest.raises(LinuxError) as caught:
        function(*arguments, **keywords)
    return caught.value.errno


class Segfault(Exception):
    """The program got a signal: (signo, code)."""


class Program:
    """Accesses memory as the processor would, faults and all."""

    def __init__(self, mm: MemoryManager, *, precise: bool = True) -> None:
        self.mm = mm
        self.precise = precise
        self.faults = 0

    def _page(self, addr: int, access: int) -> tuple[int, int]:
        table = self.mm.address_space.table  # type: ignore[attr-defined]
        need = PROT_WRITE if access == ACCESS_WRITE else PROT_READ
        for _ in range(4):
            entry = table.get(addr & -PAGE_SIZE)
            signo = SIGSEGV
            if entry is not None and entry[2] & need:
                fd, offset, _ = entry
                if offset < (os.fstat(fd).st_size + PAGE_SIZE - 1) & -PAGE_SIZE:
                    return fd, offset + addr % PAGE_SIZE
                signo = SIGBUS
            self.faults += 1
            told = access if entry is not None or self.precise else ACCESS_READ
            result = self.mm.handle_fault(addr, told, signo)
            if result != (0, 0):
                raise Segfault(*result)
        raise AssertionError(f"fault at {addr:x} is never resolved")

    def read(self, addr: int, length: int) -> bytes:
        data = b""
        while length:
            size = min(length, PAGE_SIZE - addr % PAGE_SIZE)
            fd, offset = self._page(addr, ACCESS_READ)
            data += os.pread(fd, size, offset).ljust(size, b"\0")
            addr += size
            length -= size
        return data

    def write(self, addr: int, data: bytes) -> None:
        while data:
            size = min(len(data), PAGE_SIZE - addr % PAGE_SIZE)
            fd, offset = self._page(addr, ACCESS_WRITE)
            os.pwrite(fd, data[:size], offset)
            addr += size
            data = data[size:]


class FakeInode:
    """What the memory manager and file descriptions look at."""

    locks = None
    executions = 0
    seals = 0


class HostFile(FileDescription):
    """An open host file with nothing but its mappable."""

    __slots__ = ("shared",)

    def __init__(self, path: str, flags: int = os.O_RDONLY) -> None:
        super().__init__(flags, FakeInode())  # type: ignore[arg-type]
        self.shared = HostFileMappable(os.open(path, flags), can_write=flags == os.O_RDWR)

    def mappable(self, task: object) -> Mappable:
        self.shared.incref()
        return self.shared

    def read(self, task, sink, offset=None) -> int:  # type: ignore[no-untyped-def, override]
        at = offset or 0
        total = 0
        while sink.remaining:
            data = os.pread(self.shared.host_fd, min(sink.remaining, 1 << 20), at)
            if not data:
                break
            total += sink.write(data)
            at += len(data)
        return total

    def release(self) -> None:
        self.shared.decref()


class MemoryFileDescription(FileDescription):
    """An open file whose pages are in the memory file."""

    __slots__ = ("pages",)

    def __init__(self, pages: Mappable) -> None:
        super().__init__(os.O_RDWR, FakeInode())  # type: ignore[arg-type]
        self.pages = pages

    def mappable(self, task: object) -> Mappable:
        self.pages.incref()
        return self.pages


class BytesFile(MemoryFileDescription):
    """An open file with given content."""

    __slots__ = ("content",)

    def __init__(self, kernel: SimpleNamespace, content: bytes) -> None:
        pages = MemoryMappable(kernel.memory_file, len(content))
        at = 0
        while at < len(content):
            _, offset, length, _ = pages.frames(at & -PAGE_SIZE, PAGE_SIZE, True)[0]
            part = content[at : at + length]
            kernel.memory_file.view[offset : offset + len(part)] = part
            at += length
        super().__init__(pages)
        self.content = content

    def read(self, task, sink, offset=None) -> int:  # type: ignore[no-untyped-def, override]
        return sink.write(self.content[offset : offset + sink.remaining]) if offset < 1 << 62 else 0

    def release(self) -> None:
        self.pages.decref()
