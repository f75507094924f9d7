"""The host's system calls that the ptrace platform makes once it is open; ptrace(2).

Interface: `HOST_CALLS`, for the filter of the jail. Stubs are cloned from one that was made before
it; what they may call is their own filter's to say (csrc/stub_image_amd64.c). Nothing can be
attached to any more: new stubs are traced from birth.
"""

from __future__ import annotations

import os

from pysandbox_platform.host_calls import Condition, HostCall, not_with, one_of

# linux/ptrace.h, asm/ptrace-abi.h
_PTRACE_POKEUSER = 6
_PTRACE_CONT = 7
_PTRACE_GETREGS = 12
_PTRACE_SETREGS = 13
_PTRACE_SYSEMU = 31
_PTRACE_GETEVENTMSG = 0x4201
_PTRACE_GETSIGINFO = 0x4202
_PTRACE_GETREGSET = 0x4204
_PTRACE_SETREGSET = 0x4205
_PTRACE_INTERRUPT = 0x4207

_PIDFD_THREAD = os.O_EXCL
"""linux/pidfd.h"""
_PID_BITS = 22
"""PID_MAX_LIMIT is 2**22, linux/threads.h."""
_KILL_ONE = [
    HostCall(
        "kill", (not_with(0, -(1 << _PID_BITS) & 0xFFFFFFFF), Condition(0, (1 << bit,), 1 << bit))
    )
    for bit in range(_PID_BITS)
]
"""kill(2) of a process: some bit of its id is set. 0 is for the process group, and that of the
sentry has members outside of its PID namespace; -1 is for everybody, -N for groups."""

HOST_CALLS = (
    HostCall(
        "ptrace",
        (
            one_of(
                0, _PTRACE_SYSEMU, _PTRACE_SETREGS, _PTRACE_GETREGS, _PTRACE_CONT,
                _PTRACE_GETREGSET, _PTRACE_SETREGSET, _PTRACE_INTERRUPT, _PTRACE_GETSIGINFO,
                _PTRACE_GETEVENTMSG, _PTRACE_POKEUSER,
            ),
        ),
        only_own=True,
    ),
    HostCall("wait4"),
    *_KILL_ONE,
    HostCall("tgkill"),
    HostCall("pidfd_open", (one_of(1, 0, _PIDFD_THREAD),)),
)  # fmt: skip
