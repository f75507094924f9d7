"""A kernel and a task for tests of the VFS: real mounts and files, memory that is one bytearray."""

from __future__ import annotations

from struct import Struct
from types import SimpleNamespace
from typing import Any

from pysandbox_core.accounting import Account
from pysandbox_core.credentials import Credentials
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.context import FsContext
from pysandbox_core.fs.fd_table import FdTable
from pysandbox_core.fs.host_tree import HostTree
from pysandbox_core.fs.mount import MountNamespace
from pysandbox_core.fs.overlay import OverlayFs
from pysandbox_core.limits import ResourceLimits
from pysandbox_core.mm.io_buffer import Sink, Source
from pysandbox_core.mm.memory_file import MemoryFile

EFAULT = 14
IOVEC = Struct("<QQ")


class FlatMemory:
    """User memory: addresses 0x1000 to 0x1000 + size, everything else faults."""

    BASE = 0x1000

    def __init__(self, size: int = 1 << 21) -> None:
        self.bytes = bytearray(size)
        self.next = self.BASE

    def place(self, data: bytes) -> int:
        """Put `data` somewhere; its address."""
        addr = self.next
        self.next += len(data) + 15 & -16
        self.write(addr, data)
        return addr

    def path(self, path: bytes) -> int:
        return self.place(path + b"\0")

    def _room(self, addr: int, n: int) -> int:
        start = addr - self.BASE
        return max(0, min(n, len(self.bytes) - start)) if start >= 0 else 0

    def read_some(self, addr: int, n: int) -> bytes:
        start = addr - self.BASE
        return bytes(self.bytes[start : start + self._room(addr, n)])

    def write_some(self, addr: int, data: Any) -> int:
        start, room = addr - self.BASE, self._room(addr, len(data))
        self.bytes[start : start + room] = data[:room]
        return room

    def views(self, addr: int, n: int, *, write: bool) -> list[memoryview]:
        start = addr - self.BASE
        return [memoryview(self.bytes)[start : start + self._room(addr, n)]]

    def read(self, addr: int, n: int) -> bytes:
        data = self.read_some(addr, n)
        if len(data) < n:
            raise LinuxError(EFAULT)
        return data

    def write(self, addr: int, data: Any) -> None:
        if self.write_some(addr, data) < len(data):
            raise LinuxError(EFAULT)

    def unpack(self, addr: int, layout: Struct) -> tuple[Any, ...]:
        return layout.unpack(self.read(addr, layout.size))

    def pack(self, addr: int, layout: Struct, *values: Any) -> None:
        self.write(addr, layout.pack(*values))

    def read_u32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little")

    def read_u64(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 8), "little")

    def read_s64(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 8), "little", signed=True)

    def read_s32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little", signed=True)

    def write_u32(self, addr: int, value: int) -> None:
        self.write(addr, value.to_bytes(4, "little"))

    def write_u64(self, addr: int, value: int) -> None:
        self.write(addr, value.to_bytes(8, "little"))

    write_s64 = write_u64

    def read_cstring(self, addr: int, limit: int) -> bytes:
        data = self.read_some(addr, limit)
        end = data.find(b"\0")
        if end < 0:
            raise LinuxError(36 if len(data) == limit else EFAULT)
        return data[:end]

    def read_path(self, addr: int) -> bytes:
        return self.read_cstring(addr, 4096)

    def sink(self, addr: int, count: int) -> Sink:
        return Sink(self, addr, count)  # type: ignore[arg-type]

    def source(self, addr: int, count: int) -> Source:
        return Source(self, addr, count)  # type: ignore[arg-type]

    def _iov(self, addr: int, count: int) -> tuple[int, int, list[tuple[int, int]]]:
        if not 0 < count <= 1024:
            raise LinuxError(22)
        ranges = list(IOVEC.iter_unpack(self.read(addr, count * IOVEC.size)))
        if sum(size for _, size in ranges) > 0x7FFFF000:
            raise LinuxError(22)
        first, *more = ranges
        return (*first, more[::-1])

    def sink_iov(self, addr: int, count: int) -> Sink:
        return Sink(self, *self._iov(addr, count))  # type: ignore[arg-type]

    def source_iov(self, addr: int, count: int) -> Source:
        return Source(self, *self._iov(addr, count))  # type: ignore[arg-type]


class SmallMemoryFile(MemoryFile):
    """One that a test may forget to close: 64 GiB of addresses, not 16 TiB."""

    SIZE = 1 << 36


class FakeGroup:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.limits = ResourceLimits()


class FakeKernel:
    """What file systems ask of a kernel."""

    def __init__(self) -> None:
        self.memory_file = SmallMemoryFile()
        self.tasks: dict[int, Any] = {}
        self.groups: dict[int, Any] = {}
        self.messages: list[str] = []
        self.hooks = None
        self.memory = SimpleNamespace(grow=lambda amount, kill=True: None, max_files=1 << 20)
        self.account = Account()
        self.mounts: MountNamespace
        self._devices = 0

    def new_device(self) -> int:
        self._devices += 1
        return self._devices

    def log(self, text: str, level: str = "warning") -> None:
        self.messages.append(text)

    # For a Turn that has lasted long: there is nobody else.

    running = 0
    ready = ()
    timers = SimpleNamespace(add=lambda when_ns, call: SimpleNamespace(cancel=lambda: None))

    def park(self, task: Any) -> None: ...


class FakeTask:
    """A task that never blocks for long: `block` runs `on_block`, or fails the test."""

    def __init__(self, kernel: Any, fs: FsContext, uid: int = 0, pid: int = 1) -> None:
        self.kernel = kernel
        self.fs = fs
        self.files = FdTable()
        self.creds = Credentials.for_user(uid, uid)
        self.group = FakeGroup(pid)
        self.mm = FlatMemory()
        self.work = 0
        self.on_block: Any = None
        kernel.tasks[pid] = self

    @property
    def pid(self) -> int:
        return self.group.pid

    def interrupted(self, killable_only: bool = False) -> bool:
        return False

    def make_ready(self) -> None: ...

    def block(self, queues: Any, deadline_ns: int | None = None, **_: Any) -> bool:
        assert self.on_block is not None, "the task would block for ever"
        self.on_block()
        return True


def overlay_kernel(lower: bytes) -> Any:
    """A kernel whose root is an overlay of the host directory `lower`."""
    kernel: Any = FakeKernel()
    kernel.mounts = MountNamespace(OverlayFs(kernel, HostTree.open(lower)), b"overlay")
    return kernel


def new_task(kernel: Any, uid: int = 0, pid: int = 1) -> Any:
    """A task at the root of `kernel`."""
    return FakeTask(kernel, FsContext(kernel.mounts.root, kernel.mounts.root, 0o022), uid, pid)
