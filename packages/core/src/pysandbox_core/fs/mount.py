"""Mounts: which file system is seen where. mount_namespaces(7), mount(2)

Interface: a `Mount` shows the tree below `root` of a file system at `mountpoint` of `parent`. The
one `MountNamespace` of a sandbox holds them all, `root` first. Mounts are stacked on a dentry by
the pair (mount, dentry), so a bind mount shows its source without what is mounted inside.

Mount propagation does not exist here: every mount is private.

Linux: struct mount, fs/namespace.c.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOENT
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Dentry, DentryCache, Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.fs.inode import FileSystem

# Mount flags, <sys/mount.h>.
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MOUNT_FLAGS = (
    MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOSYMFOLLOW | MS_NOATIME | MS_NODIRATIME
    | MS_RELATIME
)  # fmt: skip
"""Flags that are a mount's own; remount with MS_BIND changes these."""

_OPTION_NAMES = (
    (MS_NOSUID, b"nosuid"),
    (MS_NODEV, b"nodev"),
    (MS_NOEXEC, b"noexec"),
    (MS_NOATIME, b"noatime"),
    (MS_NODIRATIME, b"nodiratime"),
    (MS_RELATIME, b"relatime"),
    (MS_NOSYMFOLLOW, b"nosymfollow"),
)


class Mount:
    """One file system, or a part of it, at one place. Owned by its namespace until detached."""

    __slots__ = ("children", "flags", "fs", "id", "mountpoint", "parent", "refs", "root", "source")

    def __init__(
        self, number: int, fs: FileSystem, root: Dentry, source: bytes, flags: int
    ) -> None:
        self.id = number
        """As in the first field of /proc/PID/mountinfo, and stx_mnt_id."""
        self.fs = fs
        self.root = root
        """What is seen at the top: the file system's root, or any part of it for a bind mount."""
        self.source = source
        """What mount(2) was told as the device."""
        self.flags = flags
        """MS_* bits of MOUNT_FLAGS."""
        self.parent: Mount | None = None
        """The mount it is attached to; None for the namespace's root and after umount."""
        self.mountpoint: Dentry = root
        self.children: list[Mount] = []
        self.refs = 0
        """Paths that are kept: open files, working and root directories."""

    def __repr__(self) -> str:
        return f"<Mount {self.id} {self.fs.type_name.decode()}>"

    @property
    def read_only(self) -> bool:
        return bool(self.flags & MS_RDONLY)

    def option_names(self) -> bytes:
        """b"rw,nosuid,..." as in /proc/PID/mountinfo."""
        names = [b"ro" if self.flags & MS_RDONLY else b"rw"]
        names += [name for flag, name in _OPTION_NAMES if self.flags & flag]
        return b",".join(names)


