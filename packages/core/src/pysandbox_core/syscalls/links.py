"""readlink(2), link(2), unlink(2), symlink(2), mknod(2) and their forms with a directory
descriptor."""

from __future__ import annotations

from errno import EINVAL, ENOENT, EPERM
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK

from pysandbox_core.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW
from pysandbox_core.credentials import CAP_DAC_READ_SEARCH
from pysandbox_core.declare import (
    AtFlags,
    DirFd,
    Int,
    Mode,
    Result,
    UInt,
    UserAddr,
    UserPath,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.names import create_name, link_name, remove_directory, remove_file
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

S_IFMT = 0o170000


@syscall("readlink")
def readlink(task: Task, path: UserPath, buf: UserAddr, bufsiz: Int) -> Result:
    """Copy the text of a symbolic link, without a NUL and cut to `bufsiz`; its length. readlink(2)

    Errors: EINVAL bufsiz <= 0, or no symbolic link; those of path resolution; EFAULT.
    """
    return _readlink(task, AT_FDCWD, path, buf, bufsiz)


@syscall("readlinkat")
def readlinkat(task: Task, dirfd: DirFd, path: UserPath, buf: UserAddr, bufsiz: Int) -> Result:
    """readlink(2) from `dirfd`; an empty path reads `dirfd`, a link opened with O_PATH."""
    return _readlink(task, dirfd, path, buf, bufsiz)


def _readlink(task: Task, dirfd: int, path: int, buf: int, bufsiz: int) -> int:
    if bufsiz <= 0:
        raise LinuxError(EINVAL)
    name = task.mm.read_path(path)
    inode = resolve(task, dirfd, name, follow=False, empty=dirfd != AT_FDCWD).inode
    if inode.mode & S_IFMT != S_IFLNK:
        raise LinuxError(EINVAL if name else ENOENT)
    text = inode.readlink(task)[:bufsiz]
    task.mm.write(buf, text)
    return len(text)


@syscall("symlink")
def symlink(task: Task, target: UserPath, linkpath: UserPath) -> Result:
    """Make a symbolic link. symlink(2)

    Errors: ENOENT empty target; those of path resolution; EEXIST; EROFS; EACCES; ENOSPC.
    """
    return _symlink(task, target, AT_FDCWD, linkpath)


@syscall("symlinkat")
def symlinkat(task: Task, target: UserPath, newdirfd: DirFd, linkpath: UserPath) -> Result:
    """symlink(2) from `newdirfd`."""
    return _symlink(task, target, newdirfd, linkpath)


def _symlink(task: Task, target: int, newdirfd: int, linkpath: int) -> int:
    text = task.mm.read_path(target)
    if not text:
        raise LinuxError(ENOENT)
    create_name(task, newdirfd, task.mm.read_path(linkpath), S_IFLNK | 0o777, target=text)
    return 0


@syscall("link")
def link(task: Task, oldpath: UserPath, newpath: UserPath) -> Result:
    """Give a file another name. A symbolic link itself, not what it leads to. link(2)

    Errors: those of path resolution; EEXIST; EROFS; EXDEV; EPERM directory, or not one's own;
    EACCES.
    """
    return _link(task, AT_FDCWD, oldpath, AT_FDCWD, newpath, 0)


@syscall("linkat")
def linkat(
    task: Task,
    olddirfd: DirFd,
    oldpath: UserPath,
    newdirfd: DirFd,
    newpath: UserPath,
    flags: AtFlags,
) -> Result:
    """link(2) with directories, AT_SYMLINK_FOLLOW and AT_EMPTY_PATH. linkat(2)"""
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    return _link(task, olddirfd, oldpath, newdirfd, newpath, flags)


def _link(task: Task, olddirfd: int, oldpath: int, newdirfd: int, newpath: int, flags: int) -> int:
    old_name = task.mm.read_path(oldpath)
    empty = flags & AT_EMPTY_PATH != 0
    if empty and not old_name and not task.creds.capable(CAP_DAC_READ_SEARCH):
        raise LinuxError(ENOENT)
    old = resolve(task, olddirfd, old_name, follow=flags & AT_SYMLINK_FOLLOW != 0, empty=empty)
    link_name(task, old, newdirfd, task.mm.read_path(newpath))
    return 0


@syscall("unlink")
def unlink(task: Task, path: UserPath) -> Result:
    """Remove a name; the file goes with its last name and its last open description. unlink(2)

    Errors: those of path resolution; EISDIR; EROFS; EACCES; EPERM sticky; EBUSY mount point.
    """
    remove_file(task, AT_FDCWD, task.mm.read_path(path))
    return 0


@syscall("unlinkat")
def unlinkat(task: Task, dirfd: DirFd, path: UserPath, flags: AtFlags) -> Result:
    """unlink(2), or rmdir(2) with AT_REMOVEDIR, from `dirfd`."""
    if flags & ~AT_REMOVEDIR:
        raise LinuxError(EINVAL)
    remove = remove_directory if flags & AT_REMOVEDIR else remove_file
    remove(task, dirfd, task.mm.read_path(path))
    return 0


@syscall("mknod")
def mknod(task: Task, path: UserPath, mode: Mode, dev: UInt) -> Result:
    """Make a fifo, a socket, a device node or a regular file. mknod(2)

    Errors: EPERM directory; EINVAL unknown type; those of path resolution; EEXIST; EROFS; EACCES;
    EPERM a device without CAP_MKNOD.
    """
    return _mknod(task, AT_FDCWD, path, mode, dev)


@syscall("mknodat")
def mknodat(task: Task, dirfd: DirFd, path: UserPath, mode: Mode, dev: UInt) -> Result:
    """mknod(2) from `dirfd`."""
    return _mknod(task, dirfd, path, mode, dev)


def _mknod(task: Task, dirfd: int, path: int, mode: int, dev: int) -> int:
    kind = mode & S_IFMT or S_IFREG
    if kind == S_IFDIR:
        raise LinuxError(EPERM)
    if kind not in (S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK):
        raise LinuxError(EINVAL)
    mode = kind | mode & 0o7777 & ~task.fs.umask
    rdev = dev if kind in (S_IFCHR, S_IFBLK) else 0
    create_name(task, dirfd, task.mm.read_path(path), mode, rdev)
    return 0
