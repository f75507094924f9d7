"""System calls that the platform answers without a stop, where it can: who a thread is.

Interface: `publish(task)` before a task runs for the first time, and by whatever changes one of the
results. They are only those that nothing but the thread's own calls can change: getppid(2) is none.

Linux answers none of these without entering the kernel; what a program sees is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core.abi.numbers_amd64 import NUMBERS

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_GETPID = NUMBERS["getpid"]
_GETTID = NUMBERS["gettid"]
_GETUID = NUMBERS["getuid"]
_GETEUID = NUMBERS["geteuid"]
_GETGID = NUMBERS["getgid"]
_GETEGID = NUMBERS["getegid"]


def publish(task: Task) -> None:
    """Let the platform answer for `task`, whose program does not run, unless someone is to see
    every call."""
    kernel = task.kernel
    if kernel.syscalls_observed or not kernel.platform.constant_results:
        return
    creds = task.creds
    task.context.set_constant_results(
        {
            _GETPID: task.group.pid,
            _GETTID: task.tid,
            _GETUID: creds.uid,
            _GETEUID: creds.euid,
            _GETGID: creds.gid,
            _GETEGID: creds.egid,
        }
    )
