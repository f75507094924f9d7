"""/dev: the memory devices, the terminal nodes, and which driver answers a device number.

Interface: `open_device` opens a character device inode of any file system; `DevFs` is the tree that
is mounted on /dev. `kernel.devpts` is the pty file system, `kernel.console` the tty that the
caller's terminal is, None if there is none.

Linux: drivers/char/mem.c, drivers/char/random.c, Documentation/admin-guide/devices.txt.
"""

from __future__ import annotations

import os
from errno import EFAULT, EINVAL, ENODEV, ENOSPC, ENOTTY, ENXIO, EPERM
from stat import S_IFCHR, S_IFDIR
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.credentials import CAP_SYS_ADMIN
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.tmpfs import TmpDirectory, TmpFs, TmpSpecial, TmpSymlink
from pysandbox_core.mm.mappable import MemoryMappable
from pysandbox_core.waiting import POLLIN, POLLRDNORM, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

# linux/random.h
RNDGETENTCNT = 0x80045200
RNDADDTOENTCNT = 0x40045201
RNDADDENTROPY = 0x40085203
RNDZAPENTCNT = 0x5204
RNDCLEARPOOL = 0x5206
RNDRESEEDCRNG = 0x5207

ENTROPY_BITS = 256
"""What a ready pool reports, always."""

_ZEROS = bytes(1 << 16)
_INT = Struct("<i")
RANDOM_CHUNK = 1 << 16
"""Bytes that the host is asked for at a time."""


class CharacterDevice(FileDescription):
    """An open device without a position: lseek(2) succeeds and stays at 0, pread(2) works."""

    __slots__ = ()

    def seek(self, task: Task, offset: int, whence: int) -> int:
        return 0

    @property
    def seekable(self) -> bool:
        return True

    @property
    def pollable(self) -> bool:
        return False


class NullFile(CharacterDevice):
    """/dev/null. null(4)"""

    __slots__ = ()

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        return 0

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        return source.remaining  # the data is not even looked at, so no EFAULT


class ZeroFile(NullFile):
    """/dev/zero; also maps: each mmap(2) gets memory of its own."""

    __slots__ = ()

    MAPPED_SIZE = 1 << 62

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        total = 0
        turn = Turn(task)
        while sink.remaining:
            length = min(sink.remaining, len(_ZEROS))
            count = sink.write(_ZEROS if length == len(_ZEROS) else _ZEROS[:length])
            total += count
            if count < length or (sink.remaining and not turn.goes_on()):
                break
        return total

    def mappable(self, task: Task) -> Mappable:
        return MemoryMappable(task.kernel.memory_file, self.MAPPED_SIZE)


class FullFile(ZeroFile):
    """/dev/full. full(4)"""

    __slots__ = ()

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        raise LinuxError(ENOSPC)

    def mappable(self, task: Task) -> Mappable:
        raise LinuxError(ENODEV)


def write_random(task: Task, sink: Sink) -> int:
    """Fill `sink` with random bytes of the host's; how many. A signal may end it early."""
    total = 0
    turn = Turn(task)
    while sink.remaining:
        length = min(sink.remaining, RANDOM_CHUNK)
        count = sink.write(os.urandom(length))
        total += count
        if count < length or (sink.remaining and not turn.goes_on()):
            break
    return total


class UrandomFile(CharacterDevice):
    """/dev/urandom: the host's random numbers. random(4)"""

    __slots__ = ()

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        return write_random(task, sink)

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        total = 0
        turn = Turn(task)
        while source.remaining:
            count = len(source.read(min(source.remaining, RANDOM_CHUNK)))
            total += count
            if count < RANDOM_CHUNK or not turn.goes_on():
                break
        return total

    def seek(self, task: Task, offset: int, whence: int) -> int:
        return self.offset

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        if request == RNDGETENTCNT:
            task.mm.write(argument, _INT.pack(ENTROPY_BITS))
            return 0
        if request in (RNDADDTOENTCNT, RNDADDENTROPY, RNDZAPENTCNT, RNDCLEARPOOL, RNDRESEEDCRNG):
            if not task.creds.capable(CAP_SYS_ADMIN):
                raise LinuxError(EPERM)
            if request == RNDADDENTROPY:
                return self._add_entropy(task, argument)
            if request == RNDADDTOENTCNT and task.mm.read_s32(argument) < 0:
                raise LinuxError(EINVAL)
            return 0
        raise LinuxError(ENOTTY)

    def _add_entropy(self, task: Task, argument: int) -> int:
        """struct rand_pool_info is taken and checked; the host's pool is nobody's to change."""
        entropy_count = task.mm.read_s32(argument)
        size = task.mm.read_s32(argument + 4)
        if entropy_count < 0 or size < 0:
            raise LinuxError(EINVAL)
        if self.write(task, task.mm.source(argument + 8, size)) < size:
            raise LinuxError(EFAULT)
        return 0


