"""Dentries and paths: names looked up, kept in a tree, and places in the tree of mounts.

Interface:
- A `Dentry` is one name in one directory: of a file (`inode`) or of nothing (`inode` None, a
  negative dentry). While anything refers to a dentry it is the only one for its name, so two
  dentries are the same name exactly if they are the same object.
- `children` of a directory holds what was looked up there; what a name means is decided by the file
  system, and only the calls of this module and of `resolve` change the cache.
- A `Path` is a dentry seen through a mount. Who keeps one (an open file, a working directory) holds
  a reference, so that umount(2) can tell a busy mount.

Linux: struct dentry, struct path, fs/dcache.c. Instead of reference counts and an LRU list, the
cache is swept when it has grown: every leaf nobody else refers to goes.
"""

from __future__ import annotations

import weakref
from errno import ENAMETOOLONG
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.fs.mount import Mount


class Dentry:
    """A name in a directory. The root of a file system is its own parent, with an empty name."""

    __slots__ = ("__weakref__", "children", "inode", "mounts", "name", "parent", "unlinked")

    def __init__(self, name: bytes, parent: Dentry | None, inode: Inode | None) -> None:
        self.name = name
        self.parent: Dentry = self if parent is None else parent
        self.inode = inode
        self.children: dict[bytes, Dentry] = {}
        self.mounts: dict[Mount, Mount] | None = None
        """Mount this name is seen through -> what is mounted on it there; None: nowhere a mount
        point."""
        self.unlinked = False
        """The name was removed, or the directory that it names: nothing can be looked up here
        again."""

    def __repr__(self) -> str:
        return f"<Dentry {self.name!r}>"


class Path:
    """A dentry in a mount: where a file was found. Immutable."""

    __slots__ = ("dentry", "mount")

    def __init__(self, mount: Mount, dentry: Dentry) -> None:
        self.mount = mount
        self.dentry = dentry

    @property
    def inode(self) -> Inode:
        """The file that is there; the path must not be that of a negative dentry."""
        inode = self.dentry.inode
        assert inode is not None
        return inode

    def incref(self) -> Path:
        """Keep the mount busy until `decref`."""
        self.mount.refs += 1
        return self

    def decref(self) -> None:
        self.mount.refs -= 1

    def same(self, other: Path) -> bool:
        """The same name in the same mount."""
        return self.dentry is other.dentry and self.mount is other.mount

    def absolute(self, root: Path | None = None, longest: int | None = None) -> bytes:
        """The path's text from `root` (default: the namespace's), as /proc/PID/fd/N shows it.

        A removed name ends in b" (deleted)"; a path outside of `root` starts at the namespace's
        root. ENAMETOOLONG: it has more than `longest` bytes.
        """
        text = self.text(root, longest)[0]
        return text + b" (deleted)" if self.dentry.unlinked else text

    def text(self, root: Path | None = None, longest: int | None = None) -> tuple[bytes, bool]:
        """The path's text, and whether `root` was met on the way up. ENAMETOOLONG: it has more than
        `longest` bytes; no more of the way is gone than that."""
        left = longest
        names: list[bytes] = []
        mount, dentry = self.mount, self.dentry
        reached = root is None
        while True:
            if root is not None and dentry is root.dentry and mount is root.mount:
                reached = True
                break
            if dentry is mount.root:
                if mount.parent is None:
                    break
                dentry, mount = mount.mountpoint, mount.parent
                continue
            if dentry.parent is dentry:
                break
            names.append(dentry.name)
            if left is not None:
                left -= len(dentry.name) + 1
                if left < 0:
                    raise LinuxError(ENAMETOOLONG)
            dentry = dentry.parent
        names.reverse()
        return b"/" + b"/".join(names), reached


class DentryCache:
    """Counts the dentries of one mount namespace and sweeps them when they have become many."""

    __slots__ = ("count", "limit", "roots")

    LIMIT = 1 << 16
    """Dentries from which a sweep is tried; a dentry is some 300 bytes."""

    def __init__(self) -> None:
        self.count = 0
        self.limit = self.LIMIT
        self.roots: weakref.WeakSet[Dentry] = weakref.WeakSet()

    def root(self, inode: Inode) -> Dentry:
        """A dentry for the root of a file system."""
        dentry = Dentry(b"", None, inode)
        self.roots.add(dentry)
        return dentry

    def add(self, parent: Dentry, name: bytes, inode: Inode | None) -> Dentry:
        """What `name` means in `parent`, replacing what was known."""
        self.count += 1
        if self.count > self.limit:
            self.sweep()
        dentry = parent.children[name] = Dentry(name, parent, inode)
        return dentry

    def sweep(self) -> None:
        """Forget every dentry that nothing but the cache refers to, leaves first.

        A dentry's own place in the cache is given up and taken back if the dentry outlives that:
        then somebody else refers to it.
        """
        left = 0
        for root in tuple(self.roots):
            order = _all_below(root)
            while order:
                left += self._drop_children(order.pop())
        self.count = left
        self.limit = max(self.LIMIT, 2 * left)

    @staticmethod
    def _drop_children(parent: Dentry) -> int:
        """How many of the children of `parent` are still referred to."""
        children = parent.children
        kept = []
        while children:
            name, child = children.popitem()
            watch = weakref.ref(child)
            del child
            survivor = watch()
            if survivor is not None:
                kept.append((name, survivor))
        kept.reverse()
        children.update(kept)
        return len(kept)


def _all_below(root: Dentry) -> list[Dentry]:
    """`root` and every dentry below, parents before children."""
    order = [root]
    for dentry in order:  # grows while it is walked
        order.extend(dentry.children.values())
    return order
