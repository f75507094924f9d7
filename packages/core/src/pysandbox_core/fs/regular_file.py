"""Open regular files and open directories, whatever file system they are on.

Interface: `RegularFile` does positions, O_APPEND, size limits, set-user-ID bits, times and events;
where bytes come from and go to is the inode's (`read_at`, `write_at`). `DirectoryFile` lists what
the inode's `entries` gives.

Linux: mm/filemap.c generic_file_read_iter(), generic_write_checks(); fs/libfs.c dcache_readdir().
"""

from __future__ import annotations

import os
import signal
from errno import EFBIG, EINVAL, EISDIR, ENXIO, EOVERFLOW
from stat import S_IFDIR
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import notify
from pysandbox_core.fs.file_description import FMODE_WRITE, FileDescription
from pysandbox_core.fs.inode import DirEntry, Inode
from pysandbox_core.fs.permissions import drop_privileges_on_write
from pysandbox_core.waiting import Turn, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

MAX_FILE_SIZE = (1 << 63) - 1
PIECE = 4 << 20
"""Bytes that are moved before others have their turn."""
O_APPEND = os.O_APPEND


class RegularInode(Inode):
    """What a `RegularFile` asks of its inode, besides what every inode has."""

    @property
    def size(self) -> int:
        """Length in bytes, now."""
        raise NotImplementedError

    def read_at(self, sink: Sink, offset: int, limit: int) -> int:
        """Move at most `limit` bytes from `offset` to `sink`; how many, 0 at the end."""
        raise NotImplementedError

    def write_at(self, source: Source, offset: int, limit: int) -> int:
        """Take at most `limit` bytes from `source` to `offset`, growing the file; how many."""
        raise NotImplementedError

    def mappable(self, task: Task, writable: bool) -> Mappable:
        """What a mapping of the file maps, with a reference for the caller."""
        raise NotImplementedError


class RegularFile(FileDescription):
    """An open regular file.

    Much is moved in pieces, between which others have their turn. Who does so has the file
    description's position, and for writing the inode, for itself meanwhile (`busy`). Linux:
    f_pos_lock, i_rwsem
    """

    __slots__ = ("busy",)
    inode: RegularInode
    counts_as_writer = True
    """While it is open for writing, the file can't be executed."""

    def __init__(self, flags: int, inode: RegularInode, path: Path | None = None) -> None:
        super().__init__(flags, inode, path)
        self.busy: WaitQueue | None = None
        inode.opens += 1
        if self.mode & FMODE_WRITE:
            inode.writers += self.counts_as_writer

    def release(self) -> None:
        inode = self.inode
        inode.opens -= 1
        if self.mode & FMODE_WRITE:
            inode.writers -= self.counts_as_writer
        if notify.watching:
            mask = notify.IN_CLOSE_WRITE if self.mode & FMODE_WRITE else notify.IN_CLOSE_NOWRITE
            notify.file_event(self, mask)
            if not inode.nlink and not inode.opens:
                notify.inode_event(inode, notify.IN_DELETE_SELF)

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        if offset is None and self.busy is not None:
            wait_until_free(task, self)
        position = self.offset if offset is None else offset
        wanted = sink.remaining
        if wanted <= PIECE:
            done = self.read_at(sink, position, wanted)
        else:
            mine = () if offset is not None else (self,)
            done = _move_much(task, self.read_at, sink, position, wanted, mine)
        if offset is None:
            self.offset = position + done
        if not done:
            check_end(position, wanted)
        elif notify.watching:
            notify.file_event(self, notify.IN_ACCESS)
        return done

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        inode = self.inode
        count = source.remaining
        if not count:
            return 0
        if inode.busy is not None or (offset is None and self.busy is not None):
            wait_until_free(task, inode, *(() if offset is not None else (self,)))
        if self.flags & O_APPEND:
            position = inode.size
        else:
            position = self.offset if offset is None else offset
        count = check_write(task, position, count)
        if inode.mode & 0o6000:
            drop_privileges_on_write(task.creds, inode)
        if count <= PIECE:
            done = self.write_at(source, position, count)
        else:
            mine = (inode,) if offset is not None else (inode, self)
            done = _move_much(task, self.write_at, source, position, count, mine)
        if offset is None:
            self.offset = position + done
        if done and notify.watching:
            notify.file_event(self, notify.IN_MODIFY)
        return done

    def read_at(self, sink: Sink, offset: int, limit: int) -> int:
        """RegularInode.read_at, of the file that was opened."""
        return self.inode.read_at(sink, offset, limit)

    def write_at(self, source: Source, offset: int, limit: int) -> int:
        """RegularInode.write_at, of the file that was opened."""
        return self.inode.write_at(source, offset, limit)

    def seek(self, task: Task, offset: int, whence: int) -> int:
        if self.busy is not None:
            wait_until_free(task, self)
        if whence == os.SEEK_CUR:
            offset += self.offset
        elif whence == os.SEEK_END:
            offset += self.inode.size
        elif whence in (os.SEEK_DATA, os.SEEK_HOLE):
            offset = self.seek_data(offset, whence == os.SEEK_DATA)
        elif whence != os.SEEK_SET:
            raise LinuxError(EINVAL)
        if not 0 <= offset <= MAX_FILE_SIZE:
            raise LinuxError(EOVERFLOW if offset > MAX_FILE_SIZE else EINVAL)
        self.offset = offset
        return offset

    def seek_data(self, offset: int, data: bool) -> int:
        """SEEK_DATA, SEEK_HOLE for files without holes: all data, a hole at the end."""
        size = self.inode.size
        if not 0 <= offset < size:
            raise LinuxError(ENXIO)
        return offset if data else size

    @property
    def seekable(self) -> bool:
        return True

    def truncate(self, task: Task, length: int) -> None:
        inode = self.inode
        unmap_first(task, inode, length)
        wait_until_free(task, inode)
        check_size_limit(task, length, inode.size)
        if inode.mode & 0o6000:
            drop_privileges_on_write(task.creds, inode)
        inode.truncate(length)
        if notify.watching:
            notify.file_event(self, notify.IN_MODIFY)

    def sync(self, task: Task, data_only: bool) -> None:
        """Memory has nothing to be written to."""

    def mappable(self, task: Task) -> Mappable:
        return self.inode.mappable(task, bool(self.mode & 2))


