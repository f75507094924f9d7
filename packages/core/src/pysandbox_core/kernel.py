"""Kernel: everything one sandbox owns, and the greenlets that carry its loop.

Interface: made, run and closed on one thread, the kernel thread; all state in the sandbox belongs
to it. `run` returns when `stop` was called.

The essay on waiting. A handler that waits keeps its Python stack, so something else must carry the
loop on. Threads would need locks; async code would split every handler in two colours; greenlets
cost a stack switch, and only when a wait happens. So the loop is a function that any greenlet
can run: `park` remembers the waiting one in its task and switches to a spare loop; when the task is
ready, whichever loop runs then becomes spare and switches back.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from os import makedev
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from pysandbox_core import loop
from pysandbox_core.accounting import Account
from pysandbox_core.kernel_memory import KernelMemory
from pysandbox_core.reactor import Reactor
from pysandbox_core.timers import Timers

if TYPE_CHECKING:
    from pysandbox_platform import Context, Platform

    from pysandbox_core.config import SandboxConfig
    from pysandbox_core.declare import Entry
    from pysandbox_core.fs.devpts import DevPts
    from pysandbox_core.fs.mount import MountNamespace
    from pysandbox_core.fs.proc import ProcFs
    from pysandbox_core.fs.tty import Tty
    from pysandbox_core.loader.vdso import VdsoPages
    from pysandbox_core.mm.memory_file import MemoryFile
    from pysandbox_core.net.network import Network
    from pysandbox_core.sessions import ProcessGroup, Session
    from pysandbox_core.task import Task, ThreadGroup
    from pysandbox_core.time.clocks import Clocks


class Kernel:
    """One sandbox's kernel on one platform."""

    SPARE_LOOPS = 16
    """Loop greenlets kept for reuse; more are let go."""

    def __init__(self, config: SandboxConfig, platform: Platform) -> None:
        self.config = config
        self.platform = platform
        self.table: list[Entry] = []
        """Entry by system-call number; the last one answers every number out of range."""
        self.ready: deque[Task] = deque()
        """Tasks that may go on: parked ones whose wait is over, and new ones."""
        self.running = 0
        """Contexts resumed whose stop has not been handled."""
        self.early_stops: deque[Context] = deque()
        """Stops taken from the platform by `stop_others`, still to be handled."""
        self.stopping = False
        self.reactor = Reactor(platform.kick)
        self.timers = Timers(self.reactor.advance_deadline)
        self.memory_file: MemoryFile
        self.memory = KernelMemory(self)
        self.account = Account()
        self.mounts: MountNamespace
        self.clocks: Clocks
        self.network: Network | None = None
        """None until the first socket is made: net.network."""
        self.vdso: VdsoPages | None = None
        """What loader/vdso.py maps into every program, once the first has it."""
        self.tasks: dict[int, Task] = {}
        """Threads by tid that exist, exited leaders of living or zombie groups included."""
        self.groups: dict[int, ThreadGroup] = {}
        """Processes by pid, zombies included."""
        self.process_groups: dict[int, ProcessGroup] = {}
        self.sessions: dict[int, Session] = {}
        self.last_tid = 0
        """The tid given out last; see task_clone."""
        self.queued_signals: dict[int, int] = {}
        """Signals queued on behalf of each uid, for RLIMIT_SIGPENDING."""
        self.init: ThreadGroup
        """Process 1, the kernel's own: parent of what the user starts, reaper of orphans."""
        self.booted_ns = monotonic_ns()
        """CLOCK_MONOTONIC at boot: the sandbox's uptime counts from here."""
        self.hostname = config.hostname
        """sethostname(2); /proc/sys/kernel/hostname"""
        self.domainname = b"(none)"
        """setdomainname(2); /proc/sys/kernel/domainname"""
        self.proc: ProcFs
        self.devpts: DevPts
        self.console: Tty | None = None
        """The caller's terminal, if its processes were given one."""
        self.hooks: Any = None
        """Pluggy's relay of the hooks in hooks.py; None while no plugin is there."""
        self.syscalls_observed = False
        """A plugin is to see every system call: none is answered by the platform."""
        self._last_device = 0
        self._spare: list[greenlet] = []
        self._main: greenlet | None = None

    def run(self) -> None:
        """Carry the loop until the kernel stops. An exception in it ends it: the caller reports."""
        self._main = getcurrent()
        while not self.stopping:
            # comes back at the end, and whenever `park` needs another loop: made here, a greenlet
            # starts at this recursion depth and not at that of the handler that parks
            greenlet(loop.run, self._main).switch(self)

    def stop(self) -> None:
        """Make `run` return before the next stop is served."""
        self.stopping = True

    def log(self, text: str, level: str = "warning") -> None:
        """Tell whoever runs the sandbox, on its standard error; `level` is one of
        config.LOG_LEVELS."""
        if self.config.logs(level):
            with suppress(OSError):  # nobody reads it
                os.write(2, f"pysandbox: {text}\n".encode("utf-8", "backslashreplace"))

    def new_device(self) -> int:
        """The st_dev of another file system; major number 0, as where no disk is behind it."""
        self._last_device += 1
        return makedev(0, self._last_device)

    def park(self, task: Task) -> None:
        """Suspend the current handler, `task`'s, until `task.make_ready()`; the loop goes on in
        another greenlet."""
        task.parked = getcurrent()
        try:
            assert self._main is not None
            (self._spare.pop() if self._spare else self._main).switch()
        finally:
            task.parked = None

    def unpark(self, task: Task) -> None:
        """Go on with a parked task; the loop that calls this becomes a spare one."""
        parked = task.parked
        assert parked is not None
        if len(self._spare) < self.SPARE_LOOPS:
            self._spare.append(getcurrent())
            parked.switch()
        else:
            assert self._main is not None
            parked.parent = self._main
            parked.switch()

    def next_stop(self) -> Context | None:
        """The next context that gave control back; None when there is something else to look at."""
        reactor = self.reactor
        if self.early_stops:
            return self.early_stops.popleft()
        if self.running:
            if reactor.news:
                reactor.poll(0)
                self.timers.run_due()
                return None
            if not reactor.polling and (reactor.watching or self.timers.heap):
                reactor.poll_in_background(self.timers.next_deadline_ns())
            context = self.platform.wait()
            if context is not None:
                self.running -= 1
            return context
        deadline_ns = self.timers.next_deadline_ns()
        reactor.poll(None if deadline_ns is None else max(0, deadline_ns - monotonic_ns()))
        self.timers.run_due()
        return None

    def stop_others(self, task: Task) -> None:
        """Stop every other running context, so that what `task`'s handler does next to shared
        memory is atomic for the program. Their stops are served after the handler; nothing parks
        meanwhile."""
        for other in self.tasks.values():
            if other.running and other is not task:
                other.context.interrupt()
        while self.running:
            context = self.platform.wait()
            if context is not None:
                self.running -= 1
                self.early_stops.append(context)
