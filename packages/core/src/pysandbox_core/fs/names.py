"""Making, removing and moving names: mkdir, mknod, symlink, link, unlink, rmdir, rename.

Interface: each function resolves its paths, checks in Linux's order, has the inodes do it, and
brings the dentry tree and watchers up to date. The handlers in `syscalls` only decode.

Linux: filename_create(), do_unlinkat(), do_renameat2() and their like in fs/namei.c.
"""

from __future__ import annotations

from errno import (
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    EMLINK,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
    EXDEV,
)
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import RENAME_EXCHANGE, RENAME_NOREPLACE
from pysandbox_core.credentials import CAP_MKNOD
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import notify
from pysandbox_core.fs.permissions import (
    MAY_WRITE,
    check_access,
    check_writable_mount,
    may_create,
    may_delete,
    may_link,
    new_owner,
)
from pysandbox_core.fs.resolve import lookup, resolve_parent

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Dentry, Path
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.fs.resolve import Parent
    from pysandbox_core.task import Task

S_IFMT = 0o170000
LINK_MAX = 65000
_SPECIAL = (b"", b".", b"..")


def prepare_create(
    task: Task, dirfd: int, path: bytes, *, directory: bool = False
) -> tuple[Path, Dentry]:
    """The directory and the negative dentry of a name that is to be made; `directory` allows
    slashes at the end. EEXIST, ENOENT, EROFS; permission is not checked yet. filename_create()"""
    place, name, slash = resolve_parent(task, dirfd, path)
    if name in _SPECIAL:
        raise LinuxError(EEXIST)
    dentry = lookup(task, place.mount, place.dentry, name)
    if dentry.inode is not None:
        raise LinuxError(EEXIST)
    if slash and not directory:
        raise LinuxError(ENOENT)
    check_writable_mount(place.mount)
    return place, dentry


def create_name(
    task: Task, dirfd: int, path: bytes, mode: int, rdev: int = 0, target: bytes = b""
) -> Path:
    """Make a file of the type in `mode`, umask applied; `rdev` of a device, `target` of a
    symlink."""
    kind = mode & S_IFMT
    place, dentry = prepare_create(task, dirfd, path, directory=kind == S_IFDIR)
    creds = task.creds
    may_create(creds, place.dentry)
    if kind in (S_IFCHR, S_IFBLK) and not creds.capable(CAP_MKNOD):
        raise LinuxError(EPERM)
    parent = place.inode
    uid, gid, mode = new_owner(creds, parent, mode)
    name = dentry.name
    if kind == S_IFDIR:
        inode = parent.mkdir(task, name, mode, uid, gid)
    elif kind == S_IFLNK:
        inode = parent.symlink(task, name, target, uid, gid)
    elif kind == S_IFREG:
        inode = parent.create(task, name, mode, uid, gid)
    else:
        inode = parent.mknod(task, name, mode, rdev, uid, gid)
    dentry.inode = inode
    if notify.watching:
        notify.entry_event(parent, name, notify.IN_CREATE, inode)
    return type(place)(place.mount, dentry)


def link_name(task: Task, old: Path, dirfd: int, path: bytes) -> None:
    """Give the file at `old` another name. link(2), after its path was resolved."""
    place, dentry = prepare_create(task, dirfd, path)
    if old.mount is not place.mount:
        raise LinuxError(EXDEV)
    may_link(task.creds, old)
    may_create(task.creds, place.dentry)
    inode = old.inode
    if inode.fs is not place.inode.fs:
        raise LinuxError(EXDEV)
    if inode.is_dir:
        raise LinuxError(EPERM)
    if not inode.nlink and not inode.linkable:
        raise LinuxError(ENOENT)
    if inode.nlink >= LINK_MAX:
        raise LinuxError(EMLINK)
    place.inode.link(task, dentry.name, inode)
    dentry.inode = inode
    if notify.watching:
        notify.inode_event(inode, notify.IN_ATTRIB)
        notify.entry_event(place.inode, dentry.name, notify.IN_CREATE, inode)


