"""Calling hooks: which plugins there are, and how the kernel comes to call them.

Interface: `install(kernel, plugins)` before anything runs. `kernel.hooks` is then pluggy's relay of
the hooks in hooks.py, and stays None where there are no plugins, so that the kernel's own code asks
`if kernel.hooks is not None` at the few places that are not system calls. System calls are seen by
putting another entry into the kernel's table: without plugins that listen to them, the table is as
it was.

This module imports pluggy only once there is a plugin: the import takes as long as a small program.
"""

from __future__ import annotations

from errno import ENOSYS
from typing import TYPE_CHECKING, Any

from pysandbox_platform.entry_points import resolve, scan

from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.declare import DECLARATIONS, Declaration, build_entry, decode_arguments
from pysandbox_core.errors import LinuxError
from pysandbox_core.syscalls import declare_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pysandbox_core.declare import Entry, Result
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

GROUP = "pysandbox.hooks"
"""The entry-point group of hook plugins."""


def published(complain: Callable[[str], None]) -> list[tuple[str, object]]:
    """(name, plugin) of every plugin that is installed; `complain` gets a line for a broken one."""
    plugins = []
    for name, value in sorted(scan(GROUP).items()):
        try:
            plugins.append((name, resolve(value)))
        except (Exception, SystemExit) as error:
            complain(
                f"hook {name!r} ({value}) is broken and not used: {type(error).__name__}: {error}"
            )
    if plugins:
        __import__("pysandbox_core.hooks")  # and pluggy: in the jail it can't be found any more
    return plugins


def install(kernel: Kernel, plugins: Sequence[tuple[str, object]]) -> None:
    """Let `plugins`, (name, object) each, see what happens in `kernel`."""
    if not plugins:
        return
    import pluggy

    from pysandbox_core.hooks import PROJECT, HookSpecs

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    for name, plugin in plugins:
        try:
            manager.register(plugin, name)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            kernel.log(f"hook {name!r} does not fit and is not used: {error}", "error")
            if manager.has_plugin(name):
                manager.unregister(name=name)
    hooks = kernel.hooks = manager.hook
    if hooks.syscall_enter.get_hookimpls() or hooks.syscall_exit.get_hookimpls():
        declare_all()
        kernel.syscalls_observed = True
        for name, number in NUMBERS.items():
            declaration = DECLARATIONS.get(number) or Declaration(name, number, (), None, ENOSYS)
            kernel.table[number] = observed(kernel.table[number], declaration, hooks)
    hooks.sandbox_start(kernel=kernel)


def observed(first: Entry, declaration: Declaration, hooks: Any) -> Entry:
    """An entry that does what `first` does and calls the hooks before and after it.

    `first` is the kernel's, which notes the first call of everything; later calls take a built one.
    """
    entry: Entry | None = None

    def answer(task: Task, regs: memoryview, arguments: tuple[int, ...]) -> Result:
        nonlocal entry
        verdict = hooks.syscall_enter(task=task, declaration=declaration, arguments=arguments)
        if verdict is not None:
            return answer_of(verdict)
        if entry is None:
            entry = build_entry(declaration)
            return first(task, regs)
        return entry(task, regs)

    def call(task: Task, regs: memoryview) -> Result:
        arguments = decode_arguments(declaration, regs)
        try:
            result = answer(task, regs, arguments)
        except LinuxError as error:
            hooks.syscall_exit(
                task=task, declaration=declaration, arguments=arguments, result=-error.errno
            )
            raise
        hooks.syscall_exit(task=task, declaration=declaration, arguments=arguments, result=result)
        return result

    return call


def file_open(task: Task, place: Path, flags: int) -> None:
    """Let hooks refuse that `place` is opened: LinuxError. Called where `kernel.hooks` is not
    None."""
    refused_by(task.kernel.hooks.file_open(task=task, path=place.absolute(), flags=flags))


def connect(task: Task, sockaddr: bytes) -> None:
    """Let hooks refuse that a socket is connected or sends to an address: LinuxError."""
    refused_by(task.kernel.hooks.connect(task=task, address=describe_address(sockaddr)))


def describe_address(sockaddr: bytes) -> tuple[str, bytes | str, int]:
    """(family, address, port) of a sockaddr as the program gave it: `inet` and `inet6` with the
    address as text, `unix` with a path or, after a NUL byte, an abstract name; any other family
    with what is in it."""
    import socket

    family = int.from_bytes(sockaddr[:2], "little")
    if family == socket.AF_UNIX:
        name = sockaddr[2:]
        return "unix", name if name.startswith(b"\0") else name.partition(b"\0")[0], 0
    port = int.from_bytes(sockaddr[2:4], "big")
    if family == socket.AF_INET and len(sockaddr) >= 8:
        return "inet", socket.inet_ntop(family, sockaddr[4:8]), port
    if family == socket.AF_INET6 and len(sockaddr) >= 24:
        return "inet6", socket.inet_ntop(family, sockaddr[8:24]), port
    return str(family), sockaddr[2:], 0


def refused_by(verdict: object) -> None:
    """LinuxError if a hook that can only refuse has done so."""
    from pysandbox_core.hooks import Refuse

    if isinstance(verdict, Refuse):
        raise LinuxError(verdict.errno)
    if verdict is not None:
        raise TypeError(f"a hook returned {verdict!r}; return None or Refuse(errno)")


def answer_of(verdict: object) -> int:
    """Carry out a hook's verdict: the value that the call returns; LinuxError if it is refused."""
    from pysandbox_core.hooks import Answer, Refuse

    if isinstance(verdict, Refuse):
        raise LinuxError(verdict.errno)
    if isinstance(verdict, Answer) and 0 <= verdict.value < 1 << 64:
        return verdict.value
    raise TypeError(f"a hook returned {verdict!r}; return None, Refuse(errno) or Answer(value)")
