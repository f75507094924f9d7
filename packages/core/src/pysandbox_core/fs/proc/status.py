"""/proc/PID/{status,stat,limits,io,sched,schedstat,...}: what is told about tasks, as text.

Interface: functions (reader, target, whole) -> text; `whole` is true where the process is meant
(/proc/PID) and not the one thread (/proc/PID/task/TID). Also `state_letter`, `escape_comm`.

Linux: fs/proc/array.c, proc_pid_limits() and the like in fs/proc/base.c.
"""

from __future__ import annotations

from os import major, minor
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE
from pysandbox_platform.registers_amd64 import R8, R9, R10, RDI, RDX, RIP, RSI, RSP

from pysandbox_core.abi.signal import SIG_DFL, SIG_IGN
from pysandbox_core.accounting import task_cpu_time_ns
from pysandbox_core.fs.proc.access import may_access, memory_of
from pysandbox_core.fs.proc.cpus import format_cpu_list, format_cpu_mask
from pysandbox_core.fs.proc.memory import sizes
from pysandbox_core.fs.proc.times import TICK_NS, group_ticks, start_ticks, task_ticks
from pysandbox_core.fs.tty import controlling_tty
from pysandbox_core.limits import INFINITY, NAMES

if TYPE_CHECKING:
    from pysandbox_core.limits import ResourceLimits
    from pysandbox_core.task import Task

STATE_NAMES = {
    b"R": b"running", b"S": b"sleeping", b"D": b"disk sleep", b"T": b"stopped", b"Z": b"zombie",
}  # fmt: skip

PF_EXITING = 0x4
PF_FORKNOEXEC = 0x40
PF_RANDOMIZE = 0x00400000

LIMITS = (
    (b"cpu time", "cpu", b"seconds"), (b"file size", "fsize", b"bytes"),
    (b"data size", "data", b"bytes"), (b"stack size", "stack", b"bytes"),
    (b"core file size", "core", b"bytes"), (b"resident set", "rss", b"bytes"),
    (b"processes", "nproc", b"processes"), (b"open files", "nofile", b"files"),
    (b"locked memory", "memlock", b"bytes"), (b"address space", "as_", b"bytes"),
    (b"file locks", "locks", b"locks"), (b"pending signals", "sigpending", b"signals"),
    (b"msgqueue size", "msgqueue", b"bytes"), (b"nice priority", "nice", b""),
    (b"realtime priority", "rtprio", b""), (b"realtime timeout", "rttime", b"us"),
)  # fmt: skip
"""Rows of /proc/PID/limits: name, resource, unit."""

_U64 = 0xFFFFFFFFFFFFFFFF


def state_letter(task: Task) -> bytes:
    """R, S, D, T or Z. proc_pid_stat(5)"""
    if task.exited:
        return b"Z"
    if task.stopped:
        return b"T"
    if task.parked is not None and not task.ready:
        return b"D" if task.killable_only else b"S"
    return b"R"


