"""Host system calls that Python's os module lacks, through the C library: renameat2, fallocate.

Interface: loaded on first use, by the few operations on writable binds that need it; raises
OSError.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old_fd: int, old_name: bytes, new_fd: int, new_name: bytes, flags: int) -> None:
    """renameat2(2)"""
    if _libc.renameat2(old_fd, old_name, new_fd, new_name, flags) < 0:
        raise _error()


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)"""
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) < 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
