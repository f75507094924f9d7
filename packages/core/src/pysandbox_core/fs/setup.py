"""The mounts a sandbox starts with.

Interface: `build_mounts` once at boot; afterwards `kernel.mounts` is complete. A host path that
can't be opened is a SandboxError that says which.

The root is an overlay of the host's (or an image's) files; /proc, /sys, /dev, /dev/pts and /dev/shm
are the kernel's own. /tmp is the host's like the rest, for that is where people try things: who
wants an empty one mounts a tmpfs there. Binds and tmpfs mounts of the user's come last and may lie
anywhere, also in these and in each other; what is missing of their paths is made, in memory or in
the bind that it lies in.
"""

from __future__ import annotations

from contextlib import suppress
from posixpath import normpath
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from stat import S_IFDIR, S_IFREG
from typing import TYPE_CHECKING, Any

from pysandbox_core.config import Bind, Tmpfs, show
from pysandbox_core.errors import LinuxError, SandboxError
from pysandbox_core.fs.dentry import Path
from pysandbox_core.fs.host_tree import HostTree
from pysandbox_core.fs.mount import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_RELATIME,
    MountNamespace,
)
from pysandbox_core.fs.overlay import OverlayFs
from pysandbox_core.fs.tmpfs import TmpFs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysandbox_core.fs.inode import FileSystem, Inode
    from pysandbox_core.fs.sources import Source
    from pysandbox_core.kernel import Kernel

_SAFE = MS_NOSUID | MS_NODEV | MS_RELATIME
_PROC = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME
_SYMLINKS_MAX = 40


def build_mounts(kernel: Kernel, sources: Sequence[Source]) -> None:
    """Mount everything that `kernel.config` asks for, and what every sandbox has; `sources` is
    where the host's part lies (`find_sources`)."""
    config = kernel.config
    _raise_descriptor_limit()
    tree = _open_tree(sources[0], "rootfs")
    root = OverlayFs(kernel, tree)
    root.space.account = kernel.account
    kernel.mounts = MountNamespace(root, b"overlay")
    _mount_system(kernel)
    # What lies deeper comes later: a tmpfs is to hide what a bind shows, and nothing that was asked
    # for is to be hidden by a mount above it.
    wanted: list[tuple[Tmpfs | Bind, Source | None]] = [
        *((tmpfs, None) for tmpfs in config.tmpfs),
        *zip(config.binds, sources[1:], strict=True),
    ]
    for mount, source in sorted(wanted, key=lambda pair: _depth(pair[0].target)):
        if isinstance(mount, Tmpfs):
            _mount_tmpfs(kernel, mount)
        else:
            assert source is not None
            _mount_bind(kernel, mount, source)


def _depth(target: bytes) -> int:
    return len([name for name in normpath(target).split(b"/") if name])


def _raise_descriptor_limit() -> None:
    """Every host file that the program has open is one of this process's descriptors."""
    hard = getrlimit(RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):  # more than this host lets anybody have
        setrlimit(RLIMIT_NOFILE, (hard, hard))


def _mount_system(kernel: Kernel) -> None:
    from pysandbox_core.fs.dev import DevFs
    from pysandbox_core.fs.devpts import DevPts
    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.fs.sys import SysFs

    kernel.devpts = DevPts(kernel)
    _mount(kernel, ProcFs(kernel), b"/proc", b"proc", _PROC)
    _mount(kernel, SysFs(kernel), b"/sys", b"sysfs", _PROC)
    _mount(kernel, DevFs(kernel), b"/dev", b"devtmpfs", MS_NOSUID | MS_RELATIME)
    _mount(kernel, kernel.devpts, b"/dev/pts", b"devpts", MS_NOSUID | MS_NOEXEC | MS_RELATIME)
    shm = TmpFs(kernel)
    shm.space.account = kernel.account
    _mount(kernel, shm, b"/dev/shm", b"tmpfs", _SAFE)


