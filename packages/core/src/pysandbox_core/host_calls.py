"""Host system calls that Python's os module lacks, and what else it lacks of the C library.

Interface: each does what the manual page named in its docstring says and raises OSError with the
host's errno. Importing this module loads ctypes, so it is imported by those who need it, when they
do.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from contextlib import suppress
from typing import Any

from pysandbox_core.abi.mman import MAP_FIXED, MAP_NORESERVE

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# whole words, whatever the int's size; bytes and arrays by address
_syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 6

# asm/unistd_64.h
_SYS_MMAP = 9
_SYS_FALLOCATE = 285
_SYS_FACCESSAT2 = 439
_SYS_SETNS = 308
_SYS_MOUNT = 165
_SYS_UMOUNT2 = 166
_SYS_PIVOT_ROOT = 155
_SYS_PRCTL = 157
_SYS_UNSHARE = 272
_SYS_CAPGET = 125
_SYS_CAPSET = 126
_SYS_SECCOMP = 317
_SYS_RENAMEAT2 = 316
_SYS_MOUNT_SETATTR = 442
_SYS_CLOSE_RANGE = 436
_SYS_OPENAT2 = 437
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EACCESS = 0x200
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR = struct.Struct("=QQQQ")
"""struct mount_attr: set, clear, propagation, userns_fd."""
_OPEN_HOW = struct.Struct("=QQQ")
"""struct open_how: flags, mode, resolve."""
_CAPABILITIES = struct.Struct("=Ii6I")
"""struct __user_cap_header_struct and two of __user_cap_data_struct."""
_CAPABILITY_VERSION_3 = 0x20080522
_SOCK_FPROG = struct.Struct("=HxxxxxxQ")
"""struct sock_fprog: length in instructions, their address."""


def _call(number: int, *arguments: Any) -> int:
    words = arguments + (0,) * (6 - len(arguments))
    result: int = _syscall(number, *words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def openat2(directory_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """openat2(2)"""
    how = _OPEN_HOW.pack(flags, mode, resolve)
    return _call(_SYS_OPENAT2, directory_fd, path, how, _OPEN_HOW.size)


def renameat2(old_fd: int, old_name: bytes, new_fd: int, new_name: bytes, flags: int) -> None:
    """renameat2(2)"""
    _call(_SYS_RENAMEAT2, old_fd, old_name, new_fd, new_name, flags)


def mmap_again(addr: int, length: int, fd: int) -> None:
    """mmap(2), in the place of a mapping of the same: shared, from the start of the file."""
    prot, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_FIXED | MAP_NORESERVE
    _call(_SYS_MMAP, addr, length, prot, flags, fd, 0)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)"""
    _call(_SYS_FALLOCATE, fd, mode, offset, length)


def faccessat2(directory_fd: int, name: bytes, mode: int) -> None:
    """faccessat2(2) for the effective ids, of `name` itself if it is a link, of `directory_fd` if
    there is no name."""
    flags = _AT_EACCESS | _AT_SYMLINK_NOFOLLOW | (0 if name else _AT_EMPTY_PATH)
    _call(_SYS_FACCESSAT2, directory_fd, name, mode, flags)


def close_range(first: int, last: int) -> None:
    """close_range(2): every descriptor from `first` to `last`, both included."""
    _call(_SYS_CLOSE_RANGE, first, last, 0)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)"""
    return _call(_SYS_PRCTL, option, *arguments)


def unshare(flags: int) -> None:
    """unshare(2)"""
    _call(_SYS_UNSHARE, flags)


def setns(fd: int, kinds: int) -> None:
    """setns(2): `fd` is a process's, pidfd_open(2)."""
    _call(_SYS_SETNS, fd, kinds)


def mount(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes = b"") -> None:
    """mount(2)"""
    _call(_SYS_MOUNT, source, target, kind, flags, data)


def umount2(target: bytes, flags: int) -> None:
    """umount2(2)"""
    _call(_SYS_UMOUNT2, target, flags)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2)"""
    _call(_SYS_PIVOT_ROOT, new_root, put_old)


def mount_setattr(directory_fd: int, path: bytes, attributes: int) -> None:
    """mount_setattr(2): set MOUNT_ATTR_* of the mount at `path` and of all beneath it."""
    attr = _MOUNT_ATTR.pack(attributes, 0, 0, 0)
    flags = _AT_RECURSIVE | (0 if path else _AT_EMPTY_PATH)
    _call(_SYS_MOUNT_SETATTR, directory_fd, path, flags, attr, _MOUNT_ATTR.size)


def effective_capabilities() -> int:
    """capget(2) of this thread: a bit for each, by the numbers of capabilities(7)."""
    words = ctypes.create_string_buffer(_CAPABILITIES.pack(_CAPABILITY_VERSION_3, *[0] * 7))
    address = ctypes.addressof(words)
    _call(_SYS_CAPGET, address, address + 8)
    values = _CAPABILITIES.unpack(words.raw[: _CAPABILITIES.size])
    low, high = int(values[2]), int(values[5])
    return low | high << 32


def drop_capabilities() -> None:
    """capset(2) of this thread: none effective, permitted or inheritable."""
    words = ctypes.create_string_buffer(_CAPABILITIES.pack(_CAPABILITY_VERSION_3, *[0] * 7))
    address = ctypes.addressof(words)
    _call(_SYS_CAPSET, address, address + 8)


def seccomp_filter(program: bytes, flags: int) -> None:
    """seccomp(2), SECCOMP_SET_MODE_FILTER: `program` is an array of struct sock_filter, 8 bytes
    each."""
    code = ctypes.create_string_buffer(program, len(program))
    prog = _SOCK_FPROG.pack(len(program) // 8, ctypes.addressof(code))
    thread = _call(_SYS_SECCOMP, 1, flags, prog)
    if thread:
        raise OSError(0, f"thread {thread} has a filter of its own")


def landlock_version() -> int:
    """The highest Landlock ABI that the host has, 0 if it has none. landlock_create_ruleset(2)"""
    try:
        return _call(_SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1)
    except OSError:
        return 0


def landlock_create_ruleset(attributes: bytes) -> int:
    """landlock_create_ruleset(2): `attributes` is struct landlock_ruleset_attr, as long as the
    host's ABI has it."""
    return _call(_SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)


def landlock_add_path(ruleset_fd: int, path_fd: int, access: int) -> None:
    """landlock_add_rule(2), LANDLOCK_RULE_PATH_BENEATH"""
    _call(_SYS_LANDLOCK_ADD_RULE, ruleset_fd, 1, struct.pack("=Qi", access, path_fd), 0)


def landlock_restrict_self(ruleset_fd: int) -> None:
    """landlock_restrict_self(2)"""
    _call(_SYS_LANDLOCK_RESTRICT_SELF, ruleset_fd, 0)


def mallopt(parameter: int, value: int) -> None:
    """mallopt(3); without effect where the C library is not the GNU one."""
    with suppress(AttributeError):
        _libc.mallopt(parameter, value)


def malloc_trim() -> None:
    """malloc_trim(3); without effect where the C library is not the GNU one."""
    with suppress(AttributeError):
        _libc.malloc_trim(0)


def erase(address: int, length: int) -> None:
    """Overwrite memory of this process with zeros."""
    ctypes.memset(address, 0, length)
