"""Hooks: what a plugin can see of a sandbox, and where it can step in. The page for plugin authors.

Publish an object with any of the functions below, marked `@hookimpl`, under the entry-point group
`pysandbox.hooks`, and every sandbox of that Python environment calls them:

    # pyproject.toml of the plugin
    [project.entry-points."pysandbox.hooks"]
    audit = "my_audit:plugin"

    # my_audit.py
    from pysandbox_core.hooks import Refuse, hookimpl

    class Audit:
        @hookimpl
        def connect(self, task, address):
            return Refuse(errno.EACCES)

    plugin = Audit()

Interface, the rules for plugins:

- An implementation takes only those parameters that it wants, by name (pluggy).
- All are called on the kernel thread, between two steps of the sandbox: nothing in the sandbox's
  kernel moves until they return, so they must not block. Other threads of the program may run on
  and change its memory meanwhile: what is read from it once may be different a moment later.
- `task`, `kernel` and what hangs off them are the kernel's own (task.py, kernel.py): to be read,
  not changed.
- A hook that raises ends the sandbox with status 125 and a report: what shall be enforced must not
  be skipped because of a bug in it.
- Nothing is paid for hooks that nobody implements, and nothing at all where no plugin is installed.

`--strace` is a plugin like any other (strace.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pluggy

if TYPE_CHECKING:
    from pysandbox_core.declare import Declaration
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.signals import SigInfo
    from pysandbox_core.task import Task

PROJECT = "pysandbox"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Refuse(NamedTuple):
    """Verdict: the call is not carried out and fails with `errno`."""

    errno: int


class Answer(NamedTuple):
    """Verdict: the call is not carried out and returns `value`, 0 to 2**64-1."""

    value: int


Verdict: TypeAlias = Refuse | Answer


class HookSpecs:
    """Every hook there is."""

    @hookspec
    def sandbox_start(self, kernel: Kernel) -> None:
        """The kernel is booted; nothing runs yet."""

    @hookspec
    def sandbox_end(self, kernel: Kernel) -> None:
        """The sandbox ends; what still runs is about to be killed. Not called if the kernel
        failed."""

    @hookspec
    def task_start(self, task: Task) -> None:
        """A thread exists and is about to run: the first of a program, or a clone of another."""

    @hookspec
    def task_exit(self, task: Task, status: int) -> None:
        """A thread has ended; `status` is a wait(2) status word."""

    @hookspec(firstresult=True)
    def syscall_enter(
        self, task: Task, declaration: Declaration, arguments: tuple[int, ...]
    ) -> Verdict | None:
        """A thread makes a system call. The first verdict counts; None lets it go on.

        `declaration` has its name, its number and the names of its parameters, `arguments` their
        values as its handler gets them; pointers are addresses in the program's memory, which
        `task.mm` reads. Called again when a call is restarted after a signal.
        """

    @hookspec
    def syscall_exit(
        self, task: Task, declaration: Declaration, arguments: tuple[int, ...], result: int | None
    ) -> None:
        """A system call has ended: with `result`, or -errno (below -511: to be restarted if no
        handler runs). None where the program sees no result: exit, execve, rt_sigreturn."""

    @hookspec
    def signal_delivered(self, task: Task, info: SigInfo) -> None:
        """A thread takes a signal: its handler runs next, or it stops or dies of it."""

    @hookspec(firstresult=True)
    def file_open(self, task: Task, path: bytes, flags: int) -> Refuse | None:
        """A file is about to be opened, its path resolved and permissions checked.

        `path` is absolute and without symbolic links, `flags` are open(2)'s. execve(2) opens what
        it runs with O_RDONLY.
        """

    @hookspec(firstresult=True)
    def connect(self, task: Task, address: tuple[str, bytes | str, int]) -> Refuse | None:
        """A socket is about to be connected, or to send to an address: `("unix", path, 0)`,
        `("inet", host, port)` or `("inet6", host, port)`. An abstract name of AF_UNIX starts with a
        NUL byte; other families come with their number and the rest of the sockaddr."""