def remove_file(task: Task, dirfd: int, path: bytes) -> None:
    """Remove the name of what is no directory. unlink(2)"""
    place, name, slash = resolve_parent(task, dirfd, path)
    if name in _SPECIAL:
        raise LinuxError(EISDIR)
    check_writable_mount(place.mount)
    dentry = lookup(task, place.mount, place.dentry, name)
    inode = dentry.inode
    if inode is None:
        raise LinuxError(ENOENT)
    if slash:
        raise LinuxError(EISDIR if inode.is_dir else ENOTDIR)
    _may_delete(task, place, inode, is_dir=False)
    if dentry.mounts is not None:
        raise LinuxError(EBUSY)
    place.inode.unlink(task, name, inode)
    forget(dentry)
    if notify.watching:
        notify.inode_event(inode, notify.IN_ATTRIB)  # its link count, always told first
        notify.entry_event(place.inode, name, notify.IN_DELETE, inode)
        if not inode.nlink and not inode.opens:
            notify.inode_event(inode, notify.IN_DELETE_SELF)


def remove_directory(task: Task, dirfd: int, path: bytes) -> None:
    """Remove an empty directory. rmdir(2)"""
    place, name, _ = resolve_parent(task, dirfd, path)
    if name in _SPECIAL:
        raise LinuxError({b"": EBUSY, b".": EINVAL, b"..": ENOTEMPTY}[name])
    check_writable_mount(place.mount)
    dentry = lookup(task, place.mount, place.dentry, name)
    inode = dentry.inode
    if inode is None:
        raise LinuxError(ENOENT)
    _may_delete(task, place, inode, is_dir=True)
    if dentry.mounts is not None:
        raise LinuxError(EBUSY)
    place.inode.rmdir(task, name, inode)
    forget(dentry)
    if notify.watching:
        notify.entry_event(place.inode, name, notify.IN_DELETE, inode)
        notify.inode_event(inode, notify.IN_DELETE_SELF)


def rename_name(
    task: Task, old_dirfd: int, old_path: bytes, new_dirfd: int, new_path: bytes, flags: int
) -> None:
    """Move a name, or exchange two. renameat2(2), its flags checked."""
    old = resolve_parent(task, old_dirfd, old_path)
    new = resolve_parent(task, new_dirfd, new_path)
    if old.path.mount is not new.path.mount:
        raise LinuxError(EXDEV)
    if old.name in _SPECIAL:
        raise LinuxError(EBUSY)
    if new.name in _SPECIAL:
        raise LinuxError(EEXIST if flags & RENAME_NOREPLACE else EBUSY)
    check_writable_mount(old.path.mount)
    source, target = _rename_dentries(task, old, new, flags)
    inode = source.inode
    replaced = target.inode
    assert inode is not None
    if inode is replaced:
        return  # two names of one file: nothing happens, and both stay
    exchange = flags & RENAME_EXCHANGE != 0
    _may_rename(task, old, new, inode, replaced, exchange)
    if source.mounts is not None or target.mounts is not None:
        raise LinuxError(EBUSY)
    old_dir, new_dir = old.path.inode, new.path.inode
    old_dir.rename(task, old.name, inode, new_dir, new.name, replaced, exchange)
    if exchange:
        _swap(source, target)
    else:
        if replaced is not None:
            forget(target)
        _move(source, new.path.dentry, new.name)
    if notify.watching:
        _tell_rename(old_dir, old.name, new_dir, new.name, inode, replaced, exchange)


