"""ProcFs: the file system that is mounted on /proc.

Interface: `ProcFs(kernel)` becomes `kernel.proc`. Directories of processes come and go, so nothing
below is cached by the VFS; the inodes of a process stay the same objects while the process lives.
What programs that never look into /proc do not need is not even imported for them.
"""

from __future__ import annotations

from stat import S_IFDIR
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from pysandbox_core.fs.dentry import Dentry, Path
from pysandbox_core.fs.inode import DirEntry, Inode, Stat
from pysandbox_core.fs.proc.cpus import Cpus
from pysandbox_core.fs.pseudo import PseudoDirectory, PseudoFs

if TYPE_CHECKING:
    from pysandbox_core.fs.proc.init import InitDirectory
    from pysandbox_core.fs.proc.namespaces import NamespaceInode
    from pysandbox_core.fs.proc.net import NetDirectory
    from pysandbox_core.fs.proc.process import ProcessDirectory
    from pysandbox_core.fs.proc.system import LoadAverage
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

PROC_SUPER_MAGIC = 0x9FA0


class ProcFs(PseudoFs):
    """proc(5), of one kernel."""

    type_name = b"proc"
    fixed_names = True
    load: LoadAverage
    net: NetDirectory
    """/proc/PID/net, the same for all."""
    init_directory: InitDirectory

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, PROC_SUPER_MAGIC, blksize=1024)
        self.cpus = Cpus()
        self.root = RootDirectory(self)
        self._namespaces: dict[bytes, NamespaceInode] = {}
        kernel.proc = self

    def find_task(self, name: bytes) -> Task | None:
        """The task whose tid `name` is, in its shortest form."""
        if not name.isdigit() or len(name) > 7 or name[:1] == b"0":
            return None
        return self.kernel.tasks.get(int(name))

    def nameless_path(self, name: bytes, inode: Inode) -> Path:
        """A path to a file that no directory has; `name` is how it is shown."""
        from pysandbox_core.fs.anonymous import anonymous_mount

        return Path(anonymous_mount(self.kernel), Dentry(name, None, inode))

    def namespace_inode(self, kind: bytes) -> NamespaceInode:
        """What /proc/PID/ns/NAME leads to."""
        from pysandbox_core.fs.proc.namespaces import NamespaceInode

        inode = self._namespaces.get(kind)
        if inode is None:
            inode = self._namespaces[kind] = NamespaceInode(self, kind)
        return inode


class RootDirectory(PseudoDirectory):
    """/proc: the files that stay, then the processes."""

    def __init__(self, fs: ProcFs) -> None:
        super().__init__(fs)
        self._proc = fs
        self._processes: WeakValueDictionary[bytes, ProcessDirectory] = WeakValueDictionary()
        """By pid; kept by the dentries of those who use them."""

    def _fill(self) -> None:
        if not self.children:
            from pysandbox_core.fs.proc.tree import fill

            fill(self._proc, self)

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        self._fill()
        inode = self.children.get(name)
        if inode is not None or not name[:1].isdigit():
            return inode
        if name == b"%d" % self._proc.kernel.init.pid:
            return self._proc.init_directory
        found = self._proc.find_task(name)
        if found is None:
            return None
        # the tid of any thread works, though it is not listed
        directory = self._processes.get(name)
        if directory is None or not directory.is_of(found):
            from pysandbox_core.fs.proc.process import ProcessDirectory

            directory = self._processes[name] = ProcessDirectory(self._proc, found, True)
        return directory

    def entries(self, task: Task) -> list[DirEntry]:
        from pysandbox_core.fs.proc.process import INO_SHIFT

        self._fill()
        kernel = self._proc.kernel
        processes = [
            DirEntry(b"%d" % pid, (pid << INO_SHIFT) + 1, S_IFDIR)
            for pid in sorted(kernel.groups)
            if pid in kernel.tasks or pid == kernel.init.pid
        ]
        return super().entries(task) + processes

    def stat(self) -> Stat:
        return super().stat()._replace(nlink=self.nlink + len(self._proc.kernel.groups))
