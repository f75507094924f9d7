"""A kernel booted for real on the fake platform, and processes in it that tests speak for."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from fake_platform import FakePlatform
from pysandbox_core import boot, task_clone
from pysandbox_core.config import SandboxConfig, User
from pysandbox_core.credentials import Credentials
from pysandbox_core.fs.context import FsContext
from pysandbox_core.fs.fd_table import FdTable
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.kernel import Kernel
from pysandbox_core.mm.io_buffer import BytesSink, BytesSource
from pysandbox_core.mm.memory_manager import MemoryManager
from pysandbox_core.task import Task
from pysandbox_platform import PROT_READ, PROT_WRITE

AT_FDCWD = -100
MAP_PRIVATE_ANONYMOUS = 0x22


class LooplessKernel(Kernel):
    """Handlers are called from outside: one that has had its Turn has nobody to make way for."""

    def park(self, task: Task) -> None: ...


class World:
    """A booted kernel; its root is an empty directory of the host's."""

    def __init__(self, root: Path, memory: int | None = None) -> None:
        root.chmod(0o755)
        config = SandboxConfig(
            rootfs=os.fsencode(root), user=User(1000, 1000), hostname=b"box", memory=memory
        )
        self.kernel = LooplessKernel(config, FakePlatform())
        boot.boot(self.kernel)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        del self.kernel.clocks  # it has a view of the memory
        self.kernel.memory_file.close()
        self.kernel.reactor.close()

    def process(self, uid: int = 1000, comm: bytes = b"program") -> Process:
        """Another process, in a session of its own."""
        kernel = self.kernel
        root = kernel.mounts.root
        task = task_clone.new_process(
            kernel,
            mm=MemoryManager(kernel, None, kernel.platform.new_address_space()),
            files=FdTable(),
            fs=FsContext(root, root),
            creds=Credentials.for_user(uid, uid),
            comm=comm,
        )
        return Process(task)


class Process:
    """A process that a test speaks for: it does what its program would."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.scratch = task.mm.mmap(
            task, 0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, None, 0
        )
        """Address of memory to pass arguments in."""

    @property
    def pid(self) -> int:
        return self.task.group.pid

    def open(self, path: bytes, flags: int = os.O_RDONLY) -> FileDescription:
        found = resolve(self.task, AT_FDCWD, path)
        return found.inode.open(self.task, found, flags)

    def read(self, path: bytes) -> bytes:
        """All of a file."""
        file = self.open(path)
        text = b""
        while part := self.read_file(file, 1000):
            text += part
        file.decref()
        return text

    def read_file(self, file: FileDescription, limit: int = 1 << 20) -> bytes:
        sink = BytesSink(limit)
        file.read(self.task, sink)
        return sink.data

    def write(self, path: bytes, data: bytes) -> int:
        file = self.open(path, os.O_WRONLY)
        try:
            return file.write(self.task, BytesSource(data))
        finally:
            file.decref()

    def write_file(self, file: FileDescription, data: bytes) -> int:
        return file.write(self.task, BytesSource(data))

    def readlink(self, path: bytes) -> bytes:
        return resolve(self.task, AT_FDCWD, path, follow=False).inode.readlink(self.task)

    def names(self, path: bytes) -> list[bytes]:
        file = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return [entry.name for entry in file.entries(self.task)]
        finally:
            file.decref()

    def ioctl(self, file: FileDescription, request: int, argument: bytes | int = 0) -> bytes:
        """An ioctl whose argument is in memory, or a number; what is in memory afterwards."""
        if isinstance(argument, int):
            file.ioctl(self.task, request, argument)
            return b""
        self.task.mm.write(self.scratch, argument)
        file.ioctl(self.task, request, self.scratch)
        return self.task.mm.read(self.scratch, len(argument))
