"""Jail: on the way in, in order, and what came of each layer.

Interface, one call each:
1. `fork` in the process that asked for the sandbox; the child is the sentry.
2. in the sentry, `close_inherited`, before it opens anything;
3. `enter`, before anything of the sandbox exists, and when every plugin has been imported;
4. when the platform is open and the kernel has booted: `seal`.

A layer that the host refuses is off, and `off` says why; a layer that was required and is off is a
SandboxError, and so is a failure half-way. `without` names layers that are left out on purpose.
"""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from pysandbox_core.errors import SandboxError
from pysandbox_core.host_facts import host_facts
from pysandbox_core.jail.layers import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pysandbox_platform import Platform

    from pysandbox_core.fs.sources import Source

_FILTER_ALL_THREADS = 1
"""SECCOMP_FILTER_FLAG_TSYNC"""

_OF_ONE_THREAD = frozenset(
    ("mountns", "netns", "ipcns", "utsns", "cgroupns", "capabilities", "no_new_privs", "landlock")
)
"""Layers that hold for the thread that enters them and those that it starts."""


class Jail:
    """One sentry's jail, from before its fork until the first program starts."""

    def __init__(
        self, require: frozenset[str] = frozenset(), without: frozenset[str] = frozenset()
    ) -> None:
        self.require = require
        self.without = without
        self.off: dict[str, str] = {}
        """Why a layer is off, by its name; complete once `seal` has returned."""
        self._may_change = False

    def fork(self) -> int:
        """fork(2) with the child in a user and a PID namespace of its own; it is killed when the
        calling thread ends. The caller itself comes to be in the user namespace, with the ids that
        it had."""
        from pysandbox_core.jail import namespaces, privileges

        self.off |= namespaces.prepare(self.without)
        alive, self._held_end = os.pipe()
        pid = os.fork()
        if pid:
            os.close(alive)
            return pid
        os.close(self._held_end)
        privileges.die_with_parent(signal.SIGKILL)
        poll = select.poll()
        poll.register(alive, 0)
        if poll.poll(0):  # it ended before we asked to be told
            os._exit(1)
        os.close(alive)
        return 0

    def close_inherited(self, own: set[int]) -> None:
        """Of the descriptors that came from the host only the standard ones and `own` stay."""
        from pysandbox_core.jail import privileges

        privileges.close_inherited({0, 1, 2, *own})

    def enter(
        self, sources: Sequence[Source], platform: type[Platform], plugins: Iterable[object]
    ) -> None:
        """Everything but what the platform's start needs. `sources` are moved to where the jail's
        root has them. What is not imported yet of the packages of the kernel, the platform and the
        plugins is read; afterwards there are no more files to import from."""
        from pysandbox_core.jail import landlock, namespaces, preload, privileges, root

        self._be_alone()
        self._may_change = any(source.writable for source in sources)
        preload.read_modules(preload.packages_of([Jail, platform, *plugins]))
        host_facts()
        privileges.forget_environment()
        self.off |= namespaces.isolate(self.without)
        if "mountns" not in self.off:
            own_processes = "pidns" not in self.off
            self._try(
                "mountns",
                lambda: root.enter(sources, platform.host_files, own_processes=own_processes),
            )
        preload.seal_imports()
        privileges.limit_resources()
        self._try("capabilities", privileges.drop_capabilities)
        self._try("no_new_privs", privileges.forbid_new_privileges)
        self._try("landlock", lambda: landlock.restrict(self._rules(sources, platform)))
        self._check()

    def seal(self, platform: type[Platform]) -> None:
        """What remains: nothing may debug the sentry, and it makes no system call but those that
        are known."""
        from pysandbox_core.jail import privileges

        self._try("undumpable", privileges.forbid_dumps)
        self._try("seccomp", lambda: self._filter(platform))
        self._check()

    def _be_alone(self) -> None:
        """A thread that is older than the jail would stand outside, with the host's root and all
        its rights, and whoever takes the sentry over has every thread of it."""
        if _OF_ONE_THREAD - self.without and _threads() > 1:
            raise SandboxError(
                "a thread was started before the jail, which would not hold it: hooks and "
                "platforms start threads in sandbox_start or later, not when they are imported"
            )

    def _try(self, name: str, enter: Callable[[], str | None]) -> None:
        """Enter the layer called `name`, unless it is left out; it may say why it is off."""
        if name in self.without:
            self.off[name] = "switched off"
            return
        try:
            reason = enter()
        except OSError as error:
            reason = f"the host refuses it: {error.strerror}"
        if reason:
            self.off[name] = reason

    def _filter(self, platform: type[Platform]) -> str:
        if platform.host_calls is None:
            return f"platform {platform.name} does not say what it calls"
        from pysandbox_platform.host_calls import HostCall

        from pysandbox_core.host_calls import seccomp_filter
        from pysandbox_core.jail import allowed, bpf

        calls = list(platform.host_calls)
        if "pidns" not in self.off and "landlock" not in self.off:
            calls = [HostCall(call.name) if call.only_own else call for call in calls]
        calls += allowed.CALLS
        if self._may_change:
            calls += allowed.CHANGES
        program = bpf.compile_filter(calls, allowed.REFUSED)
        seccomp_filter(program, _FILTER_ALL_THREADS)
        return ""

    def _rules(
        self, sources: Sequence[Source], platform: type[Platform]
    ) -> Iterator[tuple[int, int]]:
        """What Landlock allows: what is shown, the sandbox's processes in /proc, the platform's
        device, and to open anew what was given open."""
        from pysandbox_core.jail.landlock import CHANGE, READ, USE_DEVICE, of_given

        allowed = [(b"/proc", READ)] if os.path.isdir("/proc") else []
        for source in sources:
            path = source.directory + b"/" + source.name if source.name else source.directory
            allowed.append((path, READ | CHANGE if source.writable else READ))
        allowed += [(path, USE_DEVICE) for path in platform.host_files if os.path.exists(path)]
        for path, access in allowed:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                yield fd, access
            finally:
                os.close(fd)
        for fd in filter(_is_open, (0, 1, 2)):
            yield fd, of_given(fd)

    def _check(self) -> None:
        for layer in LAYERS:
            if layer.name in self.require and layer.name in self.off:
                raise SandboxError(
                    f"layer {layer.name} of the jail is required and off: {self.off[layer.name]} "
                    f"({layer.advice})"
                )


def _threads() -> int:
    """Of this process; those that Python has not started are only seen where there is a /proc."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