class MountNamespace:
    """Every mount of the sandbox. Made with the root file system mounted."""

    def __init__(self, root: FileSystem, source: bytes, flags: int = MS_RELATIME) -> None:
        self.dentries = DentryCache()
        self._last_id = 20
        self.count = 0
        """Mounts that there are."""
        self._superblocks: dict[FileSystem, tuple[Dentry, int]] = {}
        """File system -> its root dentry and how many mounts show it."""
        self.root_mount = self._make(root, source, flags)
        self.root = Path(self.root_mount, self.root_mount.root)

    def mount(self, fs: FileSystem, at: Path, source: bytes, flags: int = MS_RELATIME) -> Mount:
        """Mount the root of `fs` on `at`, covering what is there."""
        mount = self._make(fs, source, flags)
        self._attach(mount, at)
        return mount

    def bind(
        self, path: Path, at: Path, *, recursive: bool = False, flags: int | None = None
    ) -> Mount:
        """Show what is at `path` at `at` too; with `recursive`, with the mounts inside."""
        copy = self._copy(path.mount, path.dentry, flags)
        if recursive:
            inside = [path.mount]
            copies = {path.mount: copy}
            for mount in inside:
                for child in mount.children:
                    if mount is path.mount and not _is_below(child.mountpoint, path.dentry):
                        continue
                    copies[child] = self._copy(child, child.root, None)
                    self._link(copies[child], copies[mount], child.mountpoint)
                    inside.append(child)
        self._attach(copy, at)
        return copy

    def umount(self, mount: Mount, *, detach: bool = False) -> None:
        """Take `mount` away; EBUSY while it is used, unless `detach` (MNT_DETACH). umount2(2)"""
        if mount.parent is None:
            raise LinuxError(EINVAL)
        if not detach and (mount.children or mount.refs > 0):
            raise LinuxError(EBUSY)
        doomed = [mount]
        for each in doomed:
            doomed.extend(each.children)
        for each in reversed(doomed):
            self._unlink(each)
            self.count -= 1
            self._release(each.fs)

    def move(self, mount: Mount, to: Path) -> None:
        """MS_MOVE: `mount` and what is inside appear at `to` instead."""
        self._unlink(mount)
        self._attach(mount, to)

    def pivot(self, new_root: Mount, put_old: Path) -> None:
        """Make `new_root` the namespace's root and put the old one on `put_old`. pivot_root(2)"""
        old_root = self.root_mount
        self._unlink(new_root)
        self.root_mount = new_root
        self.root = Path(new_root, new_root.root)
        self._attach(old_root, put_old)

    def has(self, mount: Mount) -> bool:
        """Is it attached here? Not what umount2(2) has detached, nor what no path leads to."""
        return mount.parent is not None or mount is self.root_mount

    def check_mountable(self, place: Path) -> None:
        """ENOENT if nothing can be mounted there: it was removed, or detached. lock_mount()"""
        if place.dentry.unlinked or not self.has(place.mount):
            raise LinuxError(ENOENT)

    def covered(self, mount: Mount, dentry: Dentry) -> tuple[Mount, Dentry]:
        """What is seen at (mount, dentry): the top of the mounts stacked there."""
        while dentry.mounts is not None:
            above = dentry.mounts.get(mount)
            if above is None:
                break
            mount, dentry = above, above.root
        return mount, dentry

    def all(self) -> Iterator[Mount]:
        """Every mount, the root first, each before those on it."""
        order = [self.root_mount]
        for mount in order:
            order.extend(mount.children)
        return iter(order)

    def _make(self, fs: FileSystem, source: bytes, flags: int) -> Mount:
        known = self._superblocks.get(fs)
        dentry, users = known if known else (self.dentries.root(fs.root), 0)
        self._superblocks[fs] = (dentry, users + 1)
        self._last_id += 1
        self.count += 1
        return Mount(self._last_id, fs, dentry, source, flags)

    def _copy(self, mount: Mount, root: Dentry, flags: int | None) -> Mount:
        copy = self._make(mount.fs, mount.source, mount.flags if flags is None else flags)
        copy.root = copy.mountpoint = root
        return copy

    def _attach(self, mount: Mount, at: Path) -> None:
        parent, dentry = self.covered(at.mount, at.dentry)
        self._link(mount, parent, dentry)

    @staticmethod
    def _link(mount: Mount, parent: Mount, dentry: Dentry) -> None:
        mount.parent = parent
        mount.mountpoint = dentry
        parent.children.append(mount)
        if dentry.mounts is None:
            dentry.mounts = {}
        dentry.mounts[parent] = mount

    @staticmethod
    def _unlink(mount: Mount) -> None:
        parent, dentry = mount.parent, mount.mountpoint
        if parent is None:
            return
        parent.children.remove(mount)
        assert dentry.mounts is not None
        del dentry.mounts[parent]
        if not dentry.mounts:
            dentry.mounts = None
        mount.parent = None
        mount.mountpoint = mount.root

    def _release(self, fs: FileSystem) -> None:
        dentry, users = self._superblocks[fs]
        if users > 1:
            self._superblocks[fs] = (dentry, users - 1)
        else:
            del self._superblocks[fs]
            fs.unmounted()


def _is_below(dentry: Dentry, ancestor: Dentry) -> bool:
    while dentry is not ancestor:
        if dentry.parent is dentry:
            return False
        dentry = dentry.parent
    return True
