"""access(2), chmod(2), chown(2) and their forms with descriptors."""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOTSUP, EROFS
from stat import S_IFDIR, S_IFLNK, S_IFREG
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
)
from pysandbox_core.credentials import Credentials, replace
from pysandbox_core.declare import (
    AtFlags,
    DirFd,
    Fd,
    Gid,
    Int,
    Mode,
    Result,
    Uid,
    UInt,
    UserPath,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import notify
from pysandbox_core.fs.mount import MS_NOEXEC, MS_RDONLY
from pysandbox_core.fs.permissions import (
    MAY_EXEC,
    MAY_WRITE,
    check_access,
    check_writable_mount,
    mode_after_chmod,
    mode_after_chown,
)
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path

S_IFMT = 0o170000
_UNCHANGED = 0xFFFFFFFF
_SECURE_NO_SETUID_FIXUP = 1 << 2


@syscall("access")
def access(task: Task, path: UserPath, mode: Int) -> Result:
    """May the real user do `mode` (R_OK, W_OK, X_OK, or F_OK: does it exist) to a file? access(2)

    Errors: EINVAL unknown bit; those of path resolution; EROFS; EACCES.
    """
    return _access(task, AT_FDCWD, path, mode, 0)


@syscall("faccessat")
def faccessat(task: Task, dirfd: DirFd, path: UserPath, mode: Int) -> Result:
    """access(2) from `dirfd`."""
    return _access(task, dirfd, path, mode, 0)


@syscall("faccessat2")
def faccessat2(task: Task, dirfd: DirFd, path: UserPath, mode: Int, flags: AtFlags) -> Result:
    """access(2) with AT_EACCESS (the effective user), AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH."""
    if flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    return _access(task, dirfd, path, mode, flags)


def _access(task: Task, dirfd: int, path: int, mode: int, flags: int) -> int:
    if mode & ~7:
        raise LinuxError(EINVAL)
    saved = task.creds
    if not flags & AT_EACCESS:
        task.creds = _real_credentials(saved)
    try:
        place = resolve(
            task,
            dirfd,
            task.mm.read_path(path),
            follow=not flags & AT_SYMLINK_NOFOLLOW,
            empty=flags & AT_EMPTY_PATH != 0,
        )
        inode = place.inode
        kind = inode.mode & S_IFMT
        if mode & MAY_EXEC and kind == S_IFREG and place.mount.flags & MS_NOEXEC:
            raise LinuxError(EACCES)
        if mode:
            check_access(task.creds, inode, mode)
    finally:
        task.creds = saved
    if mode & MAY_WRITE and place.mount.flags & MS_RDONLY and kind in (S_IFREG, S_IFDIR, S_IFLNK):
        raise LinuxError(EROFS)
    return 0


def _real_credentials(creds: Credentials) -> Credentials:
    """Those of the real user: access_override_creds()."""
    effective = creds.cap_effective
    if not creds.securebits & _SECURE_NO_SETUID_FIXUP:
        effective = creds.cap_permitted if creds.uid == 0 else 0
    if (creds.fsuid, creds.fsgid, creds.cap_effective) == (creds.uid, creds.gid, effective):
        return creds
    return replace(creds, fsuid=creds.uid, fsgid=creds.gid, cap_effective=effective)


@syscall("chmod")
def chmod(task: Task, path: UserPath, mode: Mode) -> Result:
    """Set the permission bits of a file. chmod(2)

    Errors: those of path resolution; EROFS; EPERM not the owner.
    """
    return _chmod(task, resolve(task, AT_FDCWD, task.mm.read_path(path)), mode)


@syscall("fchmod")
def fchmod(task: Task, fd: Fd, mode: Mode) -> Result:
    """chmod(2) of an open file. EBADF also for O_PATH."""
    file = task.files.get(fd)
    if file.path is None:
        file.inode.set_mode(mode_after_chmod(task.creds, file.inode, mode & 0o7777))
        return 0
    return _chmod(task, file.path, mode)


@syscall("fchmodat")
def fchmodat(task: Task, dirfd: DirFd, path: UserPath, mode: Mode) -> Result:
    """chmod(2) from `dirfd`."""
    return _chmod(task, resolve(task, dirfd, task.mm.read_path(path)), mode)


@syscall("fchmodat2")
def fchmodat2(task: Task, dirfd: DirFd, path: UserPath, mode: Mode, flags: UInt) -> Result:
    """chmod(2) with AT_SYMLINK_NOFOLLOW (EOPNOTSUPP for a link itself) and AT_EMPTY_PATH."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    follow = not flags & AT_SYMLINK_NOFOLLOW
    empty = flags & AT_EMPTY_PATH != 0
    return _chmod(
        task, resolve(task, dirfd, task.mm.read_path(path), follow=follow, empty=empty), mode
    )


def _chmod(task: Task, place: Path, mode: int) -> int:
    check_writable_mount(place.mount)
    inode = place.inode
    if inode.mode & S_IFMT == S_IFLNK:
        raise LinuxError(ENOTSUP)
    inode.set_mode(mode_after_chmod(task.creds, inode, mode & 0o7777))
    if notify.watching:
        notify.dentry_event(place.dentry, notify.IN_ATTRIB)
    return 0


@syscall("chown")
def chown(task: Task, path: UserPath, owner: Uid, group: Gid) -> Result:
    """Set the owner and the group of a file; -1 leaves one as it is. chown(2)

    Errors: those of path resolution; EROFS; EPERM.
    """
    return _chown(task, resolve(task, AT_FDCWD, task.mm.read_path(path)), owner, group)


@syscall("lchown")
def lchown(task: Task, path: UserPath, owner: Uid, group: Gid) -> Result:
    """chown(2) of a symbolic link itself."""
    place = resolve(task, AT_FDCWD, task.mm.read_path(path), follow=False)
    return _chown(task, place, owner, group)


@syscall("fchown")
def fchown(task: Task, fd: Fd, owner: Uid, group: Gid) -> Result:
    """chown(2) of an open file. EBADF also for O_PATH."""
    file = task.files.get(fd)
    if file.path is not None:
        return _chown(task, file.path, owner, group)
    uid, gid = _ids(owner, group)
    inode = file.inode
    mode = mode_after_chown(task.creds, inode, uid, gid)
    inode.set_owner(inode.uid if uid is None else uid, inode.gid if gid is None else gid, mode)
    return 0


@syscall("fchownat")
def fchownat(
    task: Task, dirfd: DirFd, path: UserPath, owner: Uid, group: Gid, flags: AtFlags
) -> Result:
    """chown(2) from `dirfd`, with AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    follow = not flags & AT_SYMLINK_NOFOLLOW
    empty = flags & AT_EMPTY_PATH != 0
    place = resolve(task, dirfd, task.mm.read_path(path), follow=follow, empty=empty)
    return _chown(task, place, owner, group)


def _chown(task: Task, place: Path, owner: int, group: int) -> int:
    check_writable_mount(place.mount)
    inode = place.inode
    uid, gid = _ids(owner, group)
    mode = mode_after_chown(task.creds, inode, uid, gid)
    inode.set_owner(inode.uid if uid is None else uid, inode.gid if gid is None else gid, mode)
    if notify.watching:
        notify.dentry_event(place.dentry, notify.IN_ATTRIB)
    return 0


def _ids(owner: int, group: int) -> tuple[int | None, int | None]:
    return None if owner == _UNCHANGED else owner, None if group == _UNCHANGED else group
