"""Where the host has what a sandbox shows of it: one place for each file system that is mounted.

Interface: `find_sources` once, from a configuration, with the host's paths as the caller has them.
The jail then moves each to where it lies in the sentry's own root (jail/root.py); whoever opens
`directory` afterwards gets the same files.

Where the sandbox's root is the caller's own, `SECRETS` are left out of it. They are what every host
has, nobody but root can read and no program needs: passwords' hashes. To programs they do not
exist, which all of them are prepared for, and who makes them anew has them in memory. A root made
for the purpose (`--rootfs`) and binds are shown as they are: they were asked for.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pysandbox_core.config import show
from pysandbox_core.errors import SandboxError

if TYPE_CHECKING:
    from pysandbox_core.config import Bind, SandboxConfig


SECRETS = (
    b"/etc/shadow",
    b"/etc/shadow-",
    b"/etc/gshadow",
    b"/etc/gshadow-",
    b"/etc/security/opasswd",
    b"/etc/security/opasswd.old",
)
"""shadow(5), gshadow(5), what shadow-utils keep of them before a change, and pam_pwhistory(8)."""


class Source:
    """A directory of the host, or one file in it."""

    __slots__ = ("directory", "hidden", "name", "path", "writable")

    def __init__(self, path: bytes, *, writable: bool = False) -> None:
        path = os.path.realpath(path)
        self.path = path
        """Absolute, without symbolic links, as the caller sees it."""
        self.directory, self.name = (path, b"") if os.path.isdir(path) else os.path.split(path)
        """The directory to open, and the file's name in it, empty if all of it is meant."""
        self.writable = writable
        self.hidden: list[bytes] = []
        """Relative paths of files in the directory that are not shown, by whatever name."""


def find_sources(config: SandboxConfig) -> list[Source]:
    """The root's first, then the binds' in their order. SandboxError: one is never shown."""
    root = Source(config.rootfs)
    if os.path.exists(root.path) and os.path.samefile(root.path, b"/"):
        names = {*SECRETS, *[os.path.realpath(secret) for secret in SECRETS]}
        root.hidden = sorted(name[1:] for name in names)
    return [root, *[_bind_source(bind) for bind in config.binds]]


def _bind_source(bind: Bind) -> Source:
    from pysandbox_core.fs.host_tree import kernel_devices

    with suppress(OSError):  # who opens it says what is wrong
        if os.stat(bind.source).st_dev in kernel_devices():
            raise SandboxError(
                f"bind source {show(bind.source)} is an interface of the host's kernel, which no "
                "sandbox shows; it has a /proc, a /sys and a /dev of its own"
            )
    return Source(bind.source, writable=bind.writable)
