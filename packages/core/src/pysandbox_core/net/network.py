"""Network: the names and ports of one sandbox.

Interface: `network(kernel)`, made when the first socket is. Linux: struct net, without namespaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.net.ports import PortTable
    from pysandbox_core.net.unix import UnixSocket


class Network:
    """Who is bound to what."""

    def __init__(self) -> None:
        self.abstract_names: dict[tuple[int, bytes], UnixSocket] = {}
        """AF_UNIX sockets by type and abstract name, without its leading NUL: each type has names
        of its own. unix_abstract_hash()"""
        self.bound_inodes: WeakKeyDictionary[Inode, UnixSocket] = WeakKeyDictionary()
        """AF_UNIX sockets by the inode that bind made."""
        self.unix_sockets: dict[UnixSocket, None] = {}
        self.in_flight: dict[int, int] = {}
        """Files on their way in SCM_RIGHTS messages, by the uid that sent them."""
        self.closes = 0
        """AF_UNIX sockets that were closed meanwhile, since circles were last looked for."""
        self.will_collect = False
        """A timer is armed for that."""
        self.collect_ns = 0
        """How long it took the last time."""
        self.tcp: PortTable | None = None
        self.udp: PortTable | None = None
        self.last_autobind = 0

    def proc_lines(self, kind: str) -> list[bytes]:
        """The lines of /proc/net/`kind` below its header."""
        if kind == "unix":
            return [socket.proc_line() for socket in self.unix_sockets]
        table = self.tcp if kind.startswith("tcp") else self.udp
        return [] if table is None else table.proc_lines(kind.endswith("6"))


def network(kernel: Kernel) -> Network:
    """The one of `kernel`."""
    if kernel.network is None:
        kernel.network = Network()
    return kernel.network
