"""FdTable: a process's descriptors. Linux: struct files_struct.

Interface: shared by tasks that cloned with CLONE_FILES (`users` counts them), copied by fork.
Entries hold one reference each on their FileDescription.
"""

from __future__ import annotations

from errno import EBADF, EMFILE, ENFILE
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FMODE_READ, FMODE_WRITE, O_PATH, open_files
from pysandbox_core.kernel_memory import OPEN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.task import Task


class FdTable:
    """Descriptor number -> file description, with the close-on-exec flag of each."""

    __slots__ = ("_files", "_first_free", "cloexec", "users")

    def __init__(self) -> None:
        self._files: list[FileDescription | None] = []
        self._first_free = 0
        """No free number lies below it."""
        self.cloexec: set[int] = set()
        """Descriptors with FD_CLOEXEC."""
        self.users = 1

    @property
    def size(self) -> int:
        """No descriptor is this or above. Linux: max_fds."""
        return len(self._files)

    def count(self) -> int:
        """How many are open."""
        return len(self._files) - self._files.count(None)

    def get(self, fd: int) -> FileDescription:
        """The file of `fd`. EBADF if it is not open, or open with O_PATH."""
        file = self.get_any(fd)
        if file.flags & O_PATH:
            raise LinuxError(EBADF)
        return file

    def get_any(self, fd: int) -> FileDescription:
        """The file of `fd`, O_PATH or not. EBADF if it is not open."""
        if 0 <= fd < len(self._files):
            file = self._files[fd]
            if file is not None:
                return file
        raise LinuxError(EBADF)

    def find(self, fd: int) -> FileDescription | None:
        """The file of `fd`, None if it is not open."""
        return self._files[fd] if 0 <= fd < len(self._files) else None

    def readable(self, fd: int) -> FileDescription:
        """The file of `fd` if it is open for reading, else EBADF."""
        file = self.get_any(fd)
        if not file.mode & FMODE_READ:
            raise LinuxError(EBADF)
        return file

    def writable(self, fd: int) -> FileDescription:
        """The file of `fd` if it is open for writing, else EBADF."""
        file = self.get_any(fd)
        if not file.mode & FMODE_WRITE:
            raise LinuxError(EBADF)
        return file

    def allocate(self, limit: int, minimum: int = 0) -> int:
        """The lowest free number from `minimum`; EMFILE if it is `limit` (RLIMIT_NOFILE) or
        more."""
        files = self._files
        fd = max(minimum, self._first_free)
        while fd < len(files) and files[fd] is not None:
            fd += 1
        if minimum <= self._first_free:
            self._first_free = fd
        if fd >= limit:
            raise LinuxError(EMFILE)
        return fd

    def install(
        self, task: Task, file: FileDescription, *, cloexec: bool = False, minimum: int = 0
    ) -> int:
        """Give `file` the lowest free number from `minimum`; takes over the caller's reference, and
        drops it on ENFILE, EMFILE and ENOMEM."""
        try:
            memory = task.kernel.memory
            memory.grow(OPEN_FILE + 8 * max(0, minimum - len(self._files)))
            if open_files() > memory.max_files:
                task.group.account.reach("files", f"{memory.max_files} open files")
                raise LinuxError(ENFILE)
            fd = self.allocate(task.group.limits.nofile, minimum)
        except LinuxError:
            file.decref()
            raise
        self.set(fd, file, cloexec)
        return fd

    def set(self, fd: int, file: FileDescription, cloexec: bool) -> FileDescription | None:
        """Put `file` at `fd`, taking over the caller's reference; returns what was there, whose
        reference is now the caller's."""
        files = self._files
        if fd >= len(files):
            files.extend([None] * (fd + 1 - len(files)))
        previous = files[fd]
        files[fd] = file
        if cloexec:
            self.cloexec.add(fd)
        else:
            self.cloexec.discard(fd)
        return previous

    def take(self, fd: int) -> FileDescription:
        """Free the number `fd` and return its file with the table's reference. EBADF"""
        file = self.get_any(fd)
        self._files[fd] = None
        self.cloexec.discard(fd)
        self._first_free = min(self._first_free, fd)
        return file

    def close(self, task: Task, fd: int) -> None:
        """close(2)"""
        self.let_go(task, self.take(fd))

    def let_go(self, task: Task, file: FileDescription) -> None:
        """A descriptor of this table no longer refers to `file`: drop its reference, and the record
        locks that the process has on it."""
        if file.inode.locks is not None:
            file.inode.locks.closed(self)
        file.flush(task)
        file.decref()

    def copy(self) -> FdTable:
        """As fork does: the same file descriptions in a table of its own."""
        table = FdTable()
        table._files = [None if file is None else file.incref() for file in self._files]
        table._first_free = self._first_free
        table.cloexec = set(self.cloexec)
        return table

    def open_fds(self) -> Iterator[tuple[int, FileDescription]]:
        """Every (number, file), lowest first."""
        for fd, file in enumerate(self._files):
            if file is not None:
                yield fd, file

    def close_on_exec(self, task: Task) -> None:
        """Close every descriptor that has FD_CLOEXEC."""
        for fd in sorted(self.cloexec):
            self.close(task, fd)

    def release(self, task: Task) -> None:
        """One user less; the last one closes everything."""
        self.users -= 1
        if self.users == 0:
            files, self._files = self._files, []  # a zombie has none, however many it had
            self.cloexec.clear()
            for file in files:
                if file is not None:
                    self.let_go(task, file)
