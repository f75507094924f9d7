"""mount(2), umount2(2), and the newer mount calls, which are refused.

What can be mounted: tmpfs, proc, sysfs, devpts (the one there is), and binds; by whoever has
CAP_SYS_ADMIN. Propagation is always private. Linux: fs/namespace.c.
"""

from __future__ import annotations

from errno import (
    EBUSY,
    EFAULT,
    EINVAL,
    ELOOP,
    ENODEV,
    ENOENT,
    ENOSPC,
    ENOSYS,
    ENOTBLK,
    ENOTDIR,
    EPERM,
)
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.credentials import CAP_SYS_ADMIN
from pysandbox_core.declare import (
    Hex,
    Int,
    Result,
    UserAddr,
    UserPath,
    UserString,
    refused,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.mount import (
    MOUNT_FLAGS,
    MS_BIND,
    MS_MOVE,
    MS_NOATIME,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_UNBINDABLE,
    Mount,
)
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.fs.tmpfs import TmpFs
from pysandbox_core.kernel_memory import INODE, NAME
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import FileSystem

MS_MGC_VAL = 0xC0ED0000
MS_MGC_MSK = 0xFFFF0000
PAGE_SIZE = 4096
MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW = 1, 2, 4, 8
_PROPAGATION = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE
_UNITS = {b"k": 10, b"m": 20, b"g": 30, b"t": 40}


@syscall("mount", note="tmpfs, proc, sysfs, devpts and binds; every mount is private")
def mount(
    task: Task,
    source: UserString,
    target: UserPath,
    fstype: UserString,
    flags: Hex,
    data: UserAddr,
) -> Result:
    """Mount a file system, bind, move, or change a mount. mount(2)

    Errors: EFAULT; those of path resolution; EPERM without CAP_SYS_ADMIN; EINVAL, also for what is
    not attached anywhere; ENOENT the target is gone; ENODEV unknown file system; ENOTBLK one that
    needs a device; ENOTDIR; EBUSY; ELOOP.
    """
    kind = _string(task, fstype)
    device = _string(task, source)
    options = _data(task, data)
    place = resolve(task, AT_FDCWD, task.mm.read_path(target))
    if not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    if flags & MS_MGC_MSK == MS_MGC_VAL:
        flags &= ~MS_MGC_MSK
    if flags & MS_REMOUNT:
        _remount(task, place, flags, options)
    elif flags & MS_BIND:
        _bind(task, device, place, flags)
    elif flags & _PROPAGATION:
        _propagation(task, place, flags)
    elif flags & MS_MOVE:
        _move(task, device, place)
    else:
        _new(task, device, place, kind, flags, options)
    return 0


def _string(task: Task, addr: int) -> bytes:
    """A string of at most a page; b"" for a null pointer. copy_mount_string()"""
    return task.mm.read_cstring(addr, PAGE_SIZE) if addr else b""


def _data(task: Task, addr: int) -> bytes:
    """The options, which need not end within their page. copy_mount_options()"""
    if not addr:
        return b""
    found = task.mm.read_some(addr, PAGE_SIZE)
    if not found:
        raise LinuxError(EFAULT)
    return found[: PAGE_SIZE - 1].partition(b"\0")[0]


def _mount_flags(flags: int) -> int:
    """The mount's own flags; relatime unless another way was asked for."""
    kept = flags & MOUNT_FLAGS
    if not flags & (MS_NOATIME | MS_STRICTATIME):
        kept |= MS_RELATIME
    return kept


def _is_root(place: Path) -> bool:
    return place.dentry is place.mount.root


def _is_attached_root(task: Task, place: Path) -> bool:
    return _is_root(place) and task.kernel.mounts.has(place.mount)


def _remount(task: Task, place: Path, flags: int, options: bytes) -> None:
    if not _is_attached_root(task, place):
        raise LinuxError(EINVAL)
    fs = place.inode.fs
    if not flags & MS_BIND and isinstance(fs, TmpFs) and fs.type_name == b"tmpfs":
        settings = _tmpfs_options(options)
        if settings.max_bytes is not None:
            fs.space.set_pages(-(-settings.max_bytes // PAGE_SIZE) or None)
        if settings.max_inodes is not None:
            fs.space.set_inodes(settings.max_inodes or None)
    kept = _mount_flags(flags)
    if place.mount.read_only and not kept & MS_RDONLY and not getattr(fs, "writable", True):
        raise LinuxError(EPERM)  # a bind that the sandbox's owner has made read-only
    place.mount.flags = kept


def _bind(task: Task, device: bytes, place: Path, flags: int) -> None:
    if not device:
        raise LinuxError(EINVAL)
    source = resolve(task, AT_FDCWD, device)
    mounts = task.kernel.mounts
    if not mounts.has(source.mount):
        raise LinuxError(EINVAL)
    mounts.check_mountable(place)
    if source.inode.is_dir != place.inode.is_dir:
        raise LinuxError(ENOTDIR)
    if source.dentry.unlinked:
        raise LinuxError(ENOENT)
    _check_room(task, mounts.count if flags & MS_REC else 1)
    mounts.bind(source, place, recursive=bool(flags & MS_REC))


def _propagation(task: Task, place: Path, flags: int) -> None:
    """Everything is private already; asking for one kind at a time is no error."""
    kind = flags & _PROPAGATION
    if kind & kind - 1 or not _is_attached_root(task, place):
        raise LinuxError(EINVAL)


def _move(task: Task, device: bytes, place: Path) -> None:
    if not device:
        raise LinuxError(EINVAL)
    source = resolve(task, AT_FDCWD, device)
    task.kernel.mounts.check_mountable(place)
    if not _is_root(source) or source.mount.parent is None:
        raise LinuxError(EINVAL)
    if source.inode.is_dir != place.inode.is_dir:
        raise LinuxError(EINVAL)
    above: Mount | None = place.mount
    while above is not None:
        if above is source.mount:
            raise LinuxError(ELOOP)
        above = above.parent
    task.kernel.mounts.move(source.mount, place)


def _new(task: Task, device: bytes, place: Path, kind: bytes, flags: int, options: bytes) -> None:
    if not kind:
        raise LinuxError(EINVAL)
    fs = _file_system(task, kind, options)
    task.kernel.mounts.check_mountable(place)
    if not place.inode.is_dir:
        raise LinuxError(ENOTDIR)
    _check_room(task, 1)
    if _is_root(place) and place.mount.fs is fs:
        raise LinuxError(EBUSY)
    task.kernel.mounts.mount(fs, place, device or b"none", _mount_flags(flags))


def _check_room(task: Task, count: int) -> None:
    """ENOSPC, ENOMEM if there is no room for so many mounts more."""
    if task.kernel.mounts.count + count > MOUNTS_MAX:
        raise LinuxError(ENOSPC)
    task.kernel.memory.grow(count * (INODE + NAME))


def _file_system(task: Task, kind: bytes, options: bytes) -> FileSystem:
    kernel = task.kernel
    if kind in (b"tmpfs", b"ramfs"):
        settings = _tmpfs_options(options)
        creds = task.creds
        return TmpFs(
            kernel,
            mode=settings.mode,
            uid=creds.fsuid if settings.uid is None else settings.uid,
            gid=creds.fsgid if settings.gid is None else settings.gid,
            max_bytes=settings.max_bytes,
            max_inodes=settings.max_inodes,
        )
    if kind == b"devpts":
        return kernel.devpts
    if kind == b"proc":
        from pysandbox_core.fs.proc.filesystem import ProcFs

        return ProcFs(kernel)
    if kind == b"sysfs":
        from pysandbox_core.fs.sys import SysFs

        return SysFs(kernel)
    if kind in (b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"vfat", b"iso9660", b"squashfs"):
        raise LinuxError(ENOTBLK)  # there is no block device to hold one
    raise LinuxError(ENODEV)


MOUNTS_MAX = 100_000
"""/proc/sys/fs/mount-max"""


class TmpfsOptions:
    """What the option string of a tmpfs says. tmpfs(5)"""

    __slots__ = ("gid", "max_bytes", "max_inodes", "mode", "uid")

    def __init__(self) -> None:
        self.mode = 0o1777
        self.uid: int | None = None
        self.gid: int | None = None
        self.max_bytes: int | None = None
        self.max_inodes: int | None = None


def _tmpfs_options(options: bytes) -> TmpfsOptions:
    """EINVAL for one that is unknown or makes no sense."""
    found = TmpfsOptions()
    for option in options.split(b","):
        name, _, value = option.partition(b"=")
        try:
            if name == b"mode":
                found.mode = int(value, 8) & 0o7777
            elif name == b"uid":
                found.uid = _number(value)
            elif name == b"gid":
                found.gid = _number(value)
            elif name == b"size":
                found.max_bytes = _size(value)
            elif name == b"nr_blocks":
                found.max_bytes = _size(value) * PAGE_SIZE
            elif name == b"nr_inodes":
                found.max_inodes = _size(value)
            elif name not in (b"", b"huge", b"mpol", b"inode64", b"inode32", b"noswap"):
                raise LinuxError(EINVAL)
        except ValueError:
            raise LinuxError(EINVAL) from None
    return found


def _number(value: bytes) -> int:
    if not value.isdigit() or int(value) > 0xFFFFFFFF:
        raise ValueError
    return int(value)


def _size(value: bytes) -> int:
    """`64m`, `4096`, `10%` (of what there is: taken as no limit)."""
    if value.endswith(b"%"):
        _number(value[:-1])
        return 0
    shift = _UNITS.get(value[-1:].lower(), 0)
    return _number(value[:-1] if shift else value) << shift


@syscall("umount2")
def umount2(task: Task, target: UserPath, flags: Int) -> Result:
    """Take a mount away. umount2(2)

    Errors: EINVAL unknown flag, or no mount point; those of path resolution; EPERM without
    CAP_SYS_ADMIN; EBUSY in use, unless MNT_DETACH.
    """
    if flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW):
        raise LinuxError(EINVAL)
    follow = not flags & UMOUNT_NOFOLLOW
    place = resolve(task, AT_FDCWD, task.mm.read_path(target), follow=follow)
    if not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    if not _is_root(place):
        raise LinuxError(EINVAL)
    if flags & MNT_EXPIRE and flags & (MNT_FORCE | MNT_DETACH):
        raise LinuxError(EINVAL)
    if place.mount.parent is None:
        raise LinuxError(EINVAL)
    if place.mount is task.fs.root.mount and not flags & MNT_DETACH:
        raise LinuxError(EBUSY)
    task.kernel.mounts.umount(place.mount, detach=bool(flags & MNT_DETACH))
    return 0


for _name in (
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
):
    refused(_name, ENOSYS, "programs fall back to mount(2)")
refused("statmount", ENOSYS, "programs fall back to /proc/self/mountinfo")
refused("listmount", ENOSYS, "programs fall back to /proc/self/mountinfo")
