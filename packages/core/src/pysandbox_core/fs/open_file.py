"""Opening files: what open(2), openat2(2) and everybody else who opens by path does.

Interface: `open_path` returns a file description with one reference, the caller's. Who runs
programs or mounts file systems uses it too.

Linux: fs/namei.c path_openat(), fs/open.c do_dentry_open().
"""

from __future__ import annotations

import os
from errno import (
    EACCES,
    EEXIST,
    EISDIR,
    ELOOP,
    ENOENT,
    ENOTDIR,
    ENXIO,
    EPERM,
    EROFS,
    ETXTBSY,
)
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG, S_IFSOCK
from typing import TYPE_CHECKING

from pysandbox_core import hook_calls
from pysandbox_core.abi.fcntl import O_LARGEFILE, O_TMPFILE_BIT
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import notify
from pysandbox_core.fs.dentry import Dentry, Path
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.mount import MS_NODEV, MS_NOEXEC, MS_RDONLY
from pysandbox_core.fs.permissions import (
    MAY_EXEC,
    MAY_READ,
    MAY_WRITE,
    check_access,
    is_owner,
    may_create,
    may_create_in_sticky,
    new_owner,
)
from pysandbox_core.fs.regular_file import unmap_first, wait_until_free
from pysandbox_core.fs.resolve import Walk, lookup, resolve

if TYPE_CHECKING:
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.task import Task

S_IFMT = 0o170000
_ACCESS = (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE, MAY_READ | MAY_WRITE)
_KEPT_FLAGS = (
    os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_DSYNC | os.O_SYNC | os.O_ASYNC | os.O_DIRECT
    | os.O_LARGEFILE | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_PATH | O_LARGEFILE
)  # fmt: skip
"""What of the flags stays with the description, for fcntl(F_GETFL)."""


def open_path(
    task: Task, dirfd: int, path: bytes, flags: int, mode: int = 0, resolve_flags: int = 0
) -> FileDescription:
    """Open the file that `path` names from `dirfd`.

    `flags` are O_* flags that make sense together (O_CLOEXEC is the caller's), `mode` the
    permission bits of a new file, before umask; `resolve_flags` RESOLVE_*.
    """
    if flags & os.O_PATH:
        place = resolve(task, dirfd, path, follow=not flags & os.O_NOFOLLOW, flags=resolve_flags)
        if flags & os.O_DIRECTORY and place.inode.mode & S_IFMT != S_IFDIR:
            raise LinuxError(ENOTDIR)
        return FileDescription(
            flags & (os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW), place.inode, place
        )
    if flags & O_TMPFILE_BIT:
        return _open_unnamed(task, dirfd, path, flags, mode, resolve_flags)
    if flags & os.O_CREAT:
        place, created = _find_or_create(task, dirfd, path, flags, mode, resolve_flags)
    else:
        place = resolve(task, dirfd, path, follow=not flags & os.O_NOFOLLOW, flags=resolve_flags)
        created = False
    return open_place(task, place, flags, created=created)


def open_place(task: Task, place: Path, flags: int, *, created: bool = False) -> FileDescription:
    """Open the existing file at `place`; one that was just `created` is not checked."""
    inode = place.inode
    if flags & os.O_DIRECTORY and inode.mode & S_IFMT != S_IFDIR:
        raise LinuxError(ENOTDIR)
    truncates = False
    if not created:
        truncates = flags & os.O_TRUNC != 0 and inode.mode & S_IFMT == S_IFREG
        if truncates and place.mount.flags & MS_RDONLY:
            raise LinuxError(EROFS)
        _may_open(task, place, inode, flags)
    if (truncates or flags & 3) and inode.mode & S_IFMT == S_IFREG:
        if inode.executions:
            raise LinuxError(ETXTBSY)
    if task.kernel.hooks is not None:
        hook_calls.file_open(task, place, flags)
    if truncates:
        unmap_first(task, inode, 0)
        wait_until_free(task, inode)
    file = inode.open(task, place, flags & (_KEPT_FLAGS | os.O_NOCTTY) | O_LARGEFILE)
    file.flags &= ~os.O_NOCTTY  # of use to a terminal's open alone
    if notify.watching:
        notify.file_event(file, notify.IN_OPEN)
    if truncates:
        try:
            inode.truncate(0)
        except LinuxError:
            file.decref()
            raise
        if notify.watching:
            notify.file_event(file, notify.IN_MODIFY)
    return file


def open_for_exec(task: Task, dirfd: int, path: bytes, *, follow: bool = True) -> FileDescription:
    """Open a program or an interpreter to be run: a regular file that may be executed.
    do_open_execat()

    Errors: EACCES no regular file, no execute permission, or a noexec mount; ETXTBSY open for
    writing.
    """
    place = resolve(task, dirfd, path, follow=follow, empty=not path)
    inode = place.inode
    kind = inode.mode & S_IFMT
    if kind == S_IFLNK:
        raise LinuxError(ELOOP)
    if kind != S_IFREG or place.mount.flags & MS_NOEXEC:
        raise LinuxError(EACCES)
    check_access(task.creds, inode, MAY_EXEC)
    if inode.writers:
        raise LinuxError(ETXTBSY)
    if task.kernel.hooks is not None:
        hook_calls.file_open(task, place, os.O_RDONLY)
    return inode.open(task, place, os.O_RDONLY | O_LARGEFILE)


