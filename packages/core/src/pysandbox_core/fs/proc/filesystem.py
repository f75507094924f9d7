"""ProcFs: the file system that is mounted on /proc.

Interface: `ProcFs(kernel)` becomes `kernel.proc`. Directories of processes come and go, so nothing
below is cached by the VFS; the inodes of a process stay the same objects while the process lives.
"""

from __future__ import annotations

from errno import EINVAL, ENOTTY
from stat import S_IFDIR, S_IFREG
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Dentry, Path
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.inode import DirEntry, Inode
from pysandbox_core.fs.proc.cpus import Cpus
from pysandbox_core.fs.proc.descriptors import parse_fd
from pysandbox_core.fs.proc.net import NetDirectory
from pysandbox_core.fs.proc.process import INO_SHIFT, NAMESPACES, ProcessDirectory
from pysandbox_core.fs.proc.sysctl import add_sysctls
from pysandbox_core.fs.proc.system import LoadAverage, add_system_files
from pysandbox_core.fs.pseudo import PseudoDirectory, PseudoFs, PseudoInode, PseudoSymlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

PROC_SUPER_MAGIC = 0x9FA0
NSFS_MAGIC = 0x6E736673


class ProcFs(PseudoFs):
    """proc(5), of one kernel."""

    type_name = b"proc"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, PROC_SUPER_MAGIC, blksize=1024)
        self.cpus = Cpus()
        self.load = LoadAverage(kernel)
        self.root = RootDirectory(self)
        self.net = NetDirectory(self)
        self._namespaces: dict[bytes, NamespaceInode] = {}
        kernel.proc = self
        root = self.root
        add_system_files(self, root)
        root.add(b"self", SelfLink(self))
        root.add(b"thread-self", ThreadSelfLink(self))
        root.add_symlink(b"mounts", b"self/mounts")
        root.add_symlink(b"net", b"self/net")
        add_sysctls(self, root.add_directory(b"sys"))
        add_sysvipc(kernel, root.add_directory(b"sysvipc"))
        root.add_directory(b"fs")
        root.add_directory(b"tty")

    def find_task(self, name: bytes) -> Task | None:
        """The task whose tid `name` is."""
        tid = parse_fd(name)
        return self.kernel.tasks.get(tid) if tid > 0 else None

    def nameless_path(self, name: bytes, inode: Inode) -> Path:
        """A path to a file that no directory has; `name` is how it is shown."""
        from pysandbox_core.fs.anonymous import anonymous_mount

        return Path(anonymous_mount(self.kernel), Dentry(name, None, inode))

    def namespace_inode(self, kind: bytes) -> NamespaceInode:
        """What /proc/PID/ns/NAME leads to."""
        inode = self._namespaces.get(kind)
        if inode is None:
            inode = self._namespaces[kind] = NamespaceInode(self, kind)
        return inode

    def unmounted(self) -> None:
        self.cpus.close()


class RootDirectory(PseudoDirectory):
    """/proc: the files that stay, then the processes."""

    fs: ProcFs

    def __init__(self, fs: ProcFs) -> None:
        super().__init__(fs, 0o555)
        self._processes: WeakValueDictionary[bytes, ProcessDirectory] = WeakValueDictionary()

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        inode = self.children.get(name)
        if inode is not None or not name[:1].isdigit():
            return inode
        found = self.fs.find_task(name)
        if found is None:
            return None
        # a thread's tid works too, though it is not listed: then it is that thread one sees
        directory = self._processes.get(name)
        if directory is None or not directory.is_of(found):
            directory = self._processes[name] = ProcessDirectory(self.fs, found, True)
        return directory

    def entries(self, task: Task) -> list[DirEntry]:
        processes = [
            DirEntry(b"%d" % pid, (pid << INO_SHIFT) + 1, S_IFDIR)
            for pid in sorted(self.fs.kernel.groups)
        ]
        return super().entries(task) + processes

    @property
    def process_count(self) -> int:
        return len(self.fs.kernel.groups)


class SelfLink(PseudoSymlink):
    """/proc/self"""

    def __init__(self, fs: PseudoFs) -> None:
        super().__init__(fs, b"")

    def readlink(self, task: Task) -> bytes:
        return b"%d" % task.pid


class ThreadSelfLink(PseudoSymlink):
    """/proc/thread-self"""

    def __init__(self, fs: PseudoFs) -> None:
        super().__init__(fs, b"")

    def readlink(self, task: Task) -> bytes:
        return b"%d/task/%d" % (task.pid, task.tid)


class NamespaceInode(PseudoInode):
    """The one namespace of a kind, to be opened and compared."""

    def __init__(self, fs: ProcFs, kind: bytes) -> None:
        from pysandbox_core.fs.proc.process import FIRST_NAMESPACE_INO

        super().__init__(fs, S_IFREG | 0o444, ino=FIRST_NAMESPACE_INO + NAMESPACES.index(kind))
        self.kind = kind

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return NamespaceFile(flags, self, path)


class NamespaceFile(FileDescription):
    """An open namespace. ioctl_nsfs(2) has nothing to tell about the only one there is."""

    __slots__ = ()

    def read(self, task: Task, sink: object, offset: int | None = None) -> int:
        raise LinuxError(EINVAL)

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        raise LinuxError(ENOTTY)


SYSVIPC_COLUMNS: dict[bytes, bytes] = {
    b"shm": b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid"
    b"  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
    b"sem": b"       key      semid perms      nsems   uid   gid  cuid  cgid      otime"
    b"      ctime\n",
    b"msg": b"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid"
    b"  cuid  cgid      stime      rtime      ctime\n",
}
"""The first lines of the files of /proc/sysvipc."""


def add_sysvipc(kernel: Kernel, directory: PseudoDirectory) -> None:
    """/proc/sysvipc: the columns' names, and what System V IPC tells of its objects."""
    for name, columns in SYSVIPC_COLUMNS.items():
        directory.add_text(name, _sysvipc_text(kernel, name, columns))


def _sysvipc_text(kernel: Kernel, name: bytes, columns: bytes) -> Callable[[Task], bytes]:
    def generate(task: Task) -> bytes:
        lines = getattr(getattr(kernel, "sysv_ipc", None), "proc_lines", None)
        return columns if lines is None else columns + b"".join(lines(name))

    return generate
