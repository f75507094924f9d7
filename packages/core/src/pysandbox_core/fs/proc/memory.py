"""/proc/PID: what tells about a process's memory: maps, smaps, statm, cmdline, environ, auxv, mem.

Interface: functions (reader, target) -> text; they give b"" for a process without memory (a
zombie). Who may read them is checked by the table in process.py.

Linux: fs/proc/task_mmu.c, get_mm_cmdline() in fs/proc/base.c.
"""

from __future__ import annotations

from errno import EINVAL, EIO
from os import SEEK_CUR, SEEK_SET, major, minor
from stat import S_IFREG
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_platform import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.proc.access import memory_of, owner, require_access
from pysandbox_core.fs.proc.descriptors import describe
from pysandbox_core.fs.pseudo import PseudoInode
from pysandbox_core.mm.vma import (
    VM_DONTDUMP,
    VM_DONTFORK,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_NORESERVE,
    VM_RANDOM,
    VM_SEQUENTIAL,
    VM_SHARED,
    VM_WIPEONFORK,
)
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.mm.vma import Vma
    from pysandbox_core.task import Task

NAME_COLUMN = 73
"""Where the name begins in a line of maps: 25 characters and 6 longs."""


def maps(reader: Task, target: Task) -> bytes:
    """/proc/PID/maps"""
    mm = memory_of(target)
    if mm is None:
        return b""
    files = _Files(reader)
    return b"".join(_map_line(files, mm, start, end, vma) for start, end, vma in mm.vmas)


class _Files:
    """What lines of maps tell of the files, looked up once for each: one that is mapped in ten
    thousand pieces may consist of as many, which its stat(2) counts."""

    def __init__(self, reader: Task) -> None:
        self._reader = reader
        self._numbers: dict[Inode, tuple[int, int]] = {}
        self._names: dict[FileDescription, bytes] = {}

    def numbers(self, file: FileDescription) -> tuple[int, int]:
        """Device and inode number."""
        found = self._numbers.get(file.inode)
        if found is None:
            attributes = file.stat()
            found = self._numbers[file.inode] = attributes.dev, attributes.ino
        return found

    def name(self, file: FileDescription) -> bytes:
        found = self._names.get(file)
        if found is None:
            found = describe(self._reader, file).replace(b"\n", b"\\012")
            self._names[file] = found
        return found


def _map_line(files: _Files, mm: MemoryManager, start: int, end: int, vma: Vma) -> bytes:
    """One line: range, permissions, offset, device, inode, name. proc_pid_maps(5)"""
    prot = vma.prot
    dev = ino = offset = 0
    if vma.backing is not None:
        offset = vma.delta + start
        if vma.backing.file is not None:
            dev, ino = files.numbers(vma.backing.file)
    line = b"%08x-%08x %c%c%c%c %08x %02x:%02x %d " % (
        start, end,
        b"r" if prot & PROT_READ else b"-",
        b"w" if prot & PROT_WRITE else b"-",
        b"x" if prot & PROT_EXEC else b"-",
        b"s" if vma.flags & VM_SHARED else b"p",
        offset, major(dev), minor(dev), ino,
    )  # fmt: skip
    name = _map_name(files, mm, start, end, vma)
    return (line.ljust(NAME_COLUMN) + name if name else line) + b"\n"


def _map_name(files: _Files, mm: MemoryManager, start: int, end: int, vma: Vma) -> bytes:
    if vma.name:
        return vma.name
    if vma.backing is not None:
        if vma.backing.file is None:
            return b"/dev/zero (deleted)"  # what Linux keeps shared anonymous memory in
        return files.name(vma.backing.file)
    if start < mm.brk and end > mm.start_brk:
        return b"[heap]"
    if start <= mm.start_stack < end:
        return b"[stack]"
    return b""


def _resident(mm: MemoryManager, start: int, end: int) -> tuple[int, int]:
    """Bytes of the range that are present, and how many of them are a host file's."""
    of_file = 0
    for first, last, piece in mm.pages.within(start, end):
        if piece.source is not None and not piece.source.in_memory_file:
            of_file += last - first
    return mm.resident(start, end), of_file


