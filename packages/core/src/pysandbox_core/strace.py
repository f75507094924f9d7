"""`--strace`: what the program asks of the kernel, in strace's format. A plugin like any other.

Interface: `Strace(host_fd)` is registered with the hooks and writes lines to the descriptor. On
standard error, lines of a sandbox with several tasks start with `[pid N]`, in a file all start with
the pid, as strace -f has it in both cases. A call that is still going on when another task has
something to say is shown in two halves, `<unfinished ...>` and `<... resumed>`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pysandbox_core import strace_flags as names
from pysandbox_core.declare import ARGUMENT_REGISTERS
from pysandbox_core.hooks import hookimpl
from pysandbox_core.strace_format import Call, show_result, signature

if TYPE_CHECKING:
    from pysandbox_core.declare import Declaration
    from pysandbox_core.signals import SigInfo
    from pysandbox_core.task import Task

RESULT_COLUMN = 40
"""Where the equals sign stands if there is room."""
STDERR = 2


class _Pending:
    """A call that has started and not ended."""

    __slots__ = ("call", "shown", "text")

    def __init__(self, call: Call, text: str) -> None:
        self.call = call
        self.text = text
        """What is known when it starts: `read(3, `."""
        self.shown = False
        """The first half has been written by itself."""


class Strace:
    """The plugin; one for a sandbox."""

    def __init__(self, host_fd: int) -> None:
        self.host_fd = host_fd
        self.pending: dict[Task, _Pending] = {}
        self.several = False
        """There has been more than one task."""
        self.tasks = 0

    @hookimpl
    def task_start(self, task: Task) -> None:
        self.tasks += 1
        self.several = self.several or self.tasks > 1

    @hookimpl
    def task_exit(self, task: Task, status: int) -> None:
        self.finish(task, None)
        signo = status & 0x7F
        if signo:
            dumped = " (core dumped)" if status & 0x80 else ""
            self.line(task, f"+++ killed by {names.signal_name(signo)}{dumped} +++")
        else:
            self.line(task, f"+++ exited with {status >> 8 & 0xFF} +++")

    @hookimpl
    def syscall_enter(self, task: Task, declaration: Declaration) -> None:
        words = tuple(task.regs[register] for register in ARGUMENT_REGISTERS)
        call = Call(task, declaration.name, words)
        early = []
        for argument, word in zip(signature(declaration), words, strict=False):
            if argument.late:
                early.append("")
                break
            text = argument.formatter(call, word)
            if not text:
                break
            early.append(text)
        self.pending[task] = _Pending(call, f"{declaration.name}({', '.join(early)}")

    @hookimpl
    def syscall_exit(self, task: Task, declaration: Declaration, result: int | None) -> None:
        pending = self.pending.get(task)
        if pending is None:
            return
        if result is None and declaration.name in ("exit", "exit_group"):
            return  # shown when the task is gone
        pending.call.result = 0 if result is None else result
        late = []
        started = False
        for argument, word in zip(signature(declaration), pending.call.words, strict=False):
            started = started or argument.late
            if started:
                text = argument.formatter(pending.call, word)
                if not text:
                    break
                late.append(text)
        self.finish(task, ", ".join(late))

    @hookimpl
    def signal_delivered(self, task: Task, info: SigInfo) -> None:
        self.line(task, f"--- {names.signal_name(info.signo)} {{{describe_siginfo(info)}}} ---")

    def finish(self, task: Task, late: str | None) -> None:
        """Write what is left to write of the task's call; None: it never returns."""
        pending = self.pending.pop(task, None)
        if pending is None:
            return
        start = f"<... {pending.call.name} resumed>" if pending.shown else pending.text
        result = "?" if late is None else show_result(pending.call)
        prefix = self.prefix(task)
        text = f"{prefix}{start}{late or ''}) ".ljust(RESULT_COLUMN)
        self.interrupt_others(task)
        self.write(f"{text}= {result}\n")

    def line(self, task: Task, text: str) -> None:
        """Write a line that is no call."""
        self.interrupt_others(None)
        self.write(f"{self.prefix(task)}{text}\n")

    def interrupt_others(self, task: Task | None) -> None:
        """Write the first halves of the calls that go on, of all tasks but `task`."""
        for other, pending in self.pending.items():
            if other is not task and not pending.shown:
                pending.shown = True
                self.write(f"{self.prefix(other)}{pending.text} <unfinished ...>\n")

    def prefix(self, task: Task) -> str:
        if self.host_fd != STDERR:
            return f"{task.tid:<5} "
        return f"[pid {task.tid:5}] " if self.several else ""

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        with suppress(OSError):  # nobody reads it: the program goes on
            while data:
                data = data[os.write(self.host_fd, data) :]


def describe_siginfo(info: SigInfo) -> str:
    """The inside of the braces after a signal's name."""
    import struct

    signo, code = info.signo, info.code
    codes = names.SIGINFO_CODES.get(signo, {}) if code > 0 else {}
    text = codes.get(code) or names.SIGINFO_CODE.get(code) or str(code)
    parts = [f"si_signo={names.signal_name(signo)}", f"si_code={text}"]
    fields = info.pack()[16:]
    if signo in names.SIGINFO_CODES and code > 0 and text.startswith("CLD_"):
        pid, uid, status, _, utime, stime = struct.unpack_from("<iIiiqq", fields)
        shown = status if text == "CLD_EXITED" else names.signal_name(status)
        parts += [f"si_pid={pid}", f"si_uid={uid}", f"si_status={shown}"]
        parts += [f"si_utime={utime}", f"si_stime={stime}"]
    elif codes:
        (addr,) = struct.unpack_from("<Q", fields)
        parts.append(f"si_addr={addr:#x}" if addr else "si_addr=NULL")
    elif text in ("SI_USER", "SI_TKILL", "SI_QUEUE"):
        pid, uid = struct.unpack_from("<iI", fields)
        parts += [f"si_pid={pid}", f"si_uid={uid}"]
    return ", ".join(parts)