def _rename_dentries(task: Task, old: Parent, new: Parent, flags: int) -> tuple[Dentry, Dentry]:
    """The dentries of a rename: the first is positive, and neither lies below the other."""
    mount = old.path.mount
    source = lookup(task, mount, old.path.dentry, old.name)
    if source.inode is None:
        raise LinuxError(ENOENT)
    target = lookup(task, mount, new.path.dentry, new.name)
    if flags & RENAME_NOREPLACE and target.inode is not None:
        raise LinuxError(EEXIST)
    if flags & RENAME_EXCHANGE:
        if target.inode is None:
            raise LinuxError(ENOENT)
        if new.slash and not target.inode.is_dir:
            raise LinuxError(ENOTDIR)
    if not source.inode.is_dir and (old.slash or (new.slash and not flags & RENAME_EXCHANGE)):
        raise LinuxError(ENOTDIR)
    if source.inode.is_dir and _is_ancestor(source, new.path.dentry):
        raise LinuxError(EINVAL)
    if target.inode is not None and target.inode.is_dir and _is_ancestor(target, old.path.dentry):
        raise LinuxError(EINVAL if flags & RENAME_EXCHANGE else ENOTEMPTY)
    return source, target


def _may_rename(
    task: Task, old: Parent, new: Parent, inode: Inode, replaced: Inode | None, exchange: bool
) -> None:
    is_dir = inode.is_dir
    _may_delete(task, old.path, inode, is_dir=is_dir)
    if replaced is None:
        may_create(task.creds, new.path.dentry)
    else:
        _may_delete(task, new.path, replaced, is_dir=replaced.is_dir if exchange else is_dir)
    if new.path.dentry is not old.path.dentry:  # `..` of a directory that moves is written
        if is_dir:
            check_access(task.creds, inode, MAY_WRITE)
        if exchange and replaced is not None and replaced.is_dir:
            check_access(task.creds, replaced, MAY_WRITE)


def _may_delete(task: Task, place: Path, inode: Inode, *, is_dir: bool) -> None:
    may_delete(task.creds, place.inode, inode, is_dir)
    if place.dentry.unlinked:
        raise LinuxError(ENOENT)


def _is_ancestor(dentry: Dentry, below: Dentry) -> bool:
    """Is `dentry` on the way up from `below`, itself included?"""
    while below is not dentry:
        if below.parent is below:
            return False
        below = below.parent
    return True


def forget(dentry: Dentry) -> None:
    """The name of `dentry` is gone; whoever has it open keeps it."""
    siblings = dentry.parent.children
    if siblings.get(dentry.name) is dentry:
        del siblings[dentry.name]
    dentry.unlinked = True
    dentry.children.clear()


def _move(dentry: Dentry, parent: Dentry, name: bytes) -> None:
    """`dentry` is now `name` in `parent`. d_move()"""
    siblings = dentry.parent.children
    if siblings.get(dentry.name) is dentry:
        del siblings[dentry.name]
    dentry.parent = parent
    dentry.name = name
    parent.children[name] = dentry


def _swap(first: Dentry, second: Dentry) -> None:
    """Two dentries change places. d_exchange()"""
    first.parent, second.parent = second.parent, first.parent
    first.name, second.name = second.name, first.name
    first.parent.children[first.name] = first
    second.parent.children[second.name] = second


def _tell_rename(
    old_dir: Inode,
    old_name: bytes,
    new_dir: Inode,
    new_name: bytes,
    inode: Inode,
    replaced: Inode | None,
    exchange: bool,
) -> None:
    _tell_move(old_dir, old_name, new_dir, new_name, inode)
    if replaced is None:
        return
    if exchange:
        _tell_move(new_dir, new_name, old_dir, old_name, replaced)
    else:
        notify.inode_event(replaced, notify.IN_ATTRIB)
        if replaced.is_dir or not (replaced.nlink or replaced.opens):
            notify.inode_event(replaced, notify.IN_DELETE_SELF)


def _tell_move(
    old_dir: Inode, old_name: bytes, new_dir: Inode, new_name: bytes, inode: Inode
) -> None:
    cookie = notify.new_cookie()
    notify.entry_event(old_dir, old_name, notify.IN_MOVED_FROM, inode, cookie)
    notify.entry_event(new_dir, new_name, notify.IN_MOVED_TO, inode, cookie)
    notify.inode_event(inode, notify.IN_MOVE_SELF)
