"""What a process may give up for good: capabilities, new privileges, being debugged, core dumps,
what it inherited. capabilities(7), prctl(2)

Interface: each function is called once, on the way into the jail, and raises OSError where the host
refuses.
"""

from __future__ import annotations

import os
from contextlib import suppress
from resource import RLIMIT_CORE, RLIMIT_MEMLOCK, setrlimit

from pysandbox_core import host_calls

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_SECUREBITS = 0xEF
"""SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, SECBIT_NO_CAP_AMBIENT_RAISE and the lock of each, and that
of SECBIT_KEEP_CAPS: uid 0 means nothing."""
_CAP_LAST = 63
"""capabilities(7) ends before it; the first that the host does not know is EINVAL."""


def drop_capabilities() -> None:
    """None left: effective, permitted, inheritable, ambient, nor in the bounding set."""
    with suppress(OSError):  # EPERM: not ours to drop, so that nothing could be gained from it
        host_calls.prctl(_PR_SET_SECUREBITS, _SECUREBITS)
        for capability in range(_CAP_LAST):
            host_calls.prctl(_PR_CAPBSET_DROP, capability)
    with suppress(OSError):  # before Linux 4.3 there are no ambient ones
        host_calls.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    host_calls.drop_capabilities()


def forbid_new_privileges() -> None:
    """execve(2) gives no privileges, and filters may be installed. PR_SET_NO_NEW_PRIVS"""
    host_calls.prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_dumps() -> None:
    """No ptrace by others of the same uid, no core dump. PR_SET_DUMPABLE"""
    host_calls.prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(signo: int) -> None:
    """Get `signo` when the thread that forked us ends. PR_SET_PDEATHSIG"""
    host_calls.prctl(_PR_SET_PDEATHSIG, signo)


def limit_resources() -> None:
    """No core files, no locked memory. setrlimit(2)"""
    setrlimit(RLIMIT_CORE, (0, 0))
    setrlimit(RLIMIT_MEMLOCK, (0, 0))


def close_inherited(keep: set[int]) -> None:
    """Close every descriptor but those in `keep`."""
    first = 0
    for fd in sorted(keep):
        if fd > first:
            _close(first, fd - 1)
        first = fd + 1
    _close(first, 0xFFFFFFFF)


def _close(first: int, last: int) -> None:
    try:
        host_calls.close_range(first, last)
    except OSError:  # before Linux 5.9, or where a container does not know the call
        os.closerange(first, min(last, _highest_descriptor()) + 1)


def _highest_descriptor() -> int:
    """At least the highest that is open."""
    try:
        return max(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        return os.sysconf("SC_OPEN_MAX")


def forget_environment() -> None:
    """The caller's environment, here and in the memory that execve(2) left it in. Nothing that
    the kernel does depends on it; proc_pid_stat(5), env_start and env_end."""
    os.environ.clear()
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[47]), int(fields[48])
        if 0 < start < end:
            host_calls.erase(start, end - start)
