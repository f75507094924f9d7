"""Landlock: which files may be opened, whatever a path says.
Documentation/userspace-api/landlock.rst

Interface: `restrict` once, on the thread that all others come from. It returns why the layer is
off, "" if it is on. What the host's ABI does not know is left out, the rest holds.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from pysandbox_core import host_calls

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_DIR = 1 << 4
_REMOVE_FILE = 1 << 5
_MAKE_CHAR = 1 << 6
_MAKE_DIR = 1 << 7
_MAKE_REG = 1 << 8
_MAKE_SOCK = 1 << 9
_MAKE_FIFO = 1 << 10
_MAKE_BLOCK = 1 << 11
_MAKE_SYM = 1 << 12
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15

READ = _READ_FILE | _READ_DIR
CHANGE = (
    _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _REFER
    | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _MAKE_SOCK | _MAKE_FIFO
)  # fmt: skip
"""All that a writable bind needs; nobody makes devices or executes anything."""
USE_DEVICE = _READ_FILE | _WRITE_FILE | _IOCTL_DEV

_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""What a rule for something that is no directory may name."""

_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Access rights by ABI."""
_NET_TCP = 3
"""Bind and connect, ABI 4."""
_SCOPES = 3
"""Abstract sockets and signals stay within the domain, ABI 6."""


def restrict(rules: Iterable[tuple[int, int]]) -> str:
    """Let this process, and all it starts, open only what `rules` allow: (descriptor of a directory
    or file, access) each, as READ, READ | CHANGE, USE_DEVICE or `of_given`."""
    version = host_calls.landlock_version()
    if not version:
        return "the host has no Landlock"
    if threading.active_count() > 1:
        return "threads were started before it"  # it would not hold for them
    handled = (1 << _FS_BITS[min(version, 5)]) - 1
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _NET_TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    try:
        ruleset = host_calls.landlock_create_ruleset(attributes)
    except OSError as error:
        return f"the host refuses it: {error.strerror}"
    try:
        for fd, access in rules:
            mask = handled if _is_directory(fd) else handled & _OF_FILES
            with suppress(OSError):  # EBADFD: nothing that could be opened anew
                host_calls.landlock_add_path(ruleset, fd, access & mask)
        host_calls.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)
    return ""


def of_given(fd: int) -> int:
    """What may be done with a file that the caller gave open, if it is opened anew: as much as with
    the descriptor. Nothing beneath a directory."""
    if _is_directory(fd):
        return 0
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    read = 0 if mode == os.O_WRONLY else _READ_FILE
    write = 0 if mode == os.O_RDONLY else _WRITE_FILE | _TRUNCATE
    return read | write | _IOCTL_DEV


def _is_directory(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o040000
