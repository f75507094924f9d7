"""chdir(2), fchdir(2), getcwd(2), chroot(2), pivot_root(2), umask(2)."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, ERANGE

from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.credentials import CAP_SYS_ADMIN, CAP_SYS_CHROOT
from pysandbox_core.declare import Fd, Mode, Result, ULong, UserAddr, UserPath, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Path
from pysandbox_core.fs.permissions import MAY_EXEC, check_access
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

PATH_MAX = 4096


@syscall("chdir")
def chdir(task: Task, path: UserPath) -> Result:
    """Make the directory at `path` the working directory. chdir(2)

    Errors: those of path resolution; ENOTDIR; EACCES no search permission.
    """
    task.fs.set_cwd(directory_at(task, path))
    return 0


@syscall("fchdir")
def fchdir(task: Task, fd: Fd) -> Result:
    """Make an open directory the working directory. EBADF, ENOTDIR, EACCES. fchdir(2)"""
    file = task.files.get_any(fd)
    if file.path is None or not file.inode.is_dir:
        raise LinuxError(ENOTDIR)
    check_access(task.creds, file.inode, MAY_EXEC)
    task.fs.set_cwd(file.path)
    return 0


@syscall("getcwd")
def getcwd(task: Task, buf: UserAddr, size: ULong) -> Result:
    """Copy the working directory's path, with a NUL; how many bytes that is. getcwd(2)

    Errors: ENOENT it was removed; ENAMETOOLONG; ERANGE no room; EFAULT. A directory that is not
    below the root shows with `(unreachable)` before it, as Linux has it.
    """
    cwd = task.fs.cwd
    if cwd.dentry.unlinked:
        raise LinuxError(ENOENT)
    text, reachable = cwd.text(task.fs.root, PATH_MAX)
    if not reachable:
        text = b"(unreachable)" + text
    if len(text) + 1 > PATH_MAX:
        raise LinuxError(ENAMETOOLONG)
    if len(text) + 1 > size:
        raise LinuxError(ERANGE)
    task.mm.write(buf, text + b"\0")
    return len(text) + 1


@syscall("chroot")
def chroot(task: Task, path: UserPath) -> Result:
    """Make the directory at `path` the root; the working directory stays. chroot(2)

    Errors: those of chdir(2); EPERM without CAP_SYS_CHROOT.
    """
    place = directory_at(task, path)
    if not task.creds.capable(CAP_SYS_CHROOT):
        raise LinuxError(EPERM)
    task.fs.set_root(place)
    return 0


@syscall("pivot_root")
def pivot_root(task: Task, new_root: UserPath, put_old: UserPath) -> Result:
    """Exchange the root mount: `new_root`, a mount point, becomes it, the old one goes to `put_old`
    below. Every task whose root or working directory was the old root follows. pivot_root(2)

    Errors: EPERM without CAP_SYS_ADMIN; those of path resolution; ENOENT `put_old` is gone; EBUSY
    `new_root` or `put_old` is on the current root mount; EINVAL `new_root` is no mount point, or
    `put_old` is not below it.
    """
    if not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    new = directory_at(task, new_root, search=False)
    old = directory_at(task, put_old, search=False)
    mounts = task.kernel.mounts
    mounts.check_mountable(old)
    root = task.fs.root
    if new.mount is root.mount or old.mount is root.mount:
        raise LinuxError(EBUSY)
    if root.dentry is not root.mount.root or root.mount is not mounts.root_mount:
        raise LinuxError(EINVAL)
    if new.dentry is not new.mount.root or new.mount.parent is None or not old.text(new)[1]:
        raise LinuxError(EINVAL)
    mounts.pivot(new.mount, old)
    for other in task.kernel.tasks.values():
        context = other.fs
        if context.users > 0:
            if context.root.same(root):
                context.set_root(Path(new.mount, new.dentry))
            if context.cwd.same(root):
                context.set_cwd(Path(new.mount, new.dentry))
    return 0


@syscall("umask")
def umask(task: Task, mask: Mode) -> Result:
    """Set which permission bits new files do not get; the previous ones. umask(2)"""
    previous = task.fs.umask
    task.fs.umask = mask & 0o777
    return previous


def directory_at(task: Task, path: int, *, search: bool = True) -> Path:
    """The directory at a user path, which may be searched."""
    place = resolve(task, AT_FDCWD, task.mm.read_path(path))
    if not place.inode.is_dir:
        raise LinuxError(ENOTDIR)
    if search:
        check_access(task.creds, place.inode, MAY_EXEC)
    return place
