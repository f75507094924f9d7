"""Extended attributes: getxattr(2), setxattr(2), listxattr(2), removexattr(2) and their forms.
xattr(7)

Linux: fs/xattr.c.
"""

from __future__ import annotations

import os
from errno import E2BIG, EINVAL, ENODATA, ENOTSUP, EPERM, ERANGE
from stat import S_ISVTX
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from pysandbox_core.credentials import CAP_SYS_ADMIN
from pysandbox_core.declare import (
    AtFlags,
    DirFd,
    Fd,
    Int,
    Result,
    Size,
    UserAddr,
    UserPath,
    UserString,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import notify
from pysandbox_core.fs.permissions import (
    MAY_READ,
    MAY_WRITE,
    check_access,
    check_writable_mount,
    is_owner,
)
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import Inode

XATTR_NAME_MAX = 255
XATTR_SIZE_MAX = 1 << 16
XATTR_LIST_MAX = 1 << 16
S_IFREG, S_IFDIR, S_IFMT = 0o100000, 0o040000, 0o170000
XATTR_ARGS = Struct("<QII")
"""struct xattr_args: value, size, flags."""


@syscall("setxattr")
def setxattr(
    task: Task, path: UserPath, name: UserString, value: UserAddr, size: Size, flags: Int
) -> Result:
    """Set an attribute of a file; XATTR_CREATE, XATTR_REPLACE. setxattr(2)

    Errors: EINVAL unknown flag; ERANGE name empty or too long; E2BIG value too long; EROFS; EPERM;
    EACCES; ENOTSUP; EEXIST; ENODATA; ENOSPC.
    """
    return _set(task, _at(task, path), name, value, size, flags)


@syscall("lsetxattr")
def lsetxattr(
    task: Task, path: UserPath, name: UserString, value: UserAddr, size: Size, flags: Int
) -> Result:
    """setxattr(2) of a symbolic link itself."""
    return _set(task, _at(task, path, follow=False), name, value, size, flags)


@syscall("fsetxattr")
def fsetxattr(
    task: Task, fd: Fd, name: UserString, value: UserAddr, size: Size, flags: Int
) -> Result:
    """setxattr(2) of an open file."""
    return _set(task, _of(task, fd), name, value, size, flags)


@syscall("getxattr")
def getxattr(task: Task, path: UserPath, name: UserString, value: UserAddr, size: Size) -> Result:
    """Copy an attribute's value; its length, also when `size` is 0. getxattr(2)

    Errors: ENODATA; ENOTSUP; ERANGE no room; EACCES; those of path resolution.
    """
    return _get(task, _at(task, path), name, value, size)


@syscall("lgetxattr")
def lgetxattr(task: Task, path: UserPath, name: UserString, value: UserAddr, size: Size) -> Result:
    """getxattr(2) of a symbolic link itself."""
    return _get(task, _at(task, path, follow=False), name, value, size)


@syscall("fgetxattr")
def fgetxattr(task: Task, fd: Fd, name: UserString, value: UserAddr, size: Size) -> Result:
    """getxattr(2) of an open file."""
    return _get(task, _of(task, fd), name, value, size)


@syscall("listxattr")
def listxattr(task: Task, path: UserPath, names: UserAddr, size: Size) -> Result:
    """Copy the names of all attributes, each with a NUL; their length, also when `size` is 0."""
    return _list(task, _at(task, path), names, size)


@syscall("llistxattr")
def llistxattr(task: Task, path: UserPath, names: UserAddr, size: Size) -> Result:
    """listxattr(2) of a symbolic link itself."""
    return _list(task, _at(task, path, follow=False), names, size)


@syscall("flistxattr")
def flistxattr(task: Task, fd: Fd, names: UserAddr, size: Size) -> Result:
    """listxattr(2) of an open file."""
    return _list(task, _of(task, fd), names, size)


@syscall("removexattr")
def removexattr(task: Task, path: UserPath, name: UserString) -> Result:
    """Remove an attribute. ENODATA if there is none. removexattr(2)"""
    return _remove(task, _at(task, path), name)


@syscall("lremovexattr")
def lremovexattr(task: Task, path: UserPath, name: UserString) -> Result:
    """removexattr(2) of a symbolic link itself."""
    return _remove(task, _at(task, path, follow=False), name)


@syscall("fremovexattr")
def fremovexattr(task: Task, fd: Fd, name: UserString) -> Result:
    """removexattr(2) of an open file."""
    return _remove(task, _of(task, fd), name)


@syscall("setxattrat")
def setxattrat(
    task: Task,
    dirfd: DirFd,
    path: UserPath,
    flags: AtFlags,
    name: UserString,
    args: UserAddr,
    size: Size,
) -> Result:
    """setxattr(2) from `dirfd`, with a struct xattr_args."""
    place = _from(task, dirfd, path, flags)
    value, length, set_flags = _args(task, args, size)
    return _set(task, place, name, value, length, set_flags)


@syscall("getxattrat")
def getxattrat(
    task: Task,
    dirfd: DirFd,
    path: UserPath,
    flags: AtFlags,
    name: UserString,
    args: UserAddr,
    size: Size,
) -> Result:
    """getxattr(2) from `dirfd`, with a struct xattr_args."""
    place = _from(task, dirfd, path, flags)
    value, length, get_flags = _args(task, args, size)
    if get_flags:
        raise LinuxError(EINVAL)
    return _get(task, place, name, value, length)


@syscall("listxattrat")
def listxattrat(
    task: Task, dirfd: DirFd, path: UserPath, flags: AtFlags, names: UserAddr, size: Size
) -> Result:
    """listxattr(2) from `dirfd`."""
    return _list(task, _from(task, dirfd, path, flags), names, size)


@syscall("removexattrat")
def removexattrat(
    task: Task, dirfd: DirFd, path: UserPath, flags: AtFlags, name: UserString
) -> Result:
    """removexattr(2) from `dirfd`."""
    return _remove(task, _from(task, dirfd, path, flags), name)


def _at(task: Task, path: int, *, follow: bool = True) -> tuple[Inode, Path | None]:
    place = resolve(task, AT_FDCWD, task.mm.read_path(path), follow=follow)
    return place.inode, place


def _of(task: Task, fd: int) -> tuple[Inode, Path | None]:
    file = task.files.get(fd)
    return file.inode, file.path


def _from(task: Task, dirfd: int, path: int, flags: int) -> tuple[Inode, Path | None]:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    name = b"" if not path and flags & AT_EMPTY_PATH else task.mm.read_path(path)
    place = resolve(
        task, dirfd, name, follow=not flags & AT_SYMLINK_NOFOLLOW, empty=bool(flags & AT_EMPTY_PATH)
    )
    return place.inode, place


def _args(task: Task, args: int, size: int) -> tuple[int, int, int]:
    if size < XATTR_ARGS.size:
        raise LinuxError(EINVAL)
    if size > XATTR_SIZE_MAX:
        raise LinuxError(E2BIG)
    data = task.mm.read(args, size)
    if any(data[XATTR_ARGS.size :]):
        raise LinuxError(E2BIG)
    value, length, flags = XATTR_ARGS.unpack_from(data)
    return value, length, flags


def _name(task: Task, addr: int) -> bytes:
    """The name at a user address. ERANGE"""
    data = bytearray()
    mm = task.mm
    while len(data) <= XATTR_NAME_MAX:
        byte = mm.read(addr + len(data), 1)
        if byte == b"\0":
            break
        data += byte
    if not data or len(data) > XATTR_NAME_MAX:
        raise LinuxError(ERANGE)
    return bytes(data)


def _check(task: Task, inode: Inode, name: bytes, wanted: int) -> None:
    """xattr_permission()"""
    if name.startswith((b"security.", b"system.")):
        return
    if name.startswith(b"trusted."):
        if not task.creds.capable(CAP_SYS_ADMIN):
            raise LinuxError(EPERM if wanted & MAY_WRITE else ENODATA)
        return
    if name.startswith(b"user."):
        kind = inode.mode & S_IFMT
        if kind not in (S_IFREG, S_IFDIR):
            raise LinuxError(EPERM if wanted & MAY_WRITE else ENODATA)
        if kind == S_IFDIR and inode.mode & S_ISVTX and wanted & MAY_WRITE:
            if not is_owner(task.creds, inode):
                raise LinuxError(EPERM)
    check_access(task.creds, inode, wanted)


def _set(
    task: Task,
    place: tuple[Inode, Path | None],
    name_addr: int,
    value: int,
    size: int,
    flags: int,
) -> int:
    if flags & ~(os.XATTR_CREATE | os.XATTR_REPLACE):
        raise LinuxError(EINVAL)
    name = _name(task, name_addr)
    if size > XATTR_SIZE_MAX:
        raise LinuxError(E2BIG)
    data = task.mm.read(value, size) if size else b""
    inode = _writable(task, place, name)
    inode.set_xattr(name, data, flags)
    _tell(place)
    return 0


def _writable(task: Task, place: tuple[Inode, Path | None], name: bytes) -> Inode:
    """The inode, whose attribute `name` may be changed."""
    inode, path = place
    if path is not None:
        check_writable_mount(path.mount)
    _check(task, inode, name, MAY_WRITE)
    if name.startswith(b"security.") and not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    if b"." not in name:
        raise LinuxError(ENOTSUP)
    return inode


def _get(
    task: Task, place: tuple[Inode, Path | None], name_addr: int, value: int, size: int
) -> int:
    name = _name(task, name_addr)
    inode = place[0]
    _check(task, inode, name, MAY_READ)
    data = inode.get_xattr(name)
    if size:
        if len(data) > size:
            raise LinuxError(ERANGE)
        task.mm.write(value, data)
    return len(data)


def _list(task: Task, place: tuple[Inode, Path | None], addr: int, size: int) -> int:
    names = place[0].list_xattrs()
    if not task.creds.capable(CAP_SYS_ADMIN):
        names = [name for name in names if not name.startswith(b"trusted.")]
    data = b"".join(name + b"\0" for name in names)
    if len(data) > XATTR_LIST_MAX:
        raise LinuxError(E2BIG)
    if size:
        if len(data) > size:
            raise LinuxError(ERANGE)
        task.mm.write(addr, data)
    return len(data)


def _remove(task: Task, place: tuple[Inode, Path | None], name_addr: int) -> int:
    name = _name(task, name_addr)
    _writable(task, place, name).remove_xattr(name)
    _tell(place)
    return 0


def _tell(place: tuple[Inode, Path | None]) -> None:
    if notify.watching and place[1] is not None:
        notify.dentry_event(place[1].dentry, notify.IN_ATTRIB)
