"""/proc/1: the kernel's own process, parent of what the user starts.

It has no threads and no memory of its own, so it is shown as a process that sleeps: what tools that
list processes and walk to the root of their tree look at, and nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core.fs.proc.mounts import mountinfo_text, mounts_text
from pysandbox_core.fs.proc.process import INO_SHIFT, TASK_INO
from pysandbox_core.fs.proc.status import limits_text
from pysandbox_core.fs.pseudo import PseudoDirectory

if TYPE_CHECKING:
    from pysandbox_core.fs.proc.filesystem import ProcFs

NAME = b"init"
FLAGS = 0x00400100
"""As in the ninth field of stat: PF_RANDOMIZE, PF_SUPERPRIV."""


class InitDirectory(PseudoDirectory):
    """/proc/1"""

    def __init__(self, fs: ProcFs) -> None:
        pid = fs.kernel.init.pid
        super().__init__(fs, 0o555, ino=(pid << INO_SHIFT) + 1)
        kernel = fs.kernel
        root = kernel.mounts.root
        self.add_constant(b"comm", NAME + b"\n")
        self.add_constant(b"cmdline", NAME + b"\0")
        self.add_constant(b"stat", self._stat(pid))
        self.add_constant(b"statm", b"0 0 0 0 0 0 0\n")
        self.add_constant(b"status", self._status(pid))
        self.add_constant(b"cgroup", b"0::/\n")
        self.add_constant(b"environ", b"", 0o400)
        self.add_constant(b"loginuid", b"4294967295")
        self.add_constant(b"oom_score", b"0\n")
        self.add_constant(b"oom_score_adj", b"0\n")
        self.add_constant(b"wchan", b"0")
        self.add_text(b"limits", lambda task: limits_text(kernel.init.limits))
        self.add_text(b"mounts", lambda task: mounts_text(kernel, root))
        self.add_text(b"mountinfo", lambda task: mountinfo_text(kernel, root))
        self.add_directory(b"fd", 0o500)
        self.add(b"net", fs.net)
        thread = PseudoDirectory(fs, ino=self.ino + TASK_INO)
        thread.children = dict(self.children)
        self.add_directory(b"task").add(b"%d" % pid, thread)

    @staticmethod
    def _stat(pid: int) -> bytes:
        fields = [0, pid, pid, 0, -1, FLAGS, *(0,) * 8, 20, 0, 1, *(0,) * 4]
        fields += [(1 << 64) - 1, *(0,) * 12, 17, *(0,) * 14]
        return b"%d (%s) S " % (pid, NAME) + b" ".join(b"%d" % field for field in fields) + b"\n"

    @staticmethod
    def _status(pid: int) -> bytes:
        rows = [(b"Name", NAME), (b"Umask", b"0022"), (b"State", b"S (sleeping)")]
        rows += [(name, b"%d" % pid) for name in (b"Tgid", b"Pid")]
        rows += [(b"PPid", b"0"), (b"TracerPid", b"0")]
        rows += [(b"Uid", b"0\t0\t0\t0"), (b"Gid", b"0\t0\t0\t0"), (b"FDSize", b"64")]
        rows += [(b"Groups", b" "), (b"Threads", b"1"), (b"SigQ", b"0/0")]
        rows += [(b"Sig" + name, b"%016x" % 0) for name in (b"Pnd", b"Blk", b"Ign", b"Cgt")]
        rows += [(b"Cap" + name, b"%016x" % 0) for name in (b"Inh", b"Prm", b"Eff", b"Bnd", b"Amb")]
        rows += [(b"NoNewPrivs", b"0"), (b"Seccomp", b"0")]
        return b"".join(b"%s:\t%s\n" % row for row in rows)