class RandomFile(UrandomFile):
    """/dev/random: the same, but poll(2) tells that there is entropy."""

    __slots__ = ()

    @property
    def pollable(self) -> bool:
        return True

    def poll(self) -> int:
        return POLLIN | POLLRDNORM


def _open_tty(task: Task, path: Path, inode: Inode, flags: int) -> FileDescription:
    """/dev/tty: the controlling terminal, whichever it is. tty(4)"""
    from pysandbox_core.fs.tty import controlling_tty

    tty = controlling_tty(task)
    if tty is None:
        raise LinuxError(ENXIO)
    return tty.open(task, path, inode, flags | os.O_NOCTTY)


def _open_console(task: Task, path: Path, inode: Inode, flags: int) -> FileDescription:
    """/dev/console: the caller's terminal; never becomes the controlling one by being opened."""
    tty = task.kernel.console
    if tty is None:
        raise LinuxError(ENODEV)
    return tty.open(task, path, inode, flags | os.O_NOCTTY)


def _open_ptmx(task: Task, path: Path, inode: Inode, flags: int) -> FileDescription:
    return task.kernel.devpts.open_master(task, path, inode, flags)


def _open_pts(task: Task, path: Path, inode: Inode, flags: int) -> FileDescription:
    return task.kernel.devpts.open_slave(task, path, inode, flags, os.minor(inode.rdev))


def _opens(kind: type[FileDescription]) -> Callable[[Task, Path, Inode, int], FileDescription]:
    return lambda task, path, inode, flags: kind(flags, inode, path)


NULL = os.makedev(1, 3)
ZERO = os.makedev(1, 5)
FULL = os.makedev(1, 7)
RANDOM = os.makedev(1, 8)
URANDOM = os.makedev(1, 9)
TTY = os.makedev(5, 0)
CONSOLE = os.makedev(5, 1)
PTMX = os.makedev(5, 2)
PTS_MAJOR = 136

DRIVERS: dict[int, Callable[[Task, Path, Inode, int], FileDescription]] = {
    NULL: _opens(NullFile),
    ZERO: _opens(ZeroFile),
    FULL: _opens(FullFile),
    RANDOM: _opens(RandomFile),
    URANDOM: _opens(UrandomFile),
    TTY: _open_tty,
    CONSOLE: _open_console,
    PTMX: _open_ptmx,
}


def open_device(task: Task, path: Path, inode: Inode, flags: int) -> FileDescription:
    """Open the character device `inode`. ENXIO where no driver has its number."""
    driver = DRIVERS.get(inode.rdev)
    if driver is None:
        if os.major(inode.rdev) != PTS_MAJOR:
            raise LinuxError(ENXIO)
        driver = _open_pts
    return driver(task, path, inode, flags)


class DevFs(TmpFs):
    """What is mounted on /dev: a tmpfs with the nodes in it, as devtmpfs is. The mount points pts,
    shm and mqueue are empty directories here."""

    type_name = b"devtmpfs"

    TTY_GID = 5

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, mode=0o755)
        root = self.root
        assert isinstance(root, TmpDirectory)
        for name, rdev in (
            (b"null", NULL), (b"zero", ZERO), (b"full", FULL), (b"random", RANDOM),
            (b"urandom", URANDOM), (b"ptmx", PTMX),
        ):  # fmt: skip
            root.add(name, TmpSpecial(self, S_IFCHR | 0o666, 0, 0, rdev))
        root.add(b"tty", TmpSpecial(self, S_IFCHR | 0o666, 0, self.TTY_GID, TTY))
        self.console = TmpSpecial(self, S_IFCHR | 0o600, 0, 0, CONSOLE)
        root.add(b"console", self.console)
        for name, target in (
            (b"fd", b"/proc/self/fd"), (b"stdin", b"/proc/self/fd/0"),
            (b"stdout", b"/proc/self/fd/1"), (b"stderr", b"/proc/self/fd/2"),
        ):  # fmt: skip
            root.add(name, TmpSymlink(self, target, 0, 0))
        for name, mode in ((b"pts", 0o755), (b"shm", 0o1777), (b"mqueue", 0o1777)):
            root.add(name, self.new_directory(S_IFDIR | mode, 0, 0))

    def options(self) -> bytes:
        return b"mode=755"
