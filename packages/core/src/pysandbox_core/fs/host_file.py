"""Regular files of the host: read, written and mapped where they are.

Interface: see host_directory.py for the rules. All who have a file open share one descriptor of it
for reading, or one for both; positions are the sandbox's own, so the host is asked with pread and
pwrite.
"""

from __future__ import annotations

import os
from errno import EIO
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import FALLOC_FL_PUNCH_HOLE
from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.fs import host_ids
from pysandbox_core.fs.host_inode import HostInode
from pysandbox_core.fs.host_stdio import stat_of
from pysandbox_core.fs.inode import Stat
from pysandbox_core.fs.overlay import read_host
from pysandbox_core.fs.regular_file import RegularFile, RegularInode
from pysandbox_core.mm.mappable import HostFileMappable

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.host_directory import HostFs
    from pysandbox_core.fs.host_tree import HostDirectory
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

CHUNK = 1 << 20
"""Bytes moved at a time."""


class HostFileInode(HostInode, RegularInode):
    """A regular file. Open ones share a descriptor for reading, and one for writing too."""

    def __init__(
        self, fs: HostFs, status: os.stat_result, directory: HostDirectory | None, name: bytes
    ) -> None:
        self.file: HostFileMappable | None = None
        """The host's file, open, while somebody has it open or mapped."""
        self.created = False
        """`file` is open from its creation still: who acquires it first takes that reference."""
        super().__init__(fs, status, directory, name)

    def __del__(self) -> None:
        if self.created and self.file is not None:
            self.file.decref()

    @property
    def fd(self) -> int:  # type: ignore[override]  # where the others have none
        return -1 if self.file is None else self.file.host_fd

    def acquire(self, writable: bool) -> HostFileMappable:
        """The host's file with a reference for the caller, opened for writing if asked."""
        file = self.file
        if file is not None and file.host_fd >= 0 and (file.can_write or not writable):
            if self.created:
                self.created = False
            else:
                file.incref()
            return file
        with linux_errors():
            if self.directory is None or self.fd >= 0:
                fd = self.reopen(os.O_RDWR if writable else os.O_RDONLY)
            else:
                flags = os.O_RDWR if writable else os.O_RDONLY
                try:
                    fd = self.directory.open_file(self.name, flags, *self.key)
                except PermissionError:
                    if not writable:
                        raise
                    fd = self.directory.open_file(self.name, os.O_WRONLY, *self.key)
        self.file = HostFileMappable(fd, can_write=writable)
        return self.file

    @property
    def mapped(self) -> Mappable | None:
        return self.file

    @property
    def size(self) -> int:
        with linux_errors():
            return self.host_stat().st_size

    def truncate(self, length: int) -> None:
        file = self.acquire(True)
        try:
            file.invalidate(length + 4095 & -4096, 1 << 62)
            with linux_errors():
                os.ftruncate(file.host_fd, length)
        finally:
            file.decref()

    def mappable(self, task: Task, writable: bool) -> Mappable:
        return self.acquire(writable)

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return HostFile(flags, self, path)


class HostFile(RegularFile):
    """An open file of the host. The position is the sandbox's own: pread and pwrite."""

    __slots__ = ("file",)
    inode: HostFileInode

    def __init__(self, flags: int, inode: HostFileInode, path: Path) -> None:
        self.file = inode.acquire(flags & os.O_ACCMODE != os.O_RDONLY)
        super().__init__(flags, inode, path)

    def release(self) -> None:
        super().release()
        self.file.decref()

    def read_at(self, sink: Sink, offset: int, limit: int) -> int:
        return read_host(sink, self.file.host_fd, offset, limit)

    def write_at(self, source: Source, offset: int, limit: int) -> int:
        """At the end as the host sees it, if the file is open with O_APPEND."""
        host_fd = self.file.host_fd
        append = self.flags & os.O_APPEND
        done = 0
        try:
            while done < limit:
                data = source.read(min(limit - done, CHUNK))
                if append:
                    count = os.pwritev(host_fd, [data], 0, os.RWF_APPEND)
                else:
                    count = os.pwrite(host_fd, data, offset + done)
                source.undo(len(data) - count)
                done += count
                if count < CHUNK:
                    break
        except OSError as error:
            if not done:
                raise LinuxError(error.errno or EIO) from None
        return done

    def stat(self) -> Stat:
        with linux_errors():
            return stat_of(host_ids.fstat(self.file.host_fd))._replace(dev=self.inode.dev)

    def seek_data(self, offset: int, data: bool) -> int:
        with linux_errors():
            return os.lseek(self.file.host_fd, offset, os.SEEK_DATA if data else os.SEEK_HOLE)

    def allocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        from pysandbox_core.host_calls import fallocate

        if mode & FALLOC_FL_PUNCH_HOLE:
            self.file.invalidate(offset & -4096, offset + length + 4095 & -4096, copies=False)
        with linux_errors():
            fallocate(self.file.host_fd, mode, offset, length)

    def sync(self, task: Task, data_only: bool) -> None:
        with linux_errors():
            (os.fdatasync if data_only else os.fsync)(self.file.host_fd)

    def mappable(self, task: Task) -> Mappable:
        self.file.incref()
        return self.file