def unmap_first(task: Task, inode: Inode, start: int, end: int = 1 << 63) -> None:
    """Before [start, end) is taken out of a file: if programs have many pieces of it mapped, take
    them away while others have their turn. What they reach meanwhile comes back."""
    mappable = inode.mapped
    if mappable is not None:
        mappable.unmap_in_turns(task, start, end)


def wait_until_free(task: Task, *holders: Inode | RegularFile) -> None:
    """Block until nobody moves much to or from any of them. Only death interrupts it."""
    while queues := [holder.busy for holder in holders if holder.busy is not None]:
        task.block(queues[0], killable_only=True)


def _move_much(
    task: Task,
    move: Callable[[Any, int, int], int],
    buffer: Sink | Source,
    position: int,
    length: int,
    mine: tuple[Inode | RegularFile, ...],
) -> int:
    """`move` between `buffer` and `position` in pieces, with what is `mine` meanwhile; how many
    bytes. An error counts only if nothing was moved."""
    queue = WaitQueue()
    for holder in mine:
        holder.busy = queue
    turn = Turn(task)
    done = 0
    try:
        while done < length:
            limit = min(PIECE, length - done)
            moved = move(buffer, position + done, limit)
            done += moved
            if moved < limit or (done < length and not turn.goes_on(killable_only=True)):
                break
    except LinuxError:
        if not done:
            raise
    finally:
        for holder in mine:
            holder.busy = None
        queue.wake()
    return done


class DirectoryFile(FileDescription):
    """An open directory. The listing is made when it is first read and again after a rewind, so
    that positions stay good while entries come and go."""

    __slots__ = ()

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        raise LinuxError(EISDIR)

    def entries(self, task: Task) -> list[DirEntry]:
        inode = self.inode
        parent = inode if self.path is None else parent_inode(self.path)
        found = [DirEntry(b".", inode.ino, S_IFDIR), DirEntry(b"..", parent.ino, S_IFDIR)]
        found += inode.entries(task)
        return found

    def seek(self, task: Task, offset: int, whence: int) -> int:
        if whence == os.SEEK_CUR:
            offset += self.offset
        elif whence != os.SEEK_SET:
            raise LinuxError(EINVAL)
        if offset < 0:
            raise LinuxError(EINVAL)
        self.offset = offset
        return offset

    @property
    def seekable(self) -> bool:
        return True

    def sync(self, task: Task, data_only: bool) -> None:
        """Names are in memory, or were the host's to keep when they were made."""


def parent_inode(path: Path) -> Inode:
    """The directory that `..` is, as a listing shows it."""
    mount, dentry = path.mount, path.dentry
    while dentry is mount.root and mount.parent is not None:
        dentry, mount = mount.mountpoint, mount.parent
    inode = dentry.parent.inode
    return path.inode if inode is None else inode


def check_end(position: int, count: int) -> None:
    """EINVAL for a transfer that no file offset can tell the end of. rw_verify_area()"""
    if position + count > MAX_FILE_SIZE:
        raise LinuxError(EINVAL)


def check_write(task: Task, position: int, count: int) -> int:
    """How many of `count` bytes may be written at `position`: EFBIG, with SIGXFSZ at
    RLIMIT_FSIZE."""
    check_end(position, count)
    limit = task.group.limits.fsize
    if position + count > limit:
        if position >= limit:
            send_size_signal(task)
            raise LinuxError(EFBIG)
        count = limit - position
    return count


def check_size_limit(task: Task, length: int, size: int) -> None:
    """EFBIG and SIGXFSZ if the file grows beyond RLIMIT_FSIZE. inode_newsize_ok()"""
    if length > size and length > task.group.limits.fsize:
        send_size_signal(task)
        raise LinuxError(EFBIG)


def send_size_signal(task: Task) -> None:
    """What a process gets for growing a file beyond its limit, besides EFBIG. getrlimit(2)"""
    from pysandbox_core import task_signals
    from pysandbox_core.signals import SigInfo

    task_signals.send(task, signal.SIGXFSZ, SigInfo.kernel(signal.SIGXFSZ))