def _mount_tmpfs(kernel: Kernel, tmpfs: Tmpfs) -> None:
    fs = TmpFs(kernel, max_bytes=tmpfs.size, max_inodes=tmpfs.inodes)
    fs.space.account = kernel.account
    _mount(kernel, fs, tmpfs.target, b"tmpfs", _SAFE)


def _mount_bind(kernel: Kernel, bind: Bind, source: Source) -> None:
    from pysandbox_core.fs.host_directory import HostFs

    flags = MS_RELATIME if bind.writable else MS_RELATIME | MS_RDONLY
    flags |= MS_NOSUID | MS_NODEV
    fs = HostFs(kernel, _open_tree(source, "bind source"), writable=bind.writable)
    name = source.name
    if not name:
        _mount(kernel, fs, bind.target, b"host", flags)
        return
    # a single file: its directory is opened, and nothing but the file is shown
    inode = fs.lookup_host(fs.root, name)
    if inode is None or not inode.is_regular:
        raise SandboxError(f"bind source {show(bind.source)} is neither a directory nor a file")
    place = _make_place(kernel, bind.target, directory=False)
    mounts = kernel.mounts
    mount = mounts.mount(fs, place, b"host", flags)
    mount.root = mounts.dentries.add(mount.root, name, inode)


def _open_tree(source: Source, what: str) -> HostTree:
    try:
        return HostTree.open(source.directory, source.hidden)
    except OSError as error:
        raise SandboxError(
            f"{what} {show(source.path)} can't be opened: {error.strerror}"
        ) from None


def _mount(kernel: Kernel, fs: FileSystem, target: bytes, source: bytes, flags: int) -> None:
    kernel.mounts.mount(fs, _make_place(kernel, target, directory=True), source, flags)


def _make_place(kernel: Kernel, target: bytes, *, directory: bool) -> Path:
    """The place `target` in what is mounted so far; what does not exist is made. Symbolic links are
    followed, as a program that asks for the path later will follow them."""
    mounts = kernel.mounts
    mount, dentry = mounts.root.mount, mounts.root.dentry
    names = [name for name in target.split(b"/") if name]
    links = 0
    while names:
        name = names.pop(0)
        if name == b".":
            continue
        if name == b"..":
            while dentry is mount.root and mount.parent is not None:
                dentry, mount = mount.mountpoint, mount.parent
            dentry = dentry.parent
            continue
        parent = dentry.inode
        if parent is None or not parent.is_dir:
            raise SandboxError(f"mount point {show(target)}: a part of the path is no directory")
        # A dentry that is known may lead to mounts further down: it stays.
        child = dentry.children.get(name)
        if child is None or child.inode is None:
            inode = _find(parent, name)
            if inode is None:
                inode = _make(parent, name, target, directory=directory or bool(names))
            child = mounts.dentries.add(dentry, name, inode)
        assert child.inode is not None
        if child.inode.is_symlink:
            links += 1
            if links > _SYMLINKS_MAX:
                raise SandboxError(f"mount point {show(target)}: too many symbolic links")
            text = child.inode.readlink(_NO_TASK)
            names[:0] = [part for part in text.split(b"/") if part]
            if text.startswith(b"/"):
                mount, dentry = mounts.root.mount, mounts.root.dentry
            continue
        mount, dentry = mounts.covered(mount, child)
    assert dentry.inode is not None
    if dentry.inode.is_dir != directory:
        kind = "a directory" if directory else "a file"
        raise SandboxError(f"mount point {show(target)} exists and is not {kind}")
    return Path(mount, dentry)


_NO_TASK: Any = None
"""None of the inodes that mounts are made on looks at the task."""


def _find(parent: Inode, name: bytes) -> Inode | None:
    try:
        return parent.lookup(_NO_TASK, name)
    except LinuxError:
        return None


def _make(parent: Inode, name: bytes, target: bytes, *, directory: bool) -> Inode:
    try:
        if directory:
            return parent.mkdir(_NO_TASK, name, S_IFDIR | 0o755, 0, 0)
        return parent.create(_NO_TASK, name, S_IFREG | 0o644, 0, 0)
    except LinuxError as error:
        raise SandboxError(f"mount point {show(target)} can't be made: {error}") from None
