"""KernelMemory: what the kernel's own objects take, held against the sandbox's memory limit.

A program makes the kernel keep things: open files, buffered bytes, mappings, names, tasks. They are
Python objects, whose size nobody can add up exactly. So the truth is measured: the anonymous memory
that the host says this process has, less what it had when the sandbox had booted. What makes the
kernel grow says so beforehand, by `grow`, with about how much; that is an addition and a
comparison, and it decides only when to measure next, a mebibyte later at most. Nothing is to be
said when memory is let go of, so nothing can be forgotten. What the host's own kernel keeps for
programs' address spaces (page tables) and tasks (a stub's thread) is estimated and added, and the
page tables of this process, which grow with what it reaches of programs' memory, measured.

With a limit of the sandbox's memory, kernel objects and programs' pages count against it together.
Without one, kernel objects have a bound of their own (`default_bound`). At the limit garbage is
collected and the process that has most is killed (oom.py), or the call fails with ENOMEM.

Behind it stands a limit of the host's (`set_backstop`): if this process ever grows beyond what is
said here, it gets a MemoryError and the sandbox ends with a report.

Interface: `grow(amount)` before anything is made whose number or size the program decides, where
LinuxError(ENOMEM) can be raised.

Linux: mm/memcontrol.c, which charges kernel objects to a control group (memory.kmem).
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from errno import ENOMEM
from resource import RLIMIT_DATA, RLIMIT_NOFILE, getrlimit, setrlimit
from typing import TYPE_CHECKING, Final

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import ThreadGroup

# About what one object takes, in bytes: hints for `grow`.
HOST_THREAD: Final = 28 << 10
"""What the host keeps for a thread, where the platform needs one for it (`Platform.host_bytes`)."""
TASK: Final = (12 << 10) + HOST_THREAD
"""A thread, blocked in a call."""
OPEN_FILE: Final = 1200
INODE: Final = 1200
NAME: Final = 400
"""A dentry."""
MAPPING: Final = 400
"""A VMA or a run of pages."""
SMALL: Final = 300
"""A watch, a lock, a queued signal, a message without its text."""

ALLOWANCE = 16 << 20
"""Bytes that the kernel may grow by for itself: modules, caches, free lists."""
FILES_RESERVED = 256
"""Descriptors of the host's that the kernel keeps for itself: every host file that a program has
open takes one. The platform has its share besides (`Platform.lost_fd`)."""
_PLATFORM_SHARE = 8
STEP = 1 << 20
_STEP_MIN = 1 << 16
_M_MMAP_THRESHOLD = -3
_TABLES_MANY = 1 << 20
_TABLES_SELDOM = 4
"""Of so many times that memory is measured, page tables are once, while there is ample room: asking
the host for them costs more than all the rest."""
_LARGE = 1 << 20
"""Bytes of a block that is mapped by itself."""
_OVERDRAFT = 16 << 20
"""Bytes beyond the limit that may be taken while somebody is dying for it."""
_BOUND_MAX = 2 << 30
_BACKSTOP_ROOM = 512 << 20
"""Beyond the bound: stacks of threads, and what the platform's library keeps."""


