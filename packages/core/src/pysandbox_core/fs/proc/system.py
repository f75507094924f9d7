"""/proc: the files about the sandbox as a whole: cpuinfo, meminfo, stat, uptime, loadavg and so on.

Interface: `add_system_files(fs, root)`. Every value is the sandbox's own: its memory limit, its
processes, its uptime. The host is asked for two things only, how many processors there are and what
they can do, since programs choose their instructions by that.

Linux: fs/proc/{cpuinfo,meminfo,stat,uptime,loadavg,version,devices}.c; proc(5).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pysandbox_core.abi.utsname import RELEASE, SYSNAME, VERSION
from pysandbox_core.fs.proc.status import state_letter
from pysandbox_core.fs.proc.times import HZ, busy_ticks
from pysandbox_core.fs.tmpfs import PAGE_SIZE, TmpFs

if TYPE_CHECKING:
    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.fs.pseudo import PseudoDirectory
    from pysandbox_core.kernel import Kernel

NS = 1_000_000_000

FILESYSTEMS = (
    b"sysfs", b"tmpfs", b"proc", b"devtmpfs", b"sockfs", b"pipefs", b"devpts", b"overlay",
    b"mqueue",
)  # fmt: skip
"""Types that exist here; none of them needs a device."""

CHARACTER_DEVICES = ((1, b"mem"), (5, b"/dev/tty"), (5, b"/dev/console"), (5, b"/dev/ptmx"),
                     (128, b"ptm"), (136, b"pts"))  # fmt: skip


def add_system_files(fs: ProcFs, root: PseudoDirectory) -> None:
    """Put the files into /proc."""
    kernel = fs.kernel
    fs.load = LoadAverage(kernel)
    root.add_text(b"cpuinfo", lambda task: fs.cpus.cpuinfo())
    root.add_text(b"meminfo", lambda task: meminfo(kernel))
    root.add_text(b"stat", lambda task: system_stat(fs))
    root.add_text(b"uptime", lambda task: uptime(fs))
    root.add_text(b"loadavg", lambda task: loadavg(fs))
    root.add_constant(b"version", b"%s version %s (pysandbox) %s\n" % (SYSNAME, RELEASE, VERSION))
    root.add_text(b"vmstat", lambda task: vmstat(kernel))
    root.add_constant(b"filesystems", b"".join(b"nodev\t%s\n" % name for name in FILESYSTEMS))
    root.add_constant(b"devices", _devices())
    root.add_constant(b"cmdline", b"\n")
    root.add_constant(b"partitions", b"major minor  #blocks  name\n\n")
    root.add_constant(b"diskstats", b"")
    root.add_constant(b"swaps", b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
    root.add_constant(b"modules", b"")
    root.add_constant(b"misc", b"")
    root.add_constant(b"consoles", b"")
    root.add_constant(b"cgroups", b"#subsys_name\thierarchy\tnum_cgroups\tenabled\n")


def total_memory(kernel: Kernel) -> int:
    """Bytes of memory that the sandbox may have: its limit, or what the host has."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = kernel.config.memory
    return host if limit is None else min(limit, host)


def meminfo(kernel: Kernel) -> bytes:
    """/proc/meminfo. The page cache is the host's, so there is none to be reclaimed here."""
    total = total_memory(kernel) >> 10
    used = min(kernel.memory_file.usage() >> 10, total)
    free = total - used
    shared = min(_shared_memory(kernel) >> 10, used)
    values = (
        (b"MemTotal", total), (b"MemFree", free), (b"MemAvailable", free), (b"Buffers", 0),
        (b"Cached", shared), (b"SwapCached", 0), (b"Active", used), (b"Inactive", 0),
        (b"Active(anon)", used), (b"Inactive(anon)", 0), (b"Active(file)", 0),
        (b"Inactive(file)", 0), (b"Unevictable", 0), (b"Mlocked", 0), (b"SwapTotal", 0),
        (b"SwapFree", 0), (b"Dirty", 0), (b"Writeback", 0), (b"AnonPages", used - shared),
        (b"Mapped", 0), (b"Shmem", shared), (b"KReclaimable", 0), (b"Slab", 0),
        (b"SReclaimable", 0), (b"SUnreclaim", 0), (b"KernelStack", 0), (b"PageTables", 0),
        (b"SecPageTables", 0), (b"NFS_Unstable", 0), (b"Bounce", 0), (b"WritebackTmp", 0),
        (b"CommitLimit", total), (b"Committed_AS", used), (b"VmallocTotal", 34359738367),
        (b"VmallocUsed", 0), (b"VmallocChunk", 0), (b"Percpu", 0), (b"AnonHugePages", 0),
        (b"ShmemHugePages", 0), (b"ShmemPmdMapped", 0), (b"FileHugePages", 0),
        (b"FilePmdMapped", 0),
    )  # fmt: skip
    lines = [b"%-16s%8d kB\n" % (name + b":", value) for name, value in values]
    lines += [
        b"HugePages_%-6s       0\n" % name for name in (b"Total:", b"Free:", b"Rsvd:", b"Surp:")
    ]
    lines.append(b"Hugepagesize:       2048 kB\nHugetlb:               0 kB\n")
    return b"".join(lines)


