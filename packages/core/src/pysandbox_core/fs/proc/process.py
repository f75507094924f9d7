"""/proc/PID and /proc/PID/task/TID: the directories of processes and threads.

Interface: `ProcessDirectory(fs, target, whole)`; `whole` tells /proc/PID (the process, seen through
its leader) from /proc/PID/task/TID. The tables below say what is in them, with the access mode and
who may read. An inode stays the same object while its directory is known, and the directory's
number contains the thread's, so that it is stable; a reused pid gets a directory of its own.

Linux: tgid_base_stuff[] and tid_base_stuff[] in fs/proc/base.c.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM, ESRCH
from stat import S_IFDIR, S_IFLNK, S_IFREG
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.credentials import CAP_SYS_NICE, CAP_SYS_RESOURCE
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.inode import DirEntry, Inode
from pysandbox_core.fs.proc import memory, mounts, status
from pysandbox_core.fs.proc.access import memory_of, owner, require_access
from pysandbox_core.fs.proc.descriptors import (
    LINK_MAX,
    FdDirectory,
    FdInfoDirectory,
    path_of,
)
from pysandbox_core.fs.proc.memory import MemInode
from pysandbox_core.fs.proc.namespaces import NamespaceDirectory
from pysandbox_core.fs.pseudo import PseudoDirectory, PseudoInode, TextInode

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.task import Task

INO_SHIFT = 24
"""The number of an inode is the tid, shifted, plus its place; descriptors have the places from
1024."""
TASK_INO = 1 << 23
"""Added for /proc/PID/task/TID."""
FD_INO = 1 << 10


class Text(NamedTuple):
    """A text file of a process."""

    mode: int
    generate: Callable[[Task, Task, bool], bytes]
    errno: int = 0
    """If not 0: only who may access the process can read it, others get this."""
    store: Callable[[Task, Task, bytes], None] | None = None
    process_only: bool = False
    """Not in the directories of threads."""


def _of_memory(function: Callable[[Task, Task], bytes]) -> Callable[[Task, Task, bool], bytes]:
    return lambda reader, target, whole: function(reader, target)


def _constant(text: bytes) -> Callable[[Task, Task, bool], bytes]:
    return lambda reader, target, whole: text


def _store_comm(writer: Task, target: Task, data: bytes) -> None:
    """Only threads of the same process may. prctl(PR_SET_NAME)"""
    if writer.group is not target.group:
        raise LinuxError(EINVAL)
    target.comm = data.split(b"\0", 1)[0][:15]


def parse_integer(data: bytes) -> int:
    """What a program writes into a file that holds a number: kstrtoint(). EINVAL"""
    text = data.strip(b" \t\n\0")
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    try:
        if digits[:2].lower() == b"0x" and b"_" not in digits:
            value = int(digits, 16)
        elif digits[:1] == b"0" and digits.isdigit():
            value = int(digits, 8)
        elif digits.isdigit():
            value = int(digits)
        else:
            raise LinuxError(EINVAL)
    except ValueError:
        raise LinuxError(EINVAL) from None
    return -value if text[:1] == b"-" else value


def _read_oom_score_adj(reader: Task, target: Task, whole: bool) -> bytes:
    return b"%d\n" % target.group.oom_score_adj


def _store_oom_score_adj(writer: Task, target: Task, data: bytes) -> None:
    """proc_pid_oom_score_adj(5): lowering it needs CAP_SYS_RESOURCE."""
    value = parse_integer(data)
    if not -1000 <= value <= 1000:
        raise LinuxError(EINVAL)
    if value < target.group.oom_score_adj_min and not writer.creds.capable(CAP_SYS_RESOURCE):
        raise LinuxError(EACCES)
    target.group.oom_score_adj = value
    if writer.creds.capable(CAP_SYS_RESOURCE):
        target.group.oom_score_adj_min = value


def _read_oom_adj(reader: Task, target: Task, whole: bool) -> bytes:
    value = target.group.oom_score_adj
    return b"%d\n" % (15 if value == 1000 else int(value * 17 / 1000))


def _store_oom_adj(writer: Task, target: Task, data: bytes) -> None:
    value = parse_integer(data)
    if not -17 <= value <= 15:
        raise LinuxError(EINVAL)
    scaled = 1000 if value == 15 else int(value * 1000 / 17)
    _store_oom_score_adj(writer, target, b"%d" % scaled)


def _read_timerslack(reader: Task, target: Task, whole: bool) -> bytes:
    if reader is not target and not reader.creds.capable(CAP_SYS_NICE):
        raise LinuxError(EPERM)
    return b"%d\n" % target.timer_slack_ns


def _refuse(writer: Task, target: Task, data: bytes) -> None:
    raise LinuxError(EPERM)


def _store_nothing(writer: Task, target: Task, data: bytes) -> None:
    """Taken, without effect: there are no dumps and no page flags to clear."""
    parse_integer(data)


TEXTS: dict[bytes, Text] = {
    b"environ": Text(0o400, _of_memory(memory.environ), EACCES),
    b"auxv": Text(0o400, _of_memory(memory.auxv), EACCES),
    b"status": Text(0o444, status.status),
    b"personality": Text(0o400, status.personality, EPERM),
    b"limits": Text(0o444, status.limits),
    b"sched": Text(0o644, status.sched, 0, _store_nothing),
    b"comm": Text(0o644, status.comm_text, 0, _store_comm),
    b"syscall": Text(0o400, status.syscall, EPERM),
    b"cmdline": Text(0o444, _of_memory(memory.cmdline)),
    b"stat": Text(0o444, status.stat),
    b"statm": Text(0o444, _of_memory(memory.statm)),
    b"maps": Text(0o444, _of_memory(memory.maps), EACCES),
    b"smaps": Text(0o444, _of_memory(memory.smaps), EACCES),
    b"smaps_rollup": Text(0o444, _of_memory(memory.smaps_rollup), EACCES),
    b"clear_refs": Text(0o200, _constant(b""), 0, _store_nothing),
    b"mounts": Text(0o444, mounts.mounts),
    b"mountinfo": Text(0o444, mounts.mountinfo),
    b"mountstats": Text(0o400, mounts.mountstats, 0, None, True),
    b"wchan": Text(0o444, status.wchan),
    b"schedstat": Text(0o444, status.schedstat),
    b"cpuset": Text(0o444, _constant(b"/\n")),
    b"cgroup": Text(0o444, _constant(b"0::/\n")),
    b"oom_score": Text(0o444, status.oom_score),
    b"oom_adj": Text(0o644, _read_oom_adj, 0, _store_oom_adj),
    b"oom_score_adj": Text(0o644, _read_oom_score_adj, 0, _store_oom_score_adj),
    b"loginuid": Text(0o644, _constant(b"4294967295"), 0, _refuse),
    b"sessionid": Text(0o444, _constant(b"4294967295")),
    b"coredump_filter": Text(0o644, _constant(b"00000033\n"), 0, _store_nothing, True),
    b"io": Text(0o400, status.io, EACCES),
    b"uid_map": Text(0o644, status.id_map, 0, _refuse),
    b"gid_map": Text(0o644, status.id_map, 0, _refuse),
    b"projid_map": Text(0o644, status.id_map, 0, _refuse),
    b"setgroups": Text(0o644, _constant(b"allow\n"), 0, _refuse),
    b"timerslack_ns": Text(0o666, _read_timerslack, 0, _refuse, True),
}

# Magic links: where they lead, None for nowhere.


def _exe(fs: ProcFs, target: Task) -> Path | None:
    mm = memory_of(target)
    file = None if mm is None else mm.exe_file
    return None if file is None else path_of(fs, file)


def _cwd(fs: ProcFs, target: Task) -> Path | None:
    return None if target.exited else target.fs.cwd


def _root(fs: ProcFs, target: Task) -> Path | None:
    return None if target.exited else target.fs.root


LINKS: dict[bytes, Callable[[ProcFs, Task], Path | None]] = {
    b"exe": _exe, b"cwd": _cwd, b"root": _root,
}  # fmt: skip

DIRECTORIES = (b"fd", b"fdinfo", b"ns", b"task", b"net")
NAMES = (*DIRECTORIES, *LINKS, b"mem", *TEXTS)
"""Everything in a process's directory; a name's place here is part of its inode number."""


class ProcessDirectory(PseudoDirectory):
    """/proc/PID, or /proc/PID/task/TID."""

    nlink = 9

    def __init__(self, fs: ProcFs, target: Task, whole: bool) -> None:
        ino = (target.tid << INO_SHIFT) + (1 if whole else 1 + TASK_INO)
        super().__init__(fs, 0o555, *owner(target), ino)
        self.proc = fs
        self.target = target
        self.whole = whole
        if not whole:
            self.nlink = 7

    def is_of(self, target: Task) -> bool:
        """Is it still the directory of `target`? The thread that leads a process changes on
        exec."""
        return self.target is target

    @property
    def gone(self) -> bool:
        """The process was waited for, or the thread has ended."""
        target = self.target
        return target.kernel.tasks.get(target.tid) is not target

    def has(self, name: bytes) -> bool:
        if self.whole:
            return name in NAMES
        text = TEXTS.get(name)
        return name != b"task" and name in NAMES and not (text and text.process_only)

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        if self.gone:
            return None
        inode = self.children.get(name)
        if inode is None:
            if not self.has(name):
                return None
            inode = self.children[name] = self._make(name, self.ino + 1 + NAMES.index(name))
        self.uid, self.gid = owner(self.target)
        inode.uid, inode.gid = self.uid, self.gid
        return inode

    def _make(self, name: bytes, ino: int) -> Inode:
        fs, target = self.proc, self.target
        text = TEXTS.get(name)
        if text is not None:
            return ProcessText(fs, target, text, self.whole, ino)
        link = LINKS.get(name)
        if link is not None:
            return ProcessLink(fs, target, link, ino)
        if name in (b"fd", b"fdinfo"):
            kind = FdDirectory if name == b"fd" else FdInfoDirectory
            return kind(fs, target, self.ino + FD_INO)
        if name == b"ns":
            return NamespaceDirectory(fs, target, ino)
        if name == b"mem":
            return MemInode(fs, target, ino)
        if name == b"net":
            return fs.net
        return TaskDirectory(fs, target, ino)

    def entries(self, task: Task) -> list[DirEntry]:
        if self.gone:
            return []
        return [
            DirEntry(name, self.ino + 1 + place, _type_of(name))
            for place, name in enumerate(NAMES)
            if self.has(name)
        ]


def _type_of(name: bytes) -> int:
    if name in LINKS:
        return S_IFLNK
    return S_IFDIR if name in DIRECTORIES else S_IFREG


class ProcessText(TextInode):
    """A text file of a process."""

    def __init__(self, fs: ProcFs, target: Task, text: Text, whole: bool, ino: int) -> None:
        generate = text.generate

        def read(reader: Task) -> bytes:
            if target.kernel.tasks.get(target.tid) is not target:
                raise LinuxError(ESRCH)
            if text.errno:
                require_access(reader, target, text.errno)
            return generate(reader, target, whole)

        store = None
        if text.store is not None:
            take = text.store

            def store(writer: Task, data: bytes) -> None:
                if target.kernel.tasks.get(target.tid) is not target:
                    raise LinuxError(ESRCH)
                take(writer, target, data)

        super().__init__(fs, read, text.mode, store, *owner(target), ino)


class ProcessLink(PseudoInode):
    """/proc/PID/{exe,cwd,root}"""

    def __init__(
        self, fs: ProcFs, target: Task, where: Callable[[ProcFs, Task], Path | None], ino: int
    ) -> None:
        super().__init__(fs, S_IFLNK | 0o777, *owner(target), ino)
        self.proc = fs
        self.target = target
        self.where = where

    def follow(self, task: Task) -> Path:
        from errno import ENOENT

        require_access(task, self.target)
        path = self.where(self.proc, self.target)
        if path is None:
            raise LinuxError(ENOENT)
        return path

    def readlink(self, task: Task) -> bytes:
        return self.follow(task).absolute(task.fs.root, LINK_MAX)


class TaskDirectory(PseudoDirectory):
    """/proc/PID/task"""

    def __init__(self, fs: ProcFs, target: Task, ino: int) -> None:
        super().__init__(fs, 0o555, *owner(target), ino)
        self.proc = fs
        self.target = target

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        thread = self.proc.find_task(name)
        if thread is None or thread.group is not self.target.group:
            return None
        known = self.children.get(name)
        if not isinstance(known, ProcessDirectory) or not known.is_of(thread):
            known = self.children[name] = ProcessDirectory(self.proc, thread, False)
        return known

    def entries(self, task: Task) -> list[DirEntry]:
        group = self.target.group
        threads = group.tasks or [self.target]
        return [
            DirEntry(b"%d" % thread.tid, (thread.tid << INO_SHIFT) + 1 + TASK_INO, S_IFDIR)
            for thread in threads
        ]