def _may_open(task: Task, place: Path, inode: Inode, flags: int) -> None:
    """may_open(), and the read-only check of vfs_open()."""
    creds = task.creds
    kind = inode.mode & S_IFMT
    wanted = _ACCESS[flags & 3]
    if flags & os.O_TRUNC:
        wanted |= MAY_WRITE
    if kind == S_IFLNK:
        raise LinuxError(ELOOP)
    if kind == S_IFDIR:
        if wanted & MAY_WRITE:
            raise LinuxError(EISDIR)
    elif kind in (S_IFCHR, S_IFBLK) and place.mount.flags & MS_NODEV:
        raise LinuxError(EACCES)
    check_access(creds, inode, wanted)
    if flags & os.O_NOATIME and not is_owner(creds, inode):
        raise LinuxError(EPERM)
    if flags & 3 and place.mount.flags & MS_RDONLY and kind in (S_IFREG, S_IFDIR):
        raise LinuxError(EROFS)
    if kind == S_IFSOCK:
        raise LinuxError(ENXIO)


def _find_or_create(
    task: Task, dirfd: int, path: bytes, flags: int, mode: int, resolve_flags: int
) -> tuple[Path, bool]:
    """O_CREAT: the file, and whether it is a new one. lookup_open()"""
    if not path:
        raise LinuxError(ENOENT)
    walk = Walk(task, dirfd, path, resolve_flags)
    parent = walk.parent(path)
    exclusive = flags & os.O_EXCL != 0
    while True:
        directory, name, slash = parent
        if slash or name in (b"", b".", b".."):
            raise LinuxError(EISDIR)
        mount = directory.mount
        dentry = lookup(task, mount, directory.dentry, name)
        if dentry.inode is None:
            return _create(task, directory, dentry, flags, mode), True
        if dentry.mounts is not None:
            mount, dentry = walk.enter(mount, dentry)
        inode = dentry.inode
        assert inode is not None
        if inode.mode & S_IFMT != S_IFLNK or exclusive:
            break
        if flags & os.O_NOFOLLOW:
            raise LinuxError(ELOOP)
        jump = walk.magic(mount, directory.dentry, dentry)
        if jump is not None:
            mount, dentry = jump.mount, jump.dentry
            inode = jump.inode
            break
        text = walk.text(mount, directory.dentry, dentry)
        start_mount, start = mount, directory.dentry
        if text[:1] == b"/":
            start_mount, start = walk.absolute(mount, start)
        parent = walk.parent_from(start_mount, start, text)
    if exclusive:
        raise LinuxError(EEXIST)
    if inode.mode & S_IFMT == S_IFDIR:
        raise LinuxError(EISDIR)
    if directory.inode.mode & 0o1002 == 0o1002:
        may_create_in_sticky(task.creds, directory.inode, inode)
    return Path(mount, dentry), False


def _create(task: Task, directory: Path, dentry: Dentry, flags: int, mode: int) -> Path:
    """Make the regular file that `dentry`, a negative one, is to name."""
    if directory.mount.flags & MS_RDONLY:
        raise LinuxError(EROFS)
    inode = directory.inode
    creds = task.creds
    may_create(creds, directory.dentry)
    mode = S_IFREG | mode & 0o7777 & ~task.fs.umask
    uid, gid, mode = new_owner(creds, inode, mode)
    dentry.inode = inode.create(task, dentry.name, mode, uid, gid)
    if notify.watching:
        notify.entry_event(inode, dentry.name, notify.IN_CREATE, dentry.inode)
    return Path(directory.mount, dentry)


def _open_unnamed(
    task: Task, dirfd: int, path: bytes, flags: int, mode: int, resolve_flags: int
) -> FileDescription:
    """O_TMPFILE: a new file in the file system of the directory `path`, without a name."""
    directory = resolve(task, dirfd, path, follow=not flags & os.O_NOFOLLOW, flags=resolve_flags)
    if directory.inode.mode & S_IFMT != S_IFDIR:
        raise LinuxError(ENOTDIR)
    if directory.mount.flags & MS_RDONLY:
        raise LinuxError(EROFS)
    creds = task.creds
    check_access(creds, directory.inode, MAY_WRITE | MAY_EXEC)
    mode = S_IFREG | mode & 0o7777 & ~task.fs.umask
    uid, gid, mode = new_owner(creds, directory.inode, mode)
    inode = directory.inode.tmpfile(task, mode, uid, gid)
    inode.linkable = not flags & os.O_EXCL
    dentry = Dentry(b"#%d" % inode.ino, directory.dentry, inode)
    dentry.unlinked = True
    return inode.open(task, Path(directory.mount, dentry), flags & _KEPT_FLAGS | O_LARGEFILE)