def smaps(reader: Task, target: Task) -> bytes:
    """/proc/PID/smaps"""
    mm = memory_of(target)
    if mm is None:
        return b""
    parts = []
    files = _Files(reader)
    for start, end, vma in mm.vmas:
        parts.append(_map_line(files, mm, start, end, vma))
        parts.append(_smaps_size(end - start))
        parts.append(_smaps_counts(*_resident(mm, start, end)))
        parts.append(_smaps_flags(vma))
    return b"".join(parts)


def smaps_rollup(reader: Task, target: Task) -> bytes:
    """/proc/PID/smaps_rollup"""
    mm = memory_of(target)
    if mm is None or not len(mm.vmas):
        return b""
    ranges = [(start, end) for start, end, _ in mm.vmas]
    head = b"%08x-%08x ---p 00000000 00:00 0 " % (ranges[0][0], ranges[-1][1])
    counts = _smaps_counts(*_resident(mm, ranges[0][0], ranges[-1][1]), rollup=True)
    return head.ljust(NAME_COLUMN) + b"[rollup]\n" + counts


def _smaps_size(size: int) -> bytes:
    page = PAGE_SIZE >> 10
    rows = ((b"Size:", size >> 10), (b"KernelPageSize:", page), (b"MMUPageSize:", page))
    return b"".join(b"%-16s%8d kB\n" % row for row in rows)


def _smaps_counts(resident: int, of_file: int, rollup: bool = False) -> bytes:
    """The counters below a line of maps. Pages are counted as the process's own, a file's as
    clean."""
    total, clean, anonymous = resident >> 10, of_file >> 10, (resident - of_file) >> 10
    rows = [
        (b"Rss:", total), (b"Pss:", total), (b"Pss_Dirty:", anonymous), (b"Shared_Clean:", 0),
        (b"Shared_Dirty:", 0), (b"Private_Clean:", clean), (b"Private_Dirty:", anonymous),
        (b"Referenced:", total), (b"Anonymous:", anonymous), (b"KSM:", 0), (b"LazyFree:", 0),
        (b"AnonHugePages:", 0), (b"ShmemPmdMapped:", 0), (b"FilePmdMapped:", 0),
        (b"Shared_Hugetlb:", 0), (b"Private_Hugetlb:", 0), (b"Swap:", 0), (b"SwapPss:", 0),
        (b"Locked:", 0),
    ]  # fmt: skip
    if rollup:
        rows[3:3] = [(b"Pss_Anon:", anonymous), (b"Pss_File:", clean), (b"Pss_Shmem:", 0)]
    return b"".join(b"%-16s%8d kB\n" % row for row in rows)


def _smaps_flags(vma: Vma) -> bytes:
    prot, flags = vma.prot, vma.flags
    names = (
        (prot & PROT_READ, b"rd"), (prot & PROT_WRITE, b"wr"), (prot & PROT_EXEC, b"ex"),
        (flags & VM_SHARED, b"sh"), (vma.max_prot & PROT_READ, b"mr"),
        (vma.max_prot & PROT_WRITE, b"mw"), (vma.max_prot & PROT_EXEC, b"me"),
        (flags & VM_SHARED, b"ms"), (flags & VM_GROWSDOWN, b"gd"), (flags & VM_LOCKED, b"lo"),
        (flags & VM_SEQUENTIAL, b"sr"), (flags & VM_RANDOM, b"rr"),
        (flags & VM_DONTFORK, b"dc"), (flags & VM_NORESERVE, b"nr"),
        (flags & VM_WIPEONFORK, b"wf"), (flags & VM_DONTDUMP, b"dd"),
    )  # fmt: skip
    text = b"".join(name + b" " for value, name in names if value)
    return b"THPeligible:           0\nVmFlags: " + text + b"\n"


class Sizes(NamedTuple):
    """What an address space amounts to, in bytes. Names as in /proc/PID/status."""

    total: int
    resident: int
    of_file: int
    data: int
    stack: int
    text: int
    library: int


def sizes(mm: MemoryManager) -> Sizes:
    """Add up an address space."""
    resident, of_file = _resident(mm, 0, mm.task_size)
    stack = executable = 0
    for start, end, vma in mm.vmas:
        if vma.flags & VM_GROWSDOWN:
            stack += end - start
        elif vma.prot & PROT_EXEC and not vma.prot & PROT_WRITE and vma.backing is not None:
            executable += end - start
    text = (mm.end_code + PAGE_SIZE - 1 & -PAGE_SIZE) - (mm.start_code & -PAGE_SIZE)
    text = min(text, executable)
    return Sizes(mm.total_bytes, resident, of_file, mm.data_bytes, stack, text, executable - text)