def _shared_memory(kernel: Kernel) -> int:
    """Bytes of files in memory."""
    in_memory = {mount.fs for mount in kernel.mounts.all() if isinstance(mount.fs, TmpFs)}
    return sum(fs.space.pages * PAGE_SIZE for fs in in_memory)


def vmstat(kernel: Kernel) -> bytes:
    """/proc/vmstat, the counters that mean something here. free(1) and vmstat(8) read it."""
    total = total_memory(kernel) >> 12
    used = min(kernel.memory_file.usage() >> 12, total)
    values = (
        (b"nr_free_pages", total - used), (b"nr_anon_pages", used), (b"nr_mapped", 0),
        (b"nr_file_pages", 0), (b"nr_dirty", 0), (b"nr_writeback", 0), (b"pgpgin", 0),
        (b"pgpgout", 0), (b"pswpin", 0), (b"pswpout", 0), (b"pgfault", 0), (b"pgmajfault", 0),
        (b"oom_kill", 0),
    )  # fmt: skip
    return b"".join(b"%s %d\n" % value for value in values)


def uptime_ns(kernel: Kernel) -> int:
    """Nanoseconds since the sandbox was booted."""
    return time.monotonic_ns() - kernel.booted_ns


def uptime(fs: ProcFs) -> bytes:
    """/proc/uptime: seconds since boot, and the seconds all processors together were idle."""
    up_ns = uptime_ns(fs.kernel)
    idle_ns = max(0, up_ns * fs.cpus.count - busy_ticks(fs.kernel) * (NS // HZ))
    return b"%d.%02d %d.%02d\n" % (
        up_ns // NS, up_ns % NS // 10_000_000, idle_ns // NS, idle_ns % NS // 10_000_000,
    )  # fmt: skip


def boot_time(kernel: Kernel) -> int:
    """When the sandbox was booted, seconds since the epoch."""
    return (time.time_ns() - uptime_ns(kernel)) // NS


def system_stat(fs: ProcFs) -> bytes:
    """/proc/stat. Which processor time was spent on is not known; it is shown evenly spread."""
    kernel = fs.kernel
    count = fs.cpus.count
    busy = busy_ticks(kernel)
    idle = max(0, uptime_ns(kernel) * HZ // NS * count - busy)
    row = b"%s %d 0 0 %d 0 0 0 0 0 0\n"
    lines = [row % (b"cpu ", busy, idle)]
    lines += [row % (b"cpu%d" % cpu, busy // count, idle // count) for cpu in fs.cpus.online]
    running = sum(state_letter(task) == b"R" for task in kernel.tasks.values())
    lines.append(
        b"intr 0\nctxt 0\nbtime %d\nprocesses %d\nprocs_running %d\nprocs_blocked 0\n"
        b"softirq 0 0 0 0 0 0 0 0 0 0 0\n" % (boot_time(kernel), last_pid(kernel), running)
    )
    return b"".join(lines)


def loadavg(fs: ProcFs) -> bytes:
    """/proc/loadavg; see `LoadAverage`."""
    kernel = fs.kernel
    loads = fs.load.sample()
    running = sum(state_letter(task) == b"R" for task in kernel.tasks.values())
    return b"%.2f %.2f %.2f %d/%d %d\n" % (*loads, running, len(kernel.tasks), last_pid(kernel))


def last_pid(kernel: Kernel) -> int:
    """The number that was given to the youngest task."""
    return kernel.last_tid


class LoadAverage:
    """The three load averages.

    Linux samples the number of runnable tasks every five seconds. A sandbox that sleeps must not
    wake up for that, so the same exponential decay is applied when somebody looks, to the processor
    time spent since the last look.
    """

    PERIODS = (60.0, 300.0, 900.0)
    """Seconds."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._loads = [0.0, 0.0, 0.0]
        self._at_ns = kernel.booted_ns
        self._busy = 0

    def sample(self) -> tuple[float, float, float]:
        """The averages as of now over 1, 5 and 15 minutes."""
        from math import exp

        now_ns = time.monotonic_ns()
        elapsed = (now_ns - self._at_ns) / NS
        busy = busy_ticks(self._kernel)
        if elapsed >= 1:
            active = max(0, busy - self._busy) / HZ / elapsed
            for index, period in enumerate(self.PERIODS):
                decay = exp(-elapsed / period)
                self._loads[index] = self._loads[index] * decay + active * (1 - decay)
            self._at_ns, self._busy = now_ns, busy
        one, five, fifteen = self._loads
        return one, five, fifteen


def _devices() -> bytes:
    rows = b"".join(b"%3d %s\n" % device for device in CHARACTER_DEVICES)
    return b"Character devices:\n" + rows + b"\nBlock devices:\n"
