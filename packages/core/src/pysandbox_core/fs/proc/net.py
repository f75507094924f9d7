"""/proc/net: the loopback device, and the sockets there are.

Interface: `NetDirectory(fs)`. The network is the sandbox's own: one interface, lo.

Linux: net/core/net-procfs.c, proc_net(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core.fs.pseudo import PseudoDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.task import Task

DEV_HEADER = (
    b"Inter-|   Receive                                                |  Transmit\n"
    b" face |bytes    packets errs drop fifo frame compressed multicast"
    b"|bytes    packets errs drop fifo colls carrier compressed\n"
)
TCP_HEADER = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
    b"   uid  timeout inode"
)
TCP6_HEADER = (
    b"  sl  local_address                         remote_address                        st"
    b" tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
)
UDP_HEADER = (
    b"   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
    b"   uid  timeout inode ref pointer drops"
)
UDP6_HEADER = (
    b"  sl  local_address                         remote_address                        st"
    b" tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
)
UNIX_HEADER = b"Num       RefCount Protocol Flags    Type St Inode Path\n"
ROUTE_HEADER = (
    b"Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
)
IPV4_LINE = 127
"""Lines of tcp, udp and route are padded to this many characters."""


class NetDirectory(PseudoDirectory):
    """/proc/PID/net"""

    def __init__(self, fs: ProcFs) -> None:
        super().__init__(fs, 0o555)
        row = b" ".join((b"%8d %7d %4d %4d %4d %5d %10d %9d" % ((0,) * 8),
                         b"%8d %7d %4d %4d %4d %5d %7d %10d" % ((0,) * 8)))  # fmt: skip
        self.add_constant(b"dev", DEV_HEADER + b"    lo: " + row.lstrip() + b"\n")
        self.add_constant(b"route", ROUTE_HEADER.ljust(IPV4_LINE) + b"\n")
        self.add_constant(b"if_inet6", b"00000000000000000000000000000001 01 80 10 80       lo\n")
        self.add_constant(
            b"arp",
            b"IP address       HW type     Flags       HW address            Mask     Device\n",
        )
        self.add_text(b"tcp", self._sockets("tcp", TCP_HEADER.ljust(149) + b"\n"))
        self.add_text(b"tcp6", self._sockets("tcp6", TCP6_HEADER))
        self.add_text(b"udp", self._sockets("udp", UDP_HEADER.ljust(IPV4_LINE) + b"\n"))
        self.add_text(b"udp6", self._sockets("udp6", UDP6_HEADER))
        self.add_text(b"unix", self._sockets("unix", UNIX_HEADER))

    @staticmethod
    def _sockets(kind: str, header: bytes) -> Callable[[Task], bytes]:
        """Header, then a line for each socket that the network code tells of."""

        def generate(task: Task) -> bytes:
            network = task.kernel.network
            return header if network is None else header + b"".join(network.proc_lines(kind))

        return generate