def escape_comm(comm: bytes) -> bytes:
    """A name for a line of text: newline and backslash are escaped."""
    return comm.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def comm_text(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/comm"""
    return target.comm + b"\n"


def parent_pid(reader: Task, target: Task) -> int:
    """getppid(2) of `target`."""
    parent = target.group.parent
    return 0 if parent is None else parent.pid


def signal_sets(target: Task) -> tuple[int, int]:
    """Signals that `target` ignores and catches, as masks."""
    ignored = caught = 0
    if not target.exited:
        for signo, action in enumerate(target.sighand.actions):
            if signo == 0 or action.handler == SIG_DFL:
                continue
            if action.handler == SIG_IGN:
                ignored |= 1 << (signo - 1)
            else:
                caught |= 1 << (signo - 1)
    return ignored, caught


def status(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/status. proc_pid_status(5)"""
    group = target.group
    creds = target.creds
    state = state_letter(target)
    sid = group.process_group.session.sid
    rows: list[tuple[bytes, bytes]] = [(b"Name", escape_comm(target.comm))]
    if not target.exited:
        rows.append((b"Umask", b"%04o" % target.fs.umask))
    rows += [
        (b"State", b"%s (%s)" % (state, STATE_NAMES[state])),
        (b"Tgid", b"%d" % group.pid),
        (b"Ngid", b"0"),
        (b"Pid", b"%d" % target.tid),
        (b"PPid", b"%d" % parent_pid(reader, target)),
        (b"TracerPid", b"0"),
        (b"Uid", b"%d\t%d\t%d\t%d" % (creds.uid, creds.euid, creds.suid, creds.fsuid)),
        (b"Gid", b"%d\t%d\t%d\t%d" % (creds.gid, creds.egid, creds.sgid, creds.fsgid)),
        (b"FDSize", b"%d" % _fd_size(target)),
        (b"Groups", b"".join(b"%d " % gid for gid in creds.groups) or b" "),
        (b"NStgid", b"%d" % group.pid),
        (b"NSpid", b"%d" % target.tid),
        (b"NSpgid", b"%d" % group.process_group.pgid),
        (b"NSsid", b"%d" % sid),
        (b"Kthread", b"0"),
    ]
    rows += _memory_rows(target)
    rows += _signal_rows(target)
    rows += [
        (b"CapInh", b"%016x" % creds.cap_inheritable),
        (b"CapPrm", b"%016x" % creds.cap_permitted),
        (b"CapEff", b"%016x" % creds.cap_effective),
        (b"CapBnd", b"%016x" % creds.cap_bounding),
        (b"CapAmb", b"%016x" % creds.cap_ambient),
        (b"NoNewPrivs", b"%d" % creds.no_new_privs),
        (b"Seccomp", b"0"),
        (b"Seccomp_filters", b"0"),
        (b"Speculation_Store_Bypass", b"unknown"),
        (b"SpeculationIndirectBranch", b"unknown"),
    ]
    rows += _placement_rows(target)
    return b"".join(b"%s:\t%s\n" % row for row in rows)


def _fd_size(target: Task) -> int:
    """Slots of the descriptor table: a power of two, 64 at least, 0 once it is gone."""
    if target.exited:
        return 0
    highest = max((fd for fd, _ in target.files.open_fds()), default=0)
    return max(64, 1 << highest.bit_length())


def _memory_rows(target: Task) -> list[tuple[bytes, bytes]]:
    mm = memory_of(target)
    if mm is None:
        return []
    size = sizes(mm)
    values = (
        (b"VmPeak", size.total), (b"VmSize", size.total), (b"VmLck", mm.locked_bytes),
        (b"VmPin", 0), (b"VmHWM", max(size.resident, mm.peak_rss())), (b"VmRSS", size.resident),
        (b"RssAnon", size.resident - size.of_file), (b"RssFile", size.of_file),
        (b"RssShmem", 0), (b"VmData", size.data), (b"VmStk", size.stack), (b"VmExe", size.text),
        (b"VmLib", size.library), (b"VmPTE", 0), (b"VmSwap", 0), (b"HugetlbPages", 0),
    )  # fmt: skip
    rows = [(name, b"%8d kB" % (value >> 10)) for name, value in values]
    return [*rows, (b"CoreDumping", b"0"), (b"THP_enabled", b"0"), (b"untag_mask", b"0x%x" % _U64)]


def _signal_rows(target: Task) -> list[tuple[bytes, bytes]]:
    group = target.group
    ignored, caught = signal_sets(target)
    return [
        (b"Threads", b"%d" % max(1, len(group.tasks))),
        (b"SigQ", b"%d/%d" % (_queued(target), group.limits.sigpending)),
        (b"SigPnd", b"%016x" % target.pending.mask),
        (b"ShdPnd", b"%016x" % group.pending.mask),
        (b"SigBlk", b"%016x" % target.sigmask),
        (b"SigIgn", b"%016x" % ignored),
        (b"SigCgt", b"%016x" % caught),
    ]


def _queued(target: Task) -> int:
    """Signals queued for the process; standard ones that wait count once."""
    return (target.pending.mask | target.group.pending.mask).bit_count()


def _placement_rows(target: Task) -> list[tuple[bytes, bytes]]:
    online = target.kernel.proc.cpus.online
    allowed = target.scheduling.affinity
    numbers = tuple(number for number in online if allowed >> number & 1) if allowed else online
    return [
        (b"Cpus_allowed", format_cpu_mask(sum(1 << number for number in numbers))),
        (b"Cpus_allowed_list", format_cpu_list(numbers)),
        (b"Mems_allowed", b"1"),
        (b"Mems_allowed_list", b"0"),
        (b"voluntary_ctxt_switches", b"0"),
        (b"nonvoluntary_ctxt_switches", b"0"),
    ]


def stat(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/stat: 52 fields. What is private is 0 for others. proc_pid_stat(5)"""
    group = target.group
    permitted = may_access(reader, target)
    mm = memory_of(target)
    state = state_letter(target)
    head = b"%d (%s) %s " % (target.tid, escape_comm(target.comm), state)
    fields = _stat_first(reader, target, whole)
    if mm is None or not permitted:
        fields += [1 if mm is not None else 0] * 2 + [0] * 3
    else:
        fields += [mm.start_code, mm.end_code, mm.start_stack, 0, 0]
    ignored, caught = signal_sets(target)
    fields += [word & 0x7FFFFFFF for word in (target.pending.mask, target.sigmask, ignored, caught)]
    exit_signal = group.exit_signal if whole or target is group.leader else -1
    scheduling = target.scheduling
    fields += [1 if permitted and state in (b"S", b"D") else 0, 0, 0, exit_signal]
    fields += [0, scheduling.priority, scheduling.policy, 0, 0, 0]
    if mm is None or not permitted:
        fields += [0] * 7
    else:
        fields += [mm.start_data, mm.end_data, mm.start_brk]
        fields += [mm.arg_start, mm.arg_end, mm.env_start, mm.env_end]
    fields.append(target.exit_code if permitted else 0)
    return head + b" ".join(b"%d" % field for field in fields) + b"\n"


def _stat_first(reader: Task, target: Task, whole: bool) -> list[int]:
    """Fields 4 to 25: ppid to rsslim."""
    group = target.group
    job = group.process_group
    tty = controlling_tty(target)
    used = group_ticks(group) if whole else task_ticks(target)
    children = group.children_cpu_ns // TICK_NS if whole else 0
    mm = memory_of(target)
    size = None if mm is None else sizes(mm)
    flags = PF_RANDOMIZE | (0 if group.has_execed else PF_FORKNOEXEC)
    fields = [parent_pid(reader, target), job.pgid, job.session.sid]
    fields.append(0 if tty is None else _device_number(tty.rdev))
    fields.append(-1 if tty is None or tty.foreground is None else tty.foreground.pgid)
    fields.append(flags | (PF_EXITING if target.exited else 0))
    fields += [0, 0, 0, 0, used, 0, children, 0]
    fields += [_priority(target), target.scheduling.nice, max(1, len(group.tasks)), 0]
    fields.append(start_ticks(target.kernel, group.start_time_ns))
    fields += [0, 0] if size is None else [size.total, size.resident // PAGE_SIZE]
    fields.append(group.limits.rss)
    return fields


def _priority(target: Task) -> int:
    """As the scheduler sees it: 20 and the nice value, or below 0 for a real-time task."""
    scheduling = target.scheduling
    return -1 - scheduling.priority if scheduling.priority else 20 + scheduling.nice


def _device_number(rdev: int) -> int:
    """A device number in 32 bits: new_encode_dev()."""
    return minor(rdev) & 0xFF | major(rdev) << 8 | (minor(rdev) & ~0xFF) << 12


def limits(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/limits"""
    return limits_text(target.group.limits)


def limits_text(limits: ResourceLimits) -> bytes:
    """A table of all limits."""
    lines = [b"%-25s %-20s %-20s %-10s\n" % (b"Limit", b"Soft Limit", b"Hard Limit", b"Units")]
    for name, resource, unit in LIMITS:
        soft, hard = limits.get(NAMES.index(resource))
        lines.append(
            b"%-25s %-20s %-20s %-10s\n" % (b"Max " + name, _amount(soft), _amount(hard), unit)
        )
    return b"".join(lines)


def _amount(value: int) -> bytes:
    return b"unlimited" if value == INFINITY else b"%d" % value


def io(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/io. Transfers are not counted; there are no disks behind the files."""
    names = (b"rchar", b"wchar", b"syscr", b"syscw", b"read_bytes", b"write_bytes",
             b"cancelled_write_bytes")  # fmt: skip
    return b"".join(b"%s: 0\n" % name for name in names)


def sched(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/sched: the fields that mean something without a scheduler."""
    head = b"%s (%d, #threads: %d)\n" % (target.comm, target.tid, len(target.group.tasks))
    rows = ((b"se.sum_exec_runtime", b"%13d.000000" % (task_ticks(target) * 10)),
            (b"nr_switches", b"%20d" % 0), (b"nr_voluntary_switches", b"%20d" % 0),
            (b"nr_involuntary_switches", b"%20d" % 0), (b"policy", b"%20d" % 0),
            (b"prio", b"%20d" % 120))  # fmt: skip
    return head + b"-" * 67 + b"\n" + b"".join(b"%-45s:%s\n" % row for row in rows)


def schedstat(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/schedstat: nanoseconds on a processor, nanoseconds waiting for one, time slices."""
    return b"%d 0 0\n" % task_cpu_time_ns(target)


def wchan(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/wchan: there are no kernel symbols to be named."""
    return b"0"


def syscall(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/syscall: the call it waits in, its arguments, stack and instruction pointer."""
    if target.exited or target.parked is None:
        return b"running\n"
    regs = target.regs
    tail = b"0x%x 0x%x\n" % (regs[RSP], regs[RIP])
    if target.syscall_number < 0:
        return b"-1 " + tail
    words = b" ".join(b"0x%x" % regs[index] for index in (RDI, RSI, RDX, R10, R8, R9))
    return b"%d %s %s" % (target.syscall_number, words, tail)


def personality(reader: Task, target: Task, whole: bool) -> bytes:
    return b"%08x\n" % target.group.personality


def id_map(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/{uid,gid,projid}_map of the one user namespace."""
    return b"%10d %10d %10d\n" % (0, 0, 0xFFFFFFFF)


def oom_score(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/oom_score: the share of memory in use, in thousandths, shifted as 5.8 and later
    do."""
    from pysandbox_core.fs.proc.system import total_memory

    mm = memory_of(target)
    if mm is None:
        return b"0\n"
    points = sizes(mm).resident * 1000 // max(1, total_memory(target.kernel))
    return b"%d\n" % ((1000 + points) * 2 // 3)
