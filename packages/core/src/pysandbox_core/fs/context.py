"""FsContext: a process's root, working directory and umask. Linux: struct fs_struct.

Interface: shared by tasks that cloned with CLONE_FS (`users` counts them), copied by fork, given
back with `release`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path


class FsContext:
    """Where paths start, and which permission bits new files do not get."""

    __slots__ = ("cwd", "root", "umask", "users")

    def __init__(self, root: Path, cwd: Path, umask: int = 0o022) -> None:
        self.root = root.incref()
        self.cwd = cwd.incref()
        self.umask = umask
        self.users = 1

    def set_root(self, root: Path) -> None:
        root.incref()
        self.root.decref()
        self.root = root

    def set_cwd(self, cwd: Path) -> None:
        cwd.incref()
        self.cwd.decref()
        self.cwd = cwd

    def copy(self) -> FsContext:
        """As fork does."""
        return FsContext(self.root, self.cwd, self.umask)

    def release(self) -> None:
        """One user less."""
        self.users -= 1
        if self.users == 0:
            self.root.decref()
            self.cwd.decref()
