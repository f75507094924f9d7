"""Path resolution: from a path's text to a place in the tree of mounts. path_resolution(7)

Interface:
- `resolve` gives the Path of an existing file. `resolve_parent` gives the directory of a path's
  last component and that component's name, for calls that make, remove or rename it. `lookup` asks
  for one name in a directory whose search permission has been checked.
- Errors, for each component in order: ENOTDIR not a directory, EACCES no search permission,
  ENAMETOOLONG, ENOENT, ELOOP after 40 symbolic links; EXDEV, ELOOP where RESOLVE_* forbids a step
  (openat2(2)).
- Paths given to it have at most PATH_MAX bytes and no NUL, as user memory gives them; nothing here
  recurses, however deep the tree is.

Linux: fs/namei.c, link_path_walk().
"""

from __future__ import annotations

from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EXDEV
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.abi.fcntl import (
    AT_FDCWD,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Dentry, Path
from pysandbox_core.fs.mount import MS_NOSYMFOLLOW
from pysandbox_core.fs.permissions import MAY_EXEC, check_access, may_follow_link

if TYPE_CHECKING:
    from pysandbox_core.fs.mount import Mount
    from pysandbox_core.task import Task

NAME_MAX = 255
SYMLINKS_MAX = 40

_S_IFMT = 0o170000
_S_IFDIR = 0o040000
_S_IFLNK = 0o120000
_DIR_SEARCHABLE = 0o170111
"""Mode bits of a directory that anybody may search: a test that needs no credentials."""
_OPEN_DIR = 0o040111
_SCOPED = RESOLVE_BENEATH | RESOLVE_IN_ROOT


class Parent(NamedTuple):
    """Where a last component is looked up."""

    path: Path
    """The directory; its search permission has been checked."""
    name: bytes
    """The last component; empty, b"." or b".." where the path ends in none that could be made."""
    slash: bool
    """The path ended in a slash: only a directory will do."""


def resolve(
    task: Task,
    dirfd: int,
    path: bytes,
    *,
    follow: bool = True,
    empty: bool = False,
    flags: int = 0,
) -> Path:
    """The file that `path` names from `dirfd` (AT_FDCWD: the working directory).

    `follow`: a symbolic link in the last place is followed. `empty`: an empty path means `dirfd`
    itself (AT_EMPTY_PATH), else it is ENOENT. `flags`: RESOLVE_* of openat2(2).
    """
    if not path:
        if not empty:
            raise LinuxError(ENOENT)
        return start_of(task, dirfd, any_file=True)
    mount, dentry = Walk(task, dirfd, path, flags).run(path, follow)
    return Path(mount, dentry)


def resolve_parent(task: Task, dirfd: int, path: bytes, *, flags: int = 0) -> Parent:
    """Where the last component of `path` is looked up; the last component itself is not."""
    if not path:
        raise LinuxError(ENOENT)
    return Walk(task, dirfd, path, flags).parent(path)


def start_of(task: Task, dirfd: int, *, any_file: bool = False) -> Path:
    """What `dirfd` stands for. EBADF; ENOTDIR for no directory, unless `any_file`."""
    if dirfd == AT_FDCWD:
        return task.fs.cwd
    file = task.files.get_any(dirfd)
    path = file.path
    if path is None:
        if not any_file:
            raise LinuxError(ENOTDIR)
        return anonymous_path(task, file.inode)
    if not any_file and path.inode.mode & _S_IFMT != _S_IFDIR:
        raise LinuxError(ENOTDIR)
    return path


def lookup(task: Task, mount: Mount, parent: Dentry, name: bytes) -> Dentry:
    """The dentry of `name` in `parent`, possibly negative; mounts on it are not entered.

    ENAMETOOLONG; ENOENT in a removed directory.
    """
    child = parent.children.get(name)
    if child is not None and mount.fs.cacheable:
        return child
    if len(name) > NAME_MAX:
        raise LinuxError(ENAMETOOLONG)
    if parent.unlinked:
        raise LinuxError(ENOENT)
    assert parent.inode is not None
    inode = parent.inode.lookup(task, name)
    if inode is None and mount.fs.fixed_names:
        raise LinuxError(ENOENT)
    if child is not None:
        if child.inode is inode or child.mounts is not None:
            return child
        child.unlinked = child.inode is not None
    return task.kernel.mounts.dentries.add(parent, name, inode)


class Walk:
    """One resolution: where it is, how many symbolic links it has seen, what it may not do."""

    __slots__ = ("directory_only", "flags", "links", "root", "start", "task")

    def __init__(self, task: Task, dirfd: int, path: bytes, flags: int = 0) -> None:
        self.task = task
        self.flags = flags
        self.links = 0
        self.root = task.fs.root
        absolute = path[:1] == b"/"
        if flags & _SCOPED:
            self.start = start_of(task, dirfd)
            if absolute and flags & RESOLVE_BENEATH:
                raise LinuxError(EXDEV)
            self.root = self.start
        elif absolute:
            self.start = self.root
        elif dirfd == AT_FDCWD:
            self.start = task.fs.cwd
        else:
            self.start = start_of(task, dirfd)
        self.directory_only = False
        """The path, or the text of the link at its end, ended in a slash."""

    def run(self, path: bytes, follow: bool) -> tuple[Mount, Dentry]:
        """Walk all of `path`; the place where it ends exists."""
        self.directory_only = slash = path[-1:] == b"/"
        names = path.split(b"/")
        mount, dentry = self._components(
            self.start.mount, self.start.dentry, names, len(names), follow or slash
        )
        inode = dentry.inode
        if inode is None:
            raise LinuxError(ENOENT)
        if self.directory_only and inode.mode & _S_IFMT != _S_IFDIR:
            raise LinuxError(ENOTDIR)
        return mount, dentry

    def parent(self, path: bytes) -> Parent:
        """Walk all of `path` but the last component."""
        return self.parent_from(self.start.mount, self.start.dentry, path)

    def parent_from(self, mount: Mount, dentry: Dentry, path: bytes) -> Parent:
        """The same from another place: for a symbolic link's text."""
        stripped = path.rstrip(b"/")
        names = stripped.split(b"/")
        mount, dentry = self._components(mount, dentry, names, len(names) - 1, True)
        inode = dentry.inode
        if inode is None:
            raise LinuxError(ENOENT)
        self.check_search(dentry)
        return Parent(Path(mount, dentry), names[-1], len(stripped) != len(path))

    def check_search(self, dentry: Dentry) -> None:
        """ENOTDIR, EACCES unless names may be looked up in `dentry`."""
        inode = dentry.inode
        assert inode is not None
        if inode.mode & _DIR_SEARCHABLE != _OPEN_DIR:
            if inode.mode & _S_IFMT != _S_IFDIR:
                raise LinuxError(ENOTDIR)
            check_access(self.task.creds, inode, MAY_EXEC)

    def _components(
        self, mount: Mount, dentry: Dentry, names: list[bytes], end: int, follow: bool
    ) -> tuple[Mount, Dentry]:
        """Walk the first `end` of `names`; the last one may turn out not to exist."""
        index = 0
        while index < end:
            name = names[index]
            index += 1
            if not name:
                continue
            inode = dentry.inode
            if inode is None:
                raise LinuxError(ENOENT)
            if inode.mode & _DIR_SEARCHABLE != _OPEN_DIR:
                self.check_search(dentry)
            if name == b".":
                continue
            if name == b"..":
                mount, dentry = self.up(mount, dentry)
                continue
            child = dentry.children.get(name)
            if child is None or not mount.fs.cacheable:
                child = lookup(self.task, mount, dentry, name)
            if child.mounts is not None:
                mount, child = self.enter(mount, child)
            inode = child.inode
            if inode is not None and inode.mode & _S_IFMT == _S_IFLNK:
                if follow or index < end:
                    jump = self.magic(mount, dentry, child)
                    if jump is not None:
                        mount, dentry = jump.mount, jump.dentry
                        continue
                    text = self.text(mount, dentry, child)
                    if text[:1] == b"/":
                        mount, dentry = self.absolute(mount, dentry)
                    if index == end and text[-1:] == b"/":
                        self.directory_only = True
                    names = text.split(b"/") + names[index:end]
                    index, end = 0, len(names)
                    continue
            dentry = child
        return mount, dentry

    def up(self, mount: Mount, dentry: Dentry) -> tuple[Mount, Dentry]:
        """`..`: never above the root; from the top of a mount to the parent of its mount point."""
        root = self.root
        while True:
            if dentry is root.dentry and mount is root.mount:
                if self.flags & RESOLVE_BENEATH:
                    raise LinuxError(EXDEV)
                break
            if dentry is not mount.root:
                dentry = dentry.parent
                break
            if mount.parent is None:
                break
            if self.flags & RESOLVE_NO_XDEV:
                raise LinuxError(EXDEV)
            dentry, mount = mount.mountpoint, mount.parent
        if dentry.mounts is not None:
            mount, dentry = self.enter(mount, dentry)
        return mount, dentry

    def enter(self, mount: Mount, dentry: Dentry) -> tuple[Mount, Dentry]:
        """What is mounted on a dentry, if anything is as seen through `mount`."""
        above, top = self.task.kernel.mounts.covered(mount, dentry)
        if above is not mount and self.flags & RESOLVE_NO_XDEV:
            raise LinuxError(EXDEV)
        return above, top

    def absolute(self, mount: Mount, dentry: Dentry) -> tuple[Mount, Dentry]:
        """Where the text of an absolute symbolic link starts."""
        if self.flags:
            if self.flags & RESOLVE_BENEATH:
                raise LinuxError(EXDEV)
            if self.flags & RESOLVE_NO_XDEV and self.root.mount is not mount:
                raise LinuxError(EXDEV)
        return self.root.mount, self.root.dentry

    def count_link(self, mount: Mount, directory: Dentry, link: Dentry) -> None:
        """A symbolic link is about to be followed: may it be?"""
        self.links += 1
        if self.links > SYMLINKS_MAX:
            raise LinuxError(ELOOP)
        assert directory.inode is not None
        assert link.inode is not None
        if directory.inode.mode & 0o1002 == 0o1002:
            may_follow_link(self.task.creds, directory.inode, link.inode)
        if self.flags & RESOLVE_NO_SYMLINKS or mount.flags & MS_NOSYMFOLLOW:
            raise LinuxError(ELOOP)

    def magic(self, mount: Mount, directory: Dentry, link: Dentry) -> Path | None:
        """Where a magic link leads; None for an ordinary one."""
        assert link.inode is not None
        path = link.inode.follow(self.task)
        if path is None:
            return None
        self.count_link(mount, directory, link)
        if self.flags & RESOLVE_NO_MAGICLINKS:
            raise LinuxError(ELOOP)
        if self.flags & _SCOPED or (self.flags & RESOLVE_NO_XDEV and path.mount is not mount):
            raise LinuxError(EXDEV)
        return path

    def text(self, mount: Mount, directory: Dentry, link: Dentry) -> bytes:
        """The text of an ordinary symbolic link that is followed."""
        self.count_link(mount, directory, link)
        assert link.inode is not None
        text = link.inode.readlink(self.task)
        if not text:
            raise LinuxError(ENOENT)
        return text


def anonymous_path(task: Task, inode: object) -> Path:
    """A Path for a file without a name (a pipe, a socket), for calls that take AT_EMPTY_PATH."""
    from pysandbox_core.fs.anonymous import anonymous_mount
    from pysandbox_core.fs.inode import Inode

    assert isinstance(inode, Inode)
    return Path(anonymous_mount(task.kernel), Dentry(b"", None, inode))