def default_bound() -> int:
    """Bytes that kernel objects may take where no limit was asked for: a quarter of the host's
    memory, at most 2 GiB."""
    return min(_BOUND_MAX, os.sysconf("SC_PHYS_PAGES") * PAGE_SIZE // 4)


class KernelMemory:
    """Of one kernel. Measures nothing, and so limits nothing, before `start`."""

    __slots__ = (
        "_base", "_expected", "_hinted", "_kernel", "_retained", "_statm", "_status", "_step",
        "_tables", "_tables_base", "_updates", "bound", "max_files", "taken", "victims",
    )  # fmt: skip

    def __init__(self, kernel: Kernel) -> None:
        self._statm = self._status = -1
        self._kernel = kernel
        limit = kernel.config.memory
        self.bound = default_bound() if limit is None else limit
        """Bytes at which something has to go."""
        self.max_files = 1 << 20
        """Open files of all processes together: file-max."""
        self.taken = 0
        """Bytes, when it was last measured."""
        self.victims: list[ThreadGroup] = []
        """Processes killed for their memory that may not be gone yet."""
        self._hinted = 0
        """Bytes announced since."""
        self._step = STEP
        self._base = self._tables = self._tables_base = 0
        self._updates = 0
        """How often it was measured; page tables are not looked at each time."""
        self._retained = 0
        """Bytes that were let go of and that the allocator keeps for reuse."""
        self._expected: int | None = None
        """Bytes that are taken now if the process killed last has given back all it had, and what
        was announced since has come; None when nobody was killed since it was last looked at."""

    def start(self) -> None:
        """What there is now is not the program's. Where /proc can't be read there is the backstop
        alone."""
        files = getrlimit(RLIMIT_NOFILE)[0]
        if files > 0:  # RLIM_INFINITY is -1
            files -= files // _PLATFORM_SHARE
            self.max_files = min(self.max_files, max(files - FILES_RESERVED, files // 2))
        with suppress(OSError):
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
            self._base = self._anonymous() + ALLOWANCE
            self._tables_base = self._page_tables()
            self._kernel.memory_file.remeasure = self._remeasure
            _map_large_blocks()

    def __del__(self) -> None:
        for fd in (self._statm, self._status):
            if fd >= 0:
                os.close(fd)

    def set_backstop(self) -> None:
        """Have the host refuse this process more than the bound and ample room. setrlimit(2)"""
        if self._statm < 0:
            data = 0
        else:
            data = int(os.pread(self._statm, 128, 0).split()[5]) * PAGE_SIZE
        wanted = data + ALLOWANCE + self.bound + self.bound // 2 + _BACKSTOP_ROOM
        hard = getrlimit(RLIMIT_DATA)[1]
        if hard < 0 or wanted < hard:  # RLIM_INFINITY is -1
            setrlimit(RLIMIT_DATA, (wanted, wanted))

    def grow(self, amount: int, *, kill: bool = True) -> None:
        """About `amount` bytes more are going to be kept. ENOMEM at the limit; with `kill`, only if
        no process can be killed for it."""
        self._hinted += amount
        if self._hinted >= self._step:
            self._measure(kill)

    def announce(self, amount: int) -> None:
        """As `grow`, in the middle of something that can't fail: the next `grow` sees to it."""
        self._hinted += amount

    def _anonymous(self) -> int:
        """Bytes of memory that are this process's alone. proc_pid_statm(5)"""
        _, resident, shared, _ = os.pread(self._statm, 128, 0).split(b" ", 3)
        return (int(resident) - int(shared)) * PAGE_SIZE

    def _page_tables(self) -> int:
        """Bytes of page tables that the host keeps for this process. proc_pid_status(5)"""
        _, _, found = os.pread(self._status, 1 << 14, 0).partition(b"\nVmPTE:")
        return int(found.split(None, 1)[0]) << 10 if found else 0

    def _update(self) -> int:
        """Measure; by how much the limit is exceeded, negative if there is room."""
        memory_file = self._kernel.memory_file
        self._hinted = 0
        self.taken = max(0, self._anonymous() - self._base)
        of_the_host = sum(space.host_bytes() for space in memory_file.spaces)
        of_the_host += self._kernel.platform.host_bytes()
        taken = max(0, self.taken - self._retained) + of_the_host
        limit = self.bound if memory_file.limit is None else memory_file.limit
        granted = 0 if memory_file.limit is None else memory_file.granted
        self._updates += 1
        if self._updates % _TABLES_SELDOM == 0 or granted + taken + self._tables > limit * 3 // 4:
            self._tables = max(0, self._page_tables() - self._tables_base)
        if memory_file.limit is not None:
            memory_file.reserved = taken + self._tables
        return granted + taken + self._tables - limit

    def _measure(self, kill: bool) -> None:
        if self._statm < 0:
            return
        announced = self._hinted
        excess = self._update()
        if self._expected is not None:
            self._expected += announced
        if excess + announced <= 0:
            self._step = min(STEP, max(_STEP_MIN, -excess // 4))
            self._retained = min(self._retained, self.taken)
            return
        self._step = _STEP_MIN
        from pysandbox_core import oom

        if not oom.dying(self._kernel):
            self._relieve(announced, kill)
        elif excess + announced > _OVERDRAFT:
            raise LinuxError(ENOMEM)

    def _remeasure(self) -> None:
        """Frames are short: what was let go of meanwhile counts no more."""
        from pysandbox_core import oom

        _trim_heap()
        self._trim_tables()
        excess = self._update()
        if excess > 0 and self._expected is not None and not oom.dying(self._kernel):
            self._forgive(excess)

    def _forgive(self, excess: int) -> None:
        """Somebody was killed, and this process has not become smaller by as much: his objects are
        gone, but a few that live lie between. That is free memory, and taken again before the host
        is asked for more."""
        assert self._expected is not None
        stuck = min(self.taken - self._expected, excess) + STEP
        self._retained = min(self._retained + max(stuck, 0), self.bound // 2)
        self._expected = None
        self._update()

    def _relieve(self, announced: int, kill: bool) -> None:
        """The limit is reached and nobody is dying for it: make room."""
        from pysandbox_core import oom

        kernel = self._kernel
        kernel.memory_file.reclaim()
        kernel.mounts.dentries.sweep()
        gc.collect()
        _trim_heap()
        self._trim_tables()
        excess = self._update() + announced
        if excess > 0 and self._expected is not None:
            self._forgive(excess)
            excess = self._update() + announced
        self._expected = None
        if excess <= 0:
            return
        if kill and (victim := oom.kill_biggest(kernel)) is not None:
            self._expected = self.taken - oom.kernel_bytes(victim)
            return
        kernel.account.reach("memory", "a call that needs memory of the kernel's failed")
        raise LinuxError(ENOMEM)

    def _trim_tables(self) -> None:
        """Give the host back page tables, if there are many: those that are needed come again."""
        if self._page_tables() - self._tables_base > _TABLES_MANY:
            self._kernel.memory_file.map_anew()


def _map_large_blocks() -> None:
    """Have the C library's allocator give back what is large when it is freed. By itself it would
    raise its threshold with the first such block, and keep the next ones."""
    from pysandbox_core.host_calls import mallopt

    mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _trim_heap() -> None:
    """Give the host back what the C library's allocator keeps."""
    from pysandbox_core.host_calls import malloc_trim

    malloc_trim()
