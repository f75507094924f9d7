"""A directory tree of the host, reached only beneath one root descriptor.

Interface:
- A `HostTree` is opened on a host directory; everything after that goes from descriptor to
  descriptor, one name at a time, and never follows a symbolic link of the host. Whoever changes the
  tree from outside may make calls fail with ESTALE or ENOENT; they can't lead them out of it.
- A `HostDirectory` names one directory in it. Its descriptor is opened when needed and closed when
  others need the place: only the last `MAX_DIRECTORIES` used ones are open.
- Only regular files are ever opened. Devices, fifos and sockets of the host can be seen by stat.
- Kernel interfaces of the host (proc, sysfs, ...) found in the tree look like empty directories:
  they would speak of the sandbox's own process.
- Calls raise OSError; callers convert.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, ELOOP, ENAMETOOLONG, ENOTDIR, ENXIO, ESTALE
from resource import RLIMIT_NOFILE, getrlimit

from pysandbox_core.fs.inode import DirEntry
from pysandbox_core.mm.mappable import HostFileMappable

_O_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_O_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_KERNEL_INTERFACES = frozenset(
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

    def __init__(self, root_fd: int) -> None:
        status = os.fstat(root_fd)
        self.root = HostDirectory(self, None, b"", status.st_dev, status.st_ino)
        self.root_fd = root_fd
        self.root_stat = status
        self.hidden = _kernel_devices()
        """st_dev of what must not be entered."""
        self._directories: dict[HostDirectory, int] = {}
        """Open directories, the oldest first."""
        self._files: dict[HostFileMappable, None] = {}
        """Files kept open, the oldest first; each has one reference."""
        self.max_files = min(self.MAX_FILES, getrlimit(RLIMIT_NOFILE)[0] // 4)

    @classmethod
    def open(cls, path: bytes) -> HostTree:
        """The tree at `path` of the host; the only place where a path is resolved by the host."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

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
        if directory.parent is None:
            return self.root_fd
        chain = [directory]
        above = directory.parent
        while above.parent is not None and above not in self._directories:
            chain.append(above)
            above = above.parent
        fd = self._directories.get(above, self.root_fd)
        for step in reversed(chain):
            fd = self._open_directory(step, fd)
        return fd

    def two_fds(self, first: HostDirectory, second: HostDirectory) -> tuple[int, int]:
        """Descriptors of two directories, good at the same time."""
        self.directory_fd(first)
        second_fd = self.directory_fd(second)
        return self.directory_fd(first), second_fd  # at most one is opened after the second

    def forget(self, directory: HostDirectory) -> None:
        """`directory` was removed or means something else now."""
        fd = self._directories.pop(directory, None)
        if fd is not None:
            os.close(fd)

    def _open_directory(self, directory: HostDirectory, parent_fd: int) -> int:
        fd = os.open(directory.name, _O_DIRECTORY, dir_fd=parent_fd)
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

    __slots__ = ("dev", "ino", "name", "parent", "tree")

    def __init__(
        self, tree: HostTree, parent: HostDirectory | None, name: bytes, dev: int, ino: int
    ) -> None:
        self.tree = tree
        self.parent = parent
        self.name = name
        self.dev = dev
        self.ino = ino

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
        try:
            return os.stat(name, dir_fd=self.tree.directory_fd(self), follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == ENAMETOOLONG:  # longer than this host file system can have
                return None
            raise

    def child(self, name: bytes, status: os.stat_result) -> HostDirectory:
        """The directory `name` here, of which `stat` said `status`."""
        return HostDirectory(self.tree, self, name, status.st_dev, status.st_ino)

    def readlink(self, name: bytes) -> bytes:
        return os.readlink(name, dir_fd=self.fd)

    def open_file(self, name: bytes, flags: int, dev: int, ino: int) -> int:
        """A new descriptor of the regular file `name`, which must still be (`dev`, `ino`)."""
        if self.dev in self.tree.hidden or dev in self.tree.hidden:
            raise OSError(EACCES, os.strerror(EACCES))
        try:
            fd = os.open(name, flags | _O_FILE, dir_fd=self.fd)
        except OSError as error:
            if error.errno in (ELOOP, ENXIO, ENOTDIR):  # no longer what it was
                raise OSError(ESTALE, os.strerror(ESTALE)) from None
            raise
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != (dev, ino):
            os.close(fd)
            raise OSError(ESTALE, os.strerror(ESTALE))
        return fd

    def list(self) -> list[DirEntry]:
        """Every entry but `.` and `..`, in the host's order; inode numbers are the host's."""
        if self.dev in self.tree.hidden:
            return []
        fd = os.open(
            ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd
        )
        try:
            with os.scandir(fd) as entries:
                return [
                    DirEntry(os.fsencode(entry.name), entry.inode(), _type_of(entry, fd))
                    for entry in entries
                ]
        finally:
            os.close(fd)


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


def _kernel_devices() -> frozenset[int]:
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
        if kind in _KERNEL_INTERFACES:
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
