"""/sys: processors, memory pages and the loopback device, as programs ask sysfs for them.

Interface: `SysFs(kernel)` is mounted on /sys; nothing in it can be written. The tree is made when
it is first looked into.

Linux: Documentation/ABI/, drivers/base/{cpu,topology,node}.c, net/core/net-sysfs.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core.fs.proc.cpus import Cpus, format_cpu_list, format_cpu_mask
from pysandbox_core.fs.pseudo import PseudoDirectory, PseudoFs

if TYPE_CHECKING:
    from pysandbox_core.fs.inode import DirEntry, Inode
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

SYSFS_MAGIC = 0x62656572
KERNEL_MAX = 8191
"""The highest processor number that the kernel could have: NR_CPUS - 1."""

LOOPBACK = {
    b"addr_assign_type": b"0", b"addr_len": b"6", b"address": b"00:00:00:00:00:00",
    b"broadcast": b"00:00:00:00:00:00", b"carrier": b"1", b"carrier_changes": b"0",
    b"dev_id": b"0x0", b"dev_port": b"0", b"dormant": b"0", b"flags": b"0x9", b"group": b"0",
    b"ifalias": b"", b"ifindex": b"1", b"iflink": b"1", b"link_mode": b"0", b"mtu": b"65536",
    b"name_assign_type": b"2", b"netdev_group": b"0", b"operstate": b"unknown",
    b"proto_down": b"0", b"tx_queue_len": b"1000", b"type": b"772",
    b"uevent": b"INTERFACE=lo\nIFINDEX=1",
}  # fmt: skip
"""Attributes of lo; `type` is ARPHRD_LOOPBACK."""

LOOPBACK_STATISTICS = (
    b"collisions", b"multicast", b"rx_bytes", b"rx_compressed", b"rx_crc_errors", b"rx_dropped",
    b"rx_errors", b"rx_fifo_errors", b"rx_frame_errors", b"rx_length_errors",
    b"rx_missed_errors", b"rx_nohandler", b"rx_over_errors", b"rx_packets",
    b"tx_aborted_errors", b"tx_bytes", b"tx_carrier_errors", b"tx_compressed", b"tx_dropped",
    b"tx_errors", b"tx_fifo_errors", b"tx_heartbeat_errors", b"tx_packets",
    b"tx_window_errors",
)  # fmt: skip


class SysFs(PseudoFs):
    """sysfs(5), of one kernel."""

    type_name = b"sysfs"
    text_size = 4096

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, SYSFS_MAGIC)
        self.root = RootDirectory(self)


class RootDirectory(PseudoDirectory):
    """/sys"""

    def __init__(self, fs: SysFs) -> None:
        super().__init__(fs)
        self._filled = False

    def _fill(self) -> None:
        if not self._filled:
            self._filled = True
            fill(self, self.fs.kernel.proc.cpus)

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        self._fill()
        return super().lookup(task, name)

    def entries(self, task: Task) -> list[DirEntry]:
        self._fill()
        return super().entries(task)


def fill(root: PseudoDirectory, cpus: Cpus) -> None:
    """Make the tree."""
    for name in (b"block", b"bus", b"dev", b"firmware", b"hypervisor", b"module", b"power"):
        root.add_directory(name)
    devices = root.add_directory(b"devices")
    system = devices.add_directory(b"system")
    _add_cpus(system.add_directory(b"cpu"), cpus)
    _add_node(system.add_directory(b"node"), cpus)
    net = devices.add_directory(b"virtual").add_directory(b"net")
    _add_loopback(net.add_directory(b"lo"))
    root.add_directory(b"fs").add_directory(b"cgroup")
    classes = root.add_directory(b"class")
    for name in (b"block", b"tty"):
        classes.add_directory(name)
    classes.add_directory(b"net").add_symlink(b"lo", b"../../devices/virtual/net/lo")
    _add_kernel(root.add_directory(b"kernel"))


def _add_cpus(directory: PseudoDirectory, cpus: Cpus) -> None:
    """/sys/devices/system/cpu. sysconf(_SC_NPROCESSORS_ONLN) and _CONF read it."""
    possible = format_cpu_list(tuple(range(cpus.online[-1] + 1)))
    directory.add_constant(b"online", cpus.list_text() + b"\n")
    directory.add_constant(b"possible", possible + b"\n")
    directory.add_constant(b"present", possible + b"\n")
    offline = tuple(sorted(set(range(cpus.online[-1] + 1)) - set(cpus.online)))
    directory.add_constant(b"offline", format_cpu_list(offline) + b"\n")
    directory.add_constant(b"isolated", b"\n")
    directory.add_constant(b"kernel_max", b"%d\n" % KERNEL_MAX)
    all_cpus = sum(1 << number for number in cpus.online)
    for number in cpus.online:
        cpu = directory.add_directory(b"cpu%d" % number)
        if number:
            cpu.add_constant(b"online", b"1\n")  # the boot processor has no such file
        topology = cpu.add_directory(b"topology")
        own = format_cpu_mask(1 << number)
        for name, value in (
            (b"physical_package_id", b"0"), (b"die_id", b"0"), (b"cluster_id", b"%d" % number),
            (b"core_id", b"%d" % number), (b"core_cpus", own), (b"thread_siblings", own),
            (b"core_cpus_list", b"%d" % number), (b"thread_siblings_list", b"%d" % number),
            (b"package_cpus", format_cpu_mask(all_cpus)),
            (b"core_siblings", format_cpu_mask(all_cpus)),
            (b"package_cpus_list", cpus.list_text()), (b"core_siblings_list", cpus.list_text()),
        ):  # fmt: skip
            topology.add_constant(name, value + b"\n")


def _add_node(directory: PseudoDirectory, cpus: Cpus) -> None:
    """/sys/devices/system/node: all memory is near to all processors."""
    for name in (b"online", b"possible", b"has_cpu", b"has_memory", b"has_normal_memory"):
        directory.add_constant(name, b"0\n")
    node = directory.add_directory(b"node0")
    node.add_constant(b"cpulist", cpus.list_text() + b"\n")
    mask = sum(1 << number for number in cpus.online)
    node.add_constant(b"cpumap", format_cpu_mask(mask) + b"\n")
    node.add_constant(b"distance", b"10\n")


def _add_loopback(directory: PseudoDirectory) -> None:
    for name, value in LOOPBACK.items():
        directory.add_constant(name, value + b"\n")
    statistics = directory.add_directory(b"statistics")
    for name in LOOPBACK_STATISTICS:
        statistics.add_constant(name, b"0\n")


def _add_kernel(directory: PseudoDirectory) -> None:
    """/sys/kernel: there are no huge pages to ask for, and nothing to trace or debug."""
    memory = directory.add_directory(b"mm")
    huge = memory.add_directory(b"transparent_hugepage")
    huge.add_constant(b"enabled", b"always madvise [never]\n")
    huge.add_constant(b"defrag", b"always defer defer+madvise madvise [never]\n")
    huge.add_constant(b"shmem_enabled", b"always within_size advise [never] deny force\n")
    huge.add_constant(b"hpage_pmd_size", b"2097152\n")
    huge.add_constant(b"use_zero_page", b"1\n")
    memory.add_directory(b"hugepages")
    directory.add_directory(b"debug")
    directory.add_directory(b"security")
    directory.add_directory(b"tracing")
