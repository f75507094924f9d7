"""proc(5): processes and the kernel's state as files."""

from pysandbox_core.fs.proc.filesystem import ProcFs

__all__ = ["ProcFs"]
