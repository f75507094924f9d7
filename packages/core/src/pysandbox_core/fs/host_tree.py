"""A directory tree of the host, reached only beneath one root descriptor.

Interface:
- A `HostTree` is opened on a host directory; everything after that is opened beneath its descriptor
  and never follows a symbolic link of the host (host_open.py). What was found is known by (st_dev,
  st_ino): whoever changes the tree from outside may make calls fail with ESTALE or ENOENT; they
  can't lead them out of it, nor to another file.
- A `HostDirectory` names one directory in it. Its descriptor is opened when needed and closed when
  others need the place: only the last `MAX_DIRECTORIES` opened are open. A directory that the host
  moves out of the tree meanwhile stays the one that it is; nothing leads up from it.
- Only regular files are ever opened. Devices, fifos and sockets of the host can be seen by stat.
- What was named as `hidden` does not exist.
- Kernel interfaces of the host (proc, sysfs, ...) found in the tree look like empty directories:
  they would speak of the sandbox's own process.
- Calls raise OSError; callers convert.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from errno import EACCES, ELOOP, ENAMETOOLONG, ENOTDIR, ESTALE
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any

from pysandbox_core.fs import host_ids, host_open
from pysandbox_core.fs.host_open import O_PIN, O_PIN_DIRECTORY
from pysandbox_core.fs.inode import DirEntry
from pysandbox_core.mm.mappable import HostFileMappable

_STEP = 15
"""Directories that are gone down in one call: names of 255 bytes, so many of them and the slashes
between them are shorter than PATH_MAX."""

_NOTHING: Mapping[bytes, Any] = {}

KERNEL_INTERFACES = frozenset(
    (
        "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs",
        "securityfs", "configfs", "bpf", "pstore", "efivarfs", "mqueue", "fusectl", "binfmt_misc",
        "autofs", "selinuxfs", "hugetlbfs", "rpc_pipefs", "nsfs",
    )
)  # fmt: skip


class HostTree:
    """One tree, from `open` until `close`."""

    MAX_DIRECTORIES = 256
    MAX_FILES = 1024
    """Files kept open after their last use, for the next; fewer if the host allows few."""

    def __init__(self, root_fd: int, hidden: Iterable[bytes] = ()) -> None:
        self.ids = host_ids.in_effect()
        status = host_ids.fstat(root_fd)
        self.root = HostDirectory(
            self, None, b"", status.st_dev, status.st_ino, _names_on_the_way(hidden)
        )
        self.root_fd = root_fd
        self.root_stat = status
        self.descriptors_fd = host_open.open_descriptors()
        self.open_beneath = host_open.new_opener(root_fd)
        self.hidden = kernel_devices()
        """st_dev of what must not be entered."""
        self._directories: dict[HostDirectory, int] = {}
        """Open directories, the oldest first."""
        self._files: dict[HostFileMappable, None] = {}
        """Files kept open, the oldest first; each has one reference."""
        self.max_files = min(self.MAX_FILES, getrlimit(RLIMIT_NOFILE)[0] // 4)

    @classmethod
    def open(cls, path: bytes, hidden: Iterable[bytes] = ()) -> HostTree:
        """The tree at `path` of the host, without what lies at the relative paths `hidden`; the
        only place where a path is resolved by the host."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), hidden)

    def close(self) -> None:
        """Close every descriptor but those of files in use. Idempotent."""
        for fd in self._directories.values():
            os.close(fd)
        self._directories.clear()
        for file in self._files:
            file.decref()
        self._files.clear()
        if self.root_fd >= 0:
            os.close(self.root_fd)
            os.close(self.descriptors_fd)
            self.root_fd = -1

    def keep(self, file: HostFileMappable) -> None:
        """Let `file` stay open for a while after its last user is gone; takes a reference over."""
        if len(self._files) >= self.max_files:
            oldest = next(iter(self._files))
            del self._files[oldest]
            oldest.decref()
        self._files[file] = None

    def directory_fd(self, directory: HostDirectory) -> int:
        """An O_PATH descriptor of `directory`; stays the tree's, and good until the next call."""
        fd = self._directories.get(directory)
        if fd is not None:
            return fd
        way = self._way_down(directory)
        fd = self._directories.get(way[0], self.root_fd)
        for start in range(1, len(way), _STEP):
            fd = self._go_down(fd, way[start : start + _STEP])
        return fd

    @contextmanager
    def two_fds(self, first: HostDirectory, second: HostDirectory) -> Iterator[tuple[int, int]]:
        """Descriptors of two directories, good at the same time."""
        first_fd = os.dup(self.directory_fd(first))  # the second may take its place
        try:
            yield first_fd, self.directory_fd(second)
        finally:
            os.close(first_fd)

    def reopen(self, fd: int, flags: int) -> int:
        """A new descriptor of exactly the regular file or directory that `fd` refers to."""
        return host_open.reopen(self.descriptors_fd, fd, flags)

    def _way_down(self, directory: HostDirectory) -> list[HostDirectory]:
        """From one that is open, or the root, to `directory`."""
        way: dict[HostDirectory, None] = {}
        above = directory
        while above not in self._directories and above.parent is not None:
            if above in way:  # seen in each other, one after the other: the host has moved them
                raise OSError(ESTALE, os.strerror(ESTALE))
            way[above] = None
            above = above.parent
        return [above, *reversed(way)]

    def _go_down(self, fd: int, names: list[HostDirectory]) -> int:
        """Open the last of `names`, each of which is in the one before, the first in `fd`."""
        directory = names[-1]
        path = b"/".join([step.name for step in names])
        try:
            fd = self.open_beneath(fd, path, O_PIN_DIRECTORY, 0)
        except OSError as error:
            if error.errno in (ELOOP, ENOTDIR):  # no longer what it was
                raise OSError(ESTALE, os.strerror(ESTALE)) from None
            raise
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (directory.dev, directory.ino):
            os.close(fd)
            raise OSError(ESTALE, os.strerror(ESTALE))
        if len(self._directories) >= self.MAX_DIRECTORIES:
            oldest = next(iter(self._directories))
            os.close(self._directories.pop(oldest))
        self._directories[directory] = fd
        return fd


