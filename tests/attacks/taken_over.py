"""A hook plugin that runs in the jailed sentry and does, at the program's first system call, the
one thing that the environment names (DEED). test_channel.py publishes it."""

from __future__ import annotations

import ctypes
import os
import signal
import threading

from pysandbox_core.hooks import hookimpl

deed = os.environ.get("DEED")

if deed == "have_a_thread":
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def work_for_ever() -> None:
    while True:
        pass


def be_traced_by_the_front() -> None:
    """A tracer is told of each signal, and its child stops: the filter of the ptrace platform
    leaves every request to it. Elsewhere the filter kills."""
    PTRACE_TRACEME = 0
    ctypes.CDLL(None).ptrace(PTRACE_TRACEME, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGUSR1)


class TakenOver:
    """The plugin."""

    def __init__(self) -> None:
        self.begun = False

    @hookimpl
    def syscall_enter(self) -> None:
        if self.begun:
            return
        self.begun = True
        if deed in ("work_for_ever", "be_traced_by_the_front"):
            globals()[deed]()
        os.write(1, b"done\n")


plugin = TakenOver()
