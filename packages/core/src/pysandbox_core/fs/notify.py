"""Telling watchers what happens to files. inotify(7)

Interface: whoever changes a file or a directory calls one of the functions here after it has
happened, and only `if notify.watching`: without any watch in the sandbox that test is all it costs.
A watch is in the `watches` list of its inode.

Linux: include/linux/fsnotify.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Dentry
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.inode import Inode

IN_ACCESS = 0x001
IN_MODIFY = 0x002
IN_ATTRIB = 0x004
IN_CLOSE_WRITE = 0x008
IN_CLOSE_NOWRITE = 0x010
IN_OPEN = 0x020
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_ALL_EVENTS = 0xFFF
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ISDIR = 0x40000000

watching = 0
"""How many watches there are."""

_last_cookie = 0


class Watch(Protocol):
    """What stands in `Inode.watches`."""

    def happened(self, mask: int, cookie: int, name: bytes) -> None:
        """`mask` (IN_* bits) happened: to the inode, or to `name` in it."""


def new_cookie() -> int:
    """What ties the two events of a rename together."""
    global _last_cookie
    _last_cookie = (_last_cookie + 1) & 0xFFFFFFFF
    return _last_cookie


def inode_event(inode: Inode, mask: int) -> None:
    """Something happened to `inode` itself."""
    if inode.watches:
        if inode.is_dir and not mask & (IN_DELETE_SELF | IN_MOVE_SELF):
            mask |= IN_ISDIR
        for watch in tuple(inode.watches):
            watch.happened(mask, 0, b"")


def entry_event(
    directory: Inode, name: bytes, mask: int, inode: Inode | None, cookie: int = 0
) -> None:
    """Something happened to the entry `name` of `directory`, which is or was `inode`."""
    if directory.watches:
        if inode is not None and inode.is_dir:
            mask |= IN_ISDIR
        for watch in tuple(directory.watches):
            watch.happened(mask, cookie, name)


def dentry_event(dentry: Dentry, mask: int) -> None:
    """Something happened to the file at `dentry`: its directory's watchers hear of it as well."""
    inode = dentry.inode
    if inode is None:
        return
    parent = dentry.parent.inode
    if parent is not None and dentry.parent is not dentry and not dentry.unlinked:
        entry_event(parent, dentry.name, mask, inode)
    inode_event(inode, mask)


def file_event(file: FileDescription, mask: int) -> None:
    """Something was done through an open file."""
    if file.path is not None:
        dentry_event(file.path.dentry, mask)
    else:
        inode_event(file.inode, mask)
