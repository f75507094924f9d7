"""Watching what the host is asked for: every system call that the host's kernel carries out for a
process and all that come from it, through tracefs. Documentation/trace/ftrace.rst, events.rst

Interface: `reason_not_to_watch()` is "" where it can be done (as root, with tracefs).
`with HostWatch() as watch`: start the process with `watch.follow` as its preexec_fn; `watch.finish`
gives what was seen. Nothing is lost, or `finish` raises.

The tracepoint (raw_syscalls:sys_enter) lies behind ptrace and seccomp: a call that one of these has
swallowed is not seen, for it has not been made.

Whose call it was is told by the events that make and name a task (task:task_newtask, task_rename).
The name that the tracer prints before an event is that of a table by number, brought up to date
only when the task leaves its CPU: a new process may stand there under the name of a dead one.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

EVENT = "events/raw_syscalls/sys_enter"
NAMES = ("events/task/task_newtask", "events/task/task_rename")
BUFFER_KIB = 32768
PTRACE, WAIT4 = 101, 61

_LINE = re.compile(
    r"^.{1,16}-(?P<tid>\d+) +\[\d+\] \S+ +(?P<time>[\d.]+): (?P<event>\w+): (?P<text>.*)$"
)
_ENTER = re.compile(r"NR (?P<number>-?\d+) \((?P<arguments>[0-9a-f, ]*)\)")
_NEW_TASK = re.compile(r"pid=(?P<tid>\d+) comm=(?P<comm>.*) clone_flags=")
_RENAME = re.compile(r"pid=(?P<tid>\d+) oldcomm=.* newcomm=(?P<comm>.*) oom_score_adj=")


class Call(NamedTuple):
    """A system call that the host has carried out."""

    comm: str
    tid: int
    number: int
    arguments: tuple[int, ...]


def reason_not_to_watch() -> str:
    """Why the host can't be watched; "" if it can."""
    if os.geteuid() != 0:
        return "only root can watch the host's system calls"
    try:
        name = tracing() / "instances" / f"pysandbox-probe-{os.getpid()}"
        name.mkdir()
        name.rmdir()
    except OSError as error:
        return f"tracefs can't be used: {error.strerror}"
    return "" if (tracing() / EVENT).is_dir() else f"tracefs has no {EVENT}"


@cache
def tracing() -> Path:
    """tracefs, mounted for this process alone: it lies nowhere in the tree of files and is gone
    when the process is. fsopen(2), fsconfig(2), fsmount(2)"""
    fsopen, fsconfig, fsmount, cloexec, create = 430, 431, 432, 1, 6
    context = _syscall(fsopen, b"tracefs", cloexec)
    _syscall(fsconfig, context, create, None, None, 0)
    return Path(f"/proc/self/fd/{_syscall(fsmount, context, cloexec, 0)}")


def _syscall(number: int, *arguments: bytes | int | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class HostWatch:
    """An instance of the tracer for one process and its descendants."""

    def __init__(self) -> None:
        self._instance = tracing() / "instances" / f"pysandbox-{os.getpid()}-{id(self):x}"
        self._lines: list[str] = []

    def __enter__(self) -> HostWatch:
        self._instance.mkdir()
        self._write("buffer_size_kb", str(BUFFER_KIB))
        self._write("options/event-fork", "1")
        self._write("trace_clock", "mono")  # the same on all CPUs
        # what the platform does to its stubs carries the program's registers, as it has to
        self._write(f"{EVENT}/filter", f"id != {PTRACE} && id != {WAIT4}")
        self._pipe = os.open(self._instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def follow(self) -> None:
        """In the process to watch, between fork and execve."""
        self._write("set_event_pid", str(os.getpid()))
        for event in (*NAMES, EVENT):
            self._write(f"{event}/enable", "1")

    def finish(self) -> list[Call]:
        """What was seen until now, in order."""
        for event in (EVENT, *NAMES):
            self._write(f"{event}/enable", "0")
        self._ended.set()
        self._reader.join()
        return calls_in("".join(self._lines))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._reader.join()
        os.close(self._pipe)
        self._instance.rmdir()

    def _read(self) -> None:
        while True:
            last = self._ended.wait(0.01)
            while True:
                try:
                    data = os.read(self._pipe, 1 << 20)
                except BlockingIOError:
                    break
                if not data:
                    break
                self._lines.append(data.decode("ascii", "replace"))
            if last:
                return

    def _write(self, name: str, text: str) -> None:
        (self._instance / name).write_text(text)


def calls_in(trace: str) -> list[Call]:
    """The calls of a trace, each under the name that its task had then."""
    events = []
    for line in trace.splitlines():
        assert "LOST" not in line, f"the tracer was too slow: {line}"
        found = _LINE.match(line)
        assert found, f"not an event: {line!r}"
        events.append(found)
    events.sort(key=lambda event: float(event["time"]))  # the reader may take CPUs out of turn
    names: dict[int, str] = {}
    calls = []
    for event in events:
        tid, text = int(event["tid"]), event["text"]
        if event["event"] == "sys_enter":
            enter = _ENTER.match(text)
            assert enter, text
            arguments = tuple(int(word, 16) for word in enter["arguments"].split(", "))
            calls.append(Call(names.get(tid, ""), tid, int(enter["number"]), arguments))
        else:
            named = (_NEW_TASK if event["event"] == "task_newtask" else _RENAME).match(text)
            assert named, text
            names[int(named["tid"])] = named["comm"]
    return calls
