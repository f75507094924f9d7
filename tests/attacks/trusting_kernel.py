"""A kernel with one of its own walls missing: a hook plugin that takes it down before the sandbox
starts. Then the jail's wall can be seen to stand alone, and the tests to notice when neither does.

Interface: test_paths.py publishes `plugin` and names the wall in TRUSTING_KERNEL:
- `names`: symbolic links of the host are followed, and whatever a name means is opened;
- `read-only`: read-only binds can be written;
- `hidden`: what is hidden is shown.
"""

from __future__ import annotations

import os
from typing import Any

from pysandbox_core.fs import host_open, setup
from pysandbox_core.fs.host_tree import HostDirectory, HostTree
from pysandbox_core.hooks import hookimpl


def follow_names() -> None:
    def open_anything(directory_fd: int, path: bytes, flags: int, mode: int) -> int:
        return os.open(path, flags & ~os.O_NOFOLLOW, mode, dir_fd=directory_fd)

    def stat(self: HostDirectory, name: bytes) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.fd)
        except FileNotFoundError:
            return None

    def open_file(self: HostDirectory, name: bytes, flags: int, dev: int, ino: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK, dir_fd=self.fd)

    host_open.new_opener = lambda root_fd: open_anything
    HostDirectory.stat = stat  # type: ignore[method-assign]
    HostDirectory.open_file = open_file  # type: ignore[method-assign]


def forget_read_only() -> None:
    setup.MS_RDONLY = 0  # type: ignore[attr-defined]


def show_hidden() -> None:
    class Everything(HostTree):
        def __init__(self, root_fd: int, hidden: Any = ()) -> None:
            super().__init__(root_fd)

    setup.HostTree = Everything  # type: ignore[attr-defined]


class Plugin:
    @hookimpl
    def sandbox_start(self, kernel: Any) -> None:
        """Every plugin has some hook."""


plugin = Plugin()

WALLS = {"names": follow_names, "read-only": forget_read_only, "hidden": show_hidden}
if "TRUSTING_KERNEL" in os.environ:
    WALLS[os.environ["TRUSTING_KERNEL"]]()
