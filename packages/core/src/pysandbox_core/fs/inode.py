"""Inode and FileSystem: what every file system gives the VFS.

Interface: one `Inode` object stands for one file of a file system for as long as anything refers to
it. Names are bytes without a slash; `b"."` and `b".."` never reach an inode. The VFS has already
checked permissions, mounts, read-only mounts and name lengths, and holds what Linux would lock; an
inode checks what only it can know (does the name exist, is the directory empty). An operation that
a file system does not have raises the errno that Linux gives for it; the defaults here do.

Linux: struct inode_operations, Documentation/filesystems/vfs.rst.
"""

from __future__ import annotations

import stat as stat_module
from errno import EINVAL, ENOTDIR, ENOTSUP, ENXIO, EPERM, EROFS
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.locks import FileLocks
    from pysandbox_core.fs.notify import Watch
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task
    from pysandbox_core.waiting import WaitQueue


class DirEntry(NamedTuple):
    """One name in a directory, getdents64(2)."""

    name: bytes
    ino: int
    mode: int
    """File type bits (S_IFMT) of the entry; 0 for unknown."""


class Stat(NamedTuple):
    """What stat(2) and statx(2) report. Times in nanoseconds since the epoch, sizes in bytes."""

    dev: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blksize: int
    blocks: int
    """Of 512 bytes."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int = 0


class StatFs(NamedTuple):
    """What statfs(2) reports; sizes in blocks of `bsize` bytes."""

    type: int
    bsize: int = 4096
    blocks: int = 0
    bfree: int = 0
    bavail: int = 0
    files: int = 0
    ffree: int = 0
    namelen: int = 255
    flags: int = 0


class FileSystem:
    """One mounted instance. `root` is its root directory, `dev` its st_dev."""

    type_name = b"none"
    """As in the third field of /proc/mounts."""
    cacheable = True
    """May dentries below be kept? False where names come and go by themselves (proc)."""
    fixed_names = False
    """No name can be made: looking for one that is not there fails (proc)."""
    root: Inode
    dev: int

    def statfs(self) -> StatFs:
        return StatFs(type=0)

    def options(self) -> bytes:
        """The file system's own options, as in the fourth field of /proc/mounts."""
        return b""

    def sync(self) -> None:
        """Bring everything written to where it belongs."""

    def unmounted(self) -> None:
        """The last mount of it is gone: give back what it holds."""


class Inode:
    """One file. `mode` includes the type bits; times are nanoseconds since the epoch."""

    fs: FileSystem
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int = 1
    rdev: int = 0
    watches: list[Watch] | None = None
    """Who wants to know what happens to it: notify.py."""
    locks: FileLocks | None = None
    """Locks held on it: locks.py."""
    linkable = False
    """It has no name but may be given one: made by O_TMPFILE without O_EXCL."""
    opens: int = 0
    """Open file descriptions of a regular file."""
    writers: int = 0
    """Open file descriptions of a regular file that may write: execve(2) refuses it, ETXTBSY."""
    executions: int = 0
    """Processes that run it: opening it for writing is ETXTBSY."""
    busy: WaitQueue | None = None
    """Of a regular file, while somebody writes much to it: who waits for the end."""

    @property
    def mapped(self) -> Mappable | None:
        """What programs may have mapped of it, if any may have."""
        return None

    @property
    def is_dir(self) -> bool:
        return stat_module.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat_module.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat_module.S_ISLNK(self.mode)

    def stat(self) -> Stat:
        """Every attribute, as of now."""
        raise NotImplementedError

    # Changing attributes. The VFS has checked that the caller may.

    def set_mode(self, mode: int) -> None:
        """Set the permission bits (07777)."""
        raise LinuxError(EPERM)

    def set_owner(self, uid: int, gid: int, mode: int) -> None:
        """Set owner and group, and the permission bits that chown(2) leaves."""
        raise LinuxError(EPERM)

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set the times that are not None; ctime becomes now."""
        raise LinuxError(EPERM)

    def truncate(self, length: int) -> None:
        """Set the size of a regular file."""
        raise LinuxError(EINVAL)

    # Directories.

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        """The file called `name`, None if there is none."""
        raise LinuxError(ENOTDIR)

    def entries(self, task: Task) -> list[DirEntry]:
        """Every name but `.` and `..`, in an order that stays while nothing changes."""
        raise LinuxError(ENOTDIR)

    def create(self, task: Task, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        """Make an empty regular file; `mode` is complete (type bits, umask applied)."""
        raise LinuxError(EROFS)

    def tmpfile(self, task: Task, mode: int, uid: int, gid: int) -> Inode:
        """Make a regular file without a name (O_TMPFILE), its link count 0."""
        raise LinuxError(ENOTSUP)

    def mkdir(self, task: Task, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        raise LinuxError(EPERM)

    def mknod(self, task: Task, name: bytes, mode: int, rdev: int, uid: int, gid: int) -> Inode:
        """Make a fifo, a socket or a device node."""
        raise LinuxError(EPERM)

    def symlink(self, task: Task, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        raise LinuxError(EPERM)

    def link(self, task: Task, name: bytes, inode: Inode) -> None:
        """Give `inode`, a file of the same file system that is no directory, another name here."""
        raise LinuxError(EPERM)

    def unlink(self, task: Task, name: bytes, inode: Inode) -> None:
        """Remove the name of `inode`, which is no directory."""
        raise LinuxError(EPERM)

    def rmdir(self, task: Task, name: bytes, inode: Inode) -> None:
        """Remove the empty directory `inode`. ENOTEMPTY if it is not."""
        raise LinuxError(EPERM)

    def rename(
        self,
        task: Task,
        old_name: bytes,
        inode: Inode,
        new_dir: Inode,
        new_name: bytes,
        replaced: Inode | None,
        exchange: bool,
    ) -> None:
        """Move `inode` from here to `new_dir`, over `replaced` if given, or exchange the two."""
        raise LinuxError(EPERM)

    # Symbolic links.

    def readlink(self, task: Task) -> bytes:
        raise LinuxError(EINVAL)

    def follow(self, task: Task) -> Path | None:
        """Where a magic link leads, without its text being walked (/proc/PID/fd/N); None for an
        ordinary symbolic link."""
        return None

    # Opening.

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        """A new file description; `flags` are those of open(2), O_CREAT, O_EXCL, O_TRUNC done
        with."""
        raise LinuxError(ENXIO)  # Linux: no_open

    # Extended attributes, xattr(7). Names are complete (b"user.x").

    def get_xattr(self, name: bytes) -> bytes:
        raise LinuxError(ENOTSUP)

    def set_xattr(self, name: bytes, value: bytes, flags: int) -> None:
        raise LinuxError(ENOTSUP)

    def list_xattrs(self) -> list[bytes]:
        return []

    def remove_xattr(self, name: bytes) -> None:
        raise LinuxError(ENOTSUP)