class HostDirectory:
    """A directory of a tree: the one called `name` in `parent`, if it still is the same one."""

    __slots__ = ("covered", "dev", "ino", "name", "parent", "tree")

    def __init__(
        self,
        tree: HostTree,
        parent: HostDirectory | None,
        name: bytes,
        dev: int,
        ino: int,
        covered: Mapping[bytes, Any] = _NOTHING,
    ) -> None:
        self.tree = tree
        self.parent = parent
        self.name = name
        self.dev = dev
        self.ino = ino
        self.covered = covered
        """Names here that are hidden (None), or that lead there (a mapping like this one)."""

    @property
    def fd(self) -> int:
        """An O_PATH descriptor for the next call."""
        return self.tree.directory_fd(self)

    @property
    def hidden(self) -> bool:
        return self.dev in self.tree.hidden

    def stat(self, name: bytes) -> os.stat_result | None:
        """What is called `name` here, None if nothing is."""
        if self.dev in self.tree.hidden:
            return None
        if self.covered and self.covered.get(name, self) is None:
            return None
        try:
            fd = self.tree.directory_fd(self)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == ENAMETOOLONG:  # longer than this host file system can have
                return None
            raise
        ids = self.tree.ids
        return status if ids is None else ids.shown(status, fd, name)

    def child(self, name: bytes, status: os.stat_result) -> HostDirectory:
        """The directory `name` here, of which `stat` said `status`."""
        covered = self.covered.get(name, _NOTHING) if self.covered else _NOTHING
        return HostDirectory(self.tree, self, name, status.st_dev, status.st_ino, covered)

    def readlink(self, name: bytes) -> bytes:
        return os.readlink(name, dir_fd=self.fd)

    def pin(self, name: bytes, flags: int = O_PIN) -> int:
        """A new descriptor to look at what is called `name`, which may be anything."""
        return self.tree.open_beneath(self.fd, name, flags, 0)

    def open_file(self, name: bytes, flags: int, dev: int, ino: int) -> int:
        """A new descriptor of the regular file `name`, which must still be (`dev`, `ino`)."""
        if self.dev in self.tree.hidden or dev in self.tree.hidden:
            raise OSError(EACCES, os.strerror(EACCES))
        fd = self.pin(name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != (dev, ino):
                raise OSError(ESTALE, os.strerror(ESTALE))
            return self.tree.reopen(fd, flags)
        finally:
            os.close(fd)

    def create(self, name: bytes, mode: int) -> int:
        """A descriptor for both reading and writing of a new regular file `name`."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW
        return self.tree.open_beneath(self.fd, name, flags, mode)

    def create_unnamed(self, mode: int) -> int:
        """A descriptor for both reading and writing of a new regular file. O_TMPFILE"""
        return self.tree.open_beneath(self.fd, b".", os.O_TMPFILE | os.O_RDWR, mode)

    def open_itself(self) -> int:
        """A new descriptor for reading the directory."""
        return self.tree.open_beneath(self.fd, b".", os.O_RDONLY | os.O_DIRECTORY, 0)

    def list(self) -> list[DirEntry]:
        """Every entry but `.` and `..`, in the host's order; inode numbers are the host's."""
        if self.dev in self.tree.hidden:
            return []
        fd = self.open_itself()
        try:
            with os.scandir(fd) as entries:
                found = [
                    DirEntry(os.fsencode(entry.name), entry.inode(), _type_of(entry, fd))
                    for entry in entries
                ]
        finally:
            os.close(fd)
        if self.covered:
            found = [entry for entry in found if self.covered.get(entry.name, self) is not None]
        return found


def _type_of(entry: os.DirEntry[str], fd: int) -> int:
    """The type bits of an entry, without a call to the host for the usual ones."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    try:
        return stat.S_IFMT(os.stat(entry.name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return 0


def _names_on_the_way(paths: Iterable[bytes]) -> Mapping[bytes, Any]:
    """`HostDirectory.covered` of the root, for hidden `paths`."""
    names: dict[bytes, Any] = {}
    for path in paths:
        *directories, last = path.split(b"/")
        below = names
        for name in directories:
            below = below.setdefault(name, {})
        below[last] = None
    return names


def kernel_devices() -> frozenset[int]:
    """st_dev of the host's mounted kernel interfaces, from /proc/self/mountinfo.
    proc_pid_mountinfo(5)"""
    found = set()
    try:
        with open("/proc/self/mountinfo", "rb", buffering=0) as file:
            lines = file.read(1 << 22).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        fields = line.split(" ")
        try:
            kind = fields[fields.index("-", 6) + 1]
            major, minor = fields[2].split(":")
        except (ValueError, IndexError):
            continue
        if kind in KERNEL_INTERFACES:
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
