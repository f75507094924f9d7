"""A kernel on the fake platform whose tasks each run one Python function as their system call.

The memory manager is the smallest thing that has its interface: one flat writable range of BASE to
BASE + SIZE, shared by all tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EFAULT
from struct import Struct
from types import SimpleNamespace
from typing import Any

from fake_platform import FakePlatform, Program
from pysandbox_core import declare
from pysandbox_core.credentials import Credentials
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.fd_table import FdTable
from pysandbox_core.kernel import Kernel
from pysandbox_core.limits import ResourceLimits
from pysandbox_core.mm.io_buffer import Sink, Source
from pysandbox_core.signals import PendingSignals, SigaltStack, SignalHandlers
from pysandbox_core.task import Task, ThreadGroup
from pysandbox_core.time.clocks import Clocks
from pysandbox_platform import STOP_SYSCALL
from pysandbox_platform.registers_amd64 import ORIG_RAX, RDI

BASE = 0x10000
SIZE = 0x40000
RUN = 1
"""The number of the system call that runs a task's function."""


class FlatMemory:
    """The interface of MemoryManager over one bytearray."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.address_space = None

    def read_some(self, addr: int, n: int) -> bytes:
        if not BASE <= addr < BASE + SIZE:
            return b""
        return bytes(self.data[addr - BASE : addr - BASE + n])

    def write_some(self, addr: int, data: bytes) -> int:
        if not BASE <= addr < BASE + SIZE:
            return 0
        size = min(len(data), BASE + SIZE - addr)
        self.data[addr - BASE : addr - BASE + size] = data[:size]
        return size

    def read(self, addr: int, n: int) -> bytes:
        data = self.read_some(addr, n)
        if len(data) < n:
            raise LinuxError(EFAULT)
        return data

    def write(self, addr: int, data: bytes) -> None:
        if self.write_some(addr, data) < len(data):
            raise LinuxError(EFAULT)

    def unpack(self, addr: int, struct: Struct) -> tuple[Any, ...]:
        return struct.unpack(self.read(addr, struct.size))

    def pack(self, addr: int, struct: Struct, *values: Any) -> None:
        self.write(addr, struct.pack(*values))

    def read_u32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little")

    def read_u64(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 8), "little")

    def write_u32(self, addr: int, value: int) -> None:
        self.write(addr, value.to_bytes(4, "little"))

    def write_u64(self, addr: int, value: int) -> None:
        self.write(addr, value.to_bytes(8, "little"))

    def read_cstring(self, addr: int, limit: int) -> bytes:
        return self.read_some(addr, limit).split(b"\0")[0]

    def futex_key(self, addr: int) -> tuple[object, int]:
        return ("frame", addr)

    def sink(self, addr: int, count: int) -> Sink:
        return Sink(self, addr, count)

    def source(self, addr: int, count: int) -> Source:
        return Source(self, addr, count)

    def sink_iov(self, addr: int, count: int) -> Sink:
        ranges = self._ranges(addr, count)
        return Sink(self, *ranges[0], ranges[:0:-1])

    def source_iov(self, addr: int, count: int) -> Source:
        ranges = self._ranges(addr, count)
        return Source(self, *ranges[0], ranges[:0:-1])

    def _ranges(self, addr: int, count: int) -> list[tuple[int, int]]:
        return list(Struct("<QQ").iter_unpack(self.read(addr, 16 * count))) or [(0, 0)]


class Harness:
    """One kernel, its memory, and processes to try handlers in."""

    def __init__(self) -> None:
        config = SimpleNamespace(hostname=b"sandbox", memory=None, pids=None)
        self.kernel = Kernel(config, FakePlatform())
        self.kernel.table = [self._run_function] * (declare.TABLE_SIZE + 1)
        memory = memoryview(bytearray(4096))
        self.kernel.memory_file = SimpleNamespace(allocate=lambda npages: 0, view=memory)
        self.kernel.clocks = Clocks(self.kernel)
        self.mm = FlatMemory()
        self._functions: list[Callable[[Task], Any]] = []
        self._results: list[Any] = []
        self._left = 0
        self._tid = 1

    def close(self) -> None:
        self.kernel.reactor.close()

    def task(self, group: ThreadGroup | None = None, uid: int = 1000) -> Task:
        """A task of a new process, or another thread of `group`."""
        context = self.kernel.platform.new_context()
        self._tid += 1
        new = group is None
        if group is None:
            group = ThreadGroup(self.kernel, None, None)
            group.pid = self._tid
            group.pending = PendingSignals()
            group.limits = ResourceLimits()
            self.kernel.groups[group.pid] = group
        task = Task(self.kernel, group, context)
        task.tid = self._tid
        task.mm = self.mm
        task.creds = Credentials.for_user(uid, uid)
        task.pending = PendingSignals()
        task.altstack = SigaltStack(0, 2, 0)
        if new:
            group.leader = task
            task.files = FdTable()
            task.sighand = SignalHandlers()
        else:
            task.files = group.tasks[0].files
            task.sighand = group.tasks[0].sighand
        group.tasks.append(task)
        self.kernel.tasks[task.tid] = task
        return task

    def run(self, *functions: Callable[[Task], Any], tasks: list[Task] | None = None) -> list[Any]:
        """Run each function in a task of its own, in order, until all have returned. The results;
        -errno for a function that raised LinuxError."""
        self._functions = list(functions)
        self._results = [None] * len(functions)
        self._left = len(functions)
        self.kernel.stopping = False
        for index in range(len(functions)):
            task = tasks[index] if tasks else self.task()
            task.context.program = self._program(index)
            task.make_ready()
        self.kernel.run()
        self.kernel.running = 0
        self.kernel.platform.running.clear()
        for task in self.kernel.tasks.values():
            task.running = False
        return self._results

    def call(self, function: Callable[[Task], Any], task: Task | None = None) -> Any:
        """Run one function alone."""
        return self.run(function, tasks=None if task is None else [task])[0]

    def _program(self, index: int) -> Program:
        yield {"stop": STOP_SYSCALL, f"r{ORIG_RAX}": RUN, f"r{RDI}": index}

    def _run_function(self, task: Task, regs: memoryview) -> int:
        index = regs[RDI]
        try:
            self._results[index] = self._functions[index](task)
        except LinuxError as error:
            self._results[index] = -error.errno
        task.work = 0
        self._left -= 1
        if not self._left:
            self.kernel.stop()
        return 0
