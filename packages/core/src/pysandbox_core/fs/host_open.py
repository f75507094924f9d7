"""Opening files of the host: beneath a descriptor, through no link, and nothing with side effects.

Interface:
- `new_opener` once for each tree; what it returns opens a relative path beneath a descriptor. A
  symbolic link anywhere in the path, also in the last place, is not followed (ELOOP, ENOTDIR; with
  O_PATH the one in the last place is opened itself). The path has no `..` and fewer than PATH_MAX
  bytes.
- To open a fifo or a device has effects, whatever is done with the descriptor afterwards: a writer
  stops waiting, a tape winds back. So a file that exists is opened in two steps, and nobody can put
  another one in its place in between. First it is pinned: O_PATH, which has no effects; the caller
  looks at what it got, and only a regular file or a directory is then opened by `reopen`, through
  its descriptor and not by a name.

openat2(2) does it in one call. Without it each component is opened by itself: the host's kernel is
older than 5.6 (ENOSYS), or the seccomp profile of a container does not list the call (EPERM: old
profiles of Docker, and systemd-nspawn's on purpose).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import ENOENT, ENOSYS, EPERM

from pysandbox_core.abi.fcntl import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
from pysandbox_core.host_calls import openat2

O_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags of what is only to be looked at; it may be anything."""
O_PIN_DIRECTORY = O_PIN | os.O_DIRECTORY

_O_REOPEN = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK: a lease that somebody holds on the file is EAGAIN, and not waited for. fcntl(2)"""
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS

Opener = Callable[[int, bytes, int, int], int]
"""(descriptor of a directory, relative path, O_* flags, mode of a new file) -> a new descriptor. It
raises OSError."""


def new_opener(root_fd: int) -> Opener:
    """The way to open files that this host has."""
    try:
        os.close(open_beneath(root_fd, b".", O_PIN_DIRECTORY, 0))
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise
        return open_by_components
    return open_beneath


def open_beneath(directory_fd: int, path: bytes, flags: int, mode: int) -> int:
    """An `Opener`: one call, and the host's kernel keeps to the rules."""
    return openat2(directory_fd, path, flags | os.O_CLOEXEC, mode, _RESOLVE)


def open_by_components(directory_fd: int, path: bytes, flags: int, mode: int) -> int:
    """An `Opener`: one name at a time, no name ever a link's."""
    *names, last = path.split(b"/")
    fd = directory_fd
    try:
        for name in names:
            below = os.open(name, O_PIN_DIRECTORY, dir_fd=fd)
            if fd != directory_fd:
                os.close(fd)
            fd = below
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=fd)
    finally:
        if fd != directory_fd:
            os.close(fd)


def open_descriptors() -> int:
    """/proc/self/fd, for `reopen`. Leads from a descriptor's number to what it refers to, wherever
    the root is by then."""
    try:
        return os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OSError(ENOENT, "there is no /proc to open files through; mount one") from None


def reopen(descriptors_fd: int, fd: int, flags: int) -> int:
    """A new descriptor, with the access that `flags` asks for, of exactly the file that `fd` refers
    to: a regular file or a directory. Raises OSError"""
    return os.open(str(fd), flags | _O_REOPEN, dir_fd=descriptors_fd)
