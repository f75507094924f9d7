"""What is in /proc besides the processes: made when the file system is first looked into.

Interface: `fill(fs, root)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core.fs.proc.init import InitDirectory
from pysandbox_core.fs.proc.net import NetDirectory
from pysandbox_core.fs.proc.sysctl import add_sysctls
from pysandbox_core.fs.proc.system import add_system_files
from pysandbox_core.fs.pseudo import PseudoSymlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.fs.pseudo import PseudoDirectory
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task


def fill(fs: ProcFs, root: PseudoDirectory) -> None:
    """Put the files that stay into /proc."""
    add_system_files(fs, root)
    root.add(b"self", SelfLink(fs, b""))
    root.add(b"thread-self", ThreadSelfLink(fs, b""))
    root.add_symlink(b"mounts", b"self/mounts")
    root.add_symlink(b"net", b"self/net")
    add_sysctls(fs, root.add_directory(b"sys"))
    add_sysvipc(fs.kernel, root.add_directory(b"sysvipc"))
    root.add_directory(b"fs")
    root.add_directory(b"tty").add_text(b"drivers", lambda task: TTY_DRIVERS)
    fs.net = NetDirectory(fs)
    fs.init_directory = InitDirectory(fs)


TTY_DRIVERS = b"".join(
    b"%-20s %-20s %3d %s\n" % driver
    for driver in (
        (b"/dev/tty", b"/dev/tty", 5, b"      0 system:/dev/tty"),
        (b"/dev/console", b"/dev/console", 5, b"      1 system:console"),
        (b"/dev/ptmx", b"/dev/ptmx", 5, b"      2 system"),
        (b"pty_slave", b"/dev/pts", 136, b"0-1048575 pty:slave"),
        (b"pty_master", b"/dev/ptm", 128, b"0-1048575 pty:master"),
    )
)
"""/proc/tty/drivers: ps(1) finds the names of terminals with it."""


class SelfLink(PseudoSymlink):
    """/proc/self"""

    def readlink(self, task: Task) -> bytes:
        return b"%d" % task.pid


class ThreadSelfLink(PseudoSymlink):
    """/proc/thread-self"""

    def readlink(self, task: Task) -> bytes:
        return b"%d/task/%d" % (task.pid, task.tid)


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
