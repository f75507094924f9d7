"""inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2)."""

from __future__ import annotations

import os
from errno import EINVAL, ENOTDIR

from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.declare import Fd, Int, OpenFlags, Result, UInt, UserPath, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.inotify import (
    IN_EXCL_UNLINK,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    Inotify,
)
from pysandbox_core.fs.notify import IN_ALL_EVENTS, IN_ISDIR, IN_UNMOUNT
from pysandbox_core.fs.permissions import MAY_READ, check_access
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000
_EVENTS = IN_ALL_EVENTS | IN_UNMOUNT
_KNOWN = (
    _EVENTS | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_CREATE | IN_MASK_ADD | IN_ISDIR
    | IN_ONESHOT
)  # fmt: skip


@syscall("inotify_init")
def inotify_init(task: Task) -> Result:
    """A new inotify instance. EMFILE. inotify_init(2)"""
    return task.files.install(task, Inotify(task.kernel, 0, task.creds.uid))


@syscall("inotify_init1")
def inotify_init1(task: Task, flags: OpenFlags) -> Result:
    """inotify_init(2) with IN_CLOEXEC and IN_NONBLOCK."""
    if flags & ~(os.O_CLOEXEC | os.O_NONBLOCK):
        raise LinuxError(EINVAL)
    file = Inotify(task.kernel, flags & os.O_NONBLOCK, task.creds.uid)
    return task.files.install(task, file, cloexec=bool(flags & os.O_CLOEXEC))


@syscall("inotify_add_watch")
def inotify_add_watch(task: Task, fd: Fd, path: UserPath, mask: UInt) -> Result:
    """Watch a file for the events in `mask`; the number of the watch. inotify_add_watch(2)

    Errors: EINVAL no event in `mask`, both IN_MASK_ADD and IN_MASK_CREATE, no inotify descriptor;
    EBADF; those of path resolution; ENOTDIR IN_ONLYDIR; EACCES; EEXIST IN_MASK_CREATE; ENOSPC.
    """
    if not mask & _EVENTS and not mask & _KNOWN:
        raise LinuxError(EINVAL)
    file = task.files.get(fd)
    if mask & IN_MASK_ADD and mask & IN_MASK_CREATE:
        raise LinuxError(EINVAL)
    if not isinstance(file, Inotify):
        raise LinuxError(EINVAL)
    follow = not mask & IN_DONT_FOLLOW
    place = resolve(task, AT_FDCWD, task.mm.read_path(path), follow=follow)
    if mask & IN_ONLYDIR and not place.inode.is_dir:
        raise LinuxError(ENOTDIR)
    check_access(task.creds, place.inode, MAY_READ)
    return file.add_watch(place, mask)


@syscall("inotify_rm_watch")
def inotify_rm_watch(task: Task, fd: Fd, wd: Int) -> Result:
    """End a watch. EBADF; EINVAL no such watch, or no inotify descriptor. inotify_rm_watch(2)"""
    file = task.files.get(fd)
    if not isinstance(file, Inotify):
        raise LinuxError(EINVAL)
    file.remove_watch(wd)
    return 0