def statm(reader: Task, target: Task) -> bytes:
    """/proc/PID/statm: size resident shared text lib data dt, in pages."""
    mm = memory_of(target)
    if mm is None:
        return b"0 0 0 0 0 0 0\n"
    total, resident, of_file, data, stack, text, _ = (length // PAGE_SIZE for length in sizes(mm))
    return b"%d %d %d %d 0 %d 0\n" % (total, resident, of_file, text, data + stack)


def cmdline(reader: Task, target: Task) -> bytes:
    """/proc/PID/cmdline: the arguments as they are in memory now, a NUL after each.

    "If, after an execve(2), the process modifies its argv strings, those changes will show up
    here": where the NUL at the end is overwritten, a title written over the arguments and on into
    the environment is shown up to its own NUL, as setproctitle(3) wants.
    """
    mm = memory_of(target)
    if mm is None or mm.arg_end <= mm.arg_start:
        return b""
    try:
        text = mm.read(mm.arg_start, mm.arg_end - mm.arg_start)
        if text[-1:] == b"\0" or mm.env_start != mm.arg_end:
            return text
        title = mm.read(mm.arg_start, min(mm.env_end - mm.arg_start, len(text) + PAGE_SIZE))
    except LinuxError:
        return b""  # unmapped by the process
    end = title.find(b"\0")
    return title if end < 0 else title[: end + 1]


def environ(reader: Task, target: Task) -> bytes:
    """/proc/PID/environ"""
    mm = memory_of(target)
    if mm is None or mm.env_end <= mm.env_start:
        return b""
    try:
        return mm.read(mm.env_start, mm.env_end - mm.env_start)
    except LinuxError as error:
        raise LinuxError(EIO) from error


def auxv(reader: Task, target: Task) -> bytes:
    """/proc/PID/auxv"""
    mm = memory_of(target)
    return b"" if mm is None else mm.auxv


class MemInode(PseudoInode):
    """/proc/PID/mem"""

    def __init__(self, fs: ProcFs, target: Task, ino: int) -> None:
        super().__init__(fs, S_IFREG | 0o600, *owner(target), ino)
        self.target = target

    def truncate(self, length: int) -> None:
        """Without effect."""

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        require_access(task, self.target)
        return MemFile(flags, self, path)


class MemFile(FileDescription):
    """An open /proc/PID/mem: the memory that the process had when it was opened."""

    __slots__ = ("mm",)
    inode: MemInode

    def __init__(self, flags: int, inode: MemInode, path: Path | None = None) -> None:
        super().__init__(flags, inode, path)
        self.mm = memory_of(inode.target)

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        position = self.offset if offset is None else offset
        total = 0
        turn = Turn(task)
        while sink.remaining and (data := self._peek(position + total, sink.remaining)):
            count = sink.write(data)
            total += count
            if count < len(data) or not turn.goes_on(killable_only=True):
                break
        if offset is None:
            self.offset = position + total
        return total

    def _peek(self, addr: int, length: int) -> bytes:
        """At most a page of the memory at `addr`; EIO where there is none. b"" when it is gone"""
        if self.mm is None or self.inode.target.exited:
            return b""
        try:
            return self.mm.read(addr, min(length, PAGE_SIZE - addr % PAGE_SIZE))
        except LinuxError as error:
            raise LinuxError(EIO) from error

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        position = self.offset if offset is None else offset
        if self.mm is None or self.inode.target.exited:
            return 0
        data = source.read(min(source.remaining, PAGE_SIZE - position % PAGE_SIZE))
        try:
            self.mm.write(position, data)
        except LinuxError as error:
            raise LinuxError(EIO) from error
        if offset is None:
            self.offset = position + len(data)
        return len(data)

    def seek(self, task: Task, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset += self.offset
        elif whence != SEEK_SET:
            raise LinuxError(EINVAL)
        self.offset = offset & 0xFFFFFFFFFFFFFFFF  # every address can be sought
        return self.offset

    @property
    def seekable(self) -> bool:
        return True
