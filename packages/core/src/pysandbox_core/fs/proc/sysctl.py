"""/proc/sys: the sandbox's constants, limits and names.

Interface: `add_sysctls(fs, directory)`. What is here is true of this kernel, or a limit that it
does not go beyond; `kernel/hostname` and `kernel/domainname` can be written by who may set them.

Linux: proc_sys_kernel(5), proc_sys_fs(5), proc_sys_vm(5).
"""

from __future__ import annotations

from errno import EPERM
from os import urandom
from typing import TYPE_CHECKING

from pysandbox_core.abi import utsname
from pysandbox_core.credentials import CAP_LAST, CAP_SYS_ADMIN
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import open_files

if TYPE_CHECKING:
    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.fs.pseudo import PseudoDirectory
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

PID_MAX = 4194304
"""Numbers of tasks stay below this. proc_sys_kernel(5)"""

CONSTANTS: dict[bytes, dict[bytes, bytes]] = {
    b"kernel": {
        b"cap_last_cap": b"%d" % CAP_LAST, b"ngroups_max": b"65536", b"overflowuid": b"65534",
        b"overflowgid": b"65534", b"pid_max": b"%d" % PID_MAX, b"threads-max": b"4194303",
        b"shmmax": b"18446744073692774399", b"shmall": b"18446744073692774399",
        b"shmmni": b"4096", b"shm_rmid_forced": b"0", b"msgmax": b"8192", b"msgmnb": b"16384",
        b"msgmni": b"32000", b"sem": b"32000\t1024000000\t500\t32000", b"randomize_va_space": b"2",
        b"core_pattern": b"core", b"core_uses_pid": b"0", b"dmesg_restrict": b"1",
        b"kptr_restrict": b"2", b"perf_event_paranoid": b"4", b"tainted": b"0",
        b"unprivileged_bpf_disabled": b"2", b"io_uring_disabled": b"2", b"panic": b"0",
        b"printk": b"4\t4\t1\t7", b"sched_rr_timeslice_ms": b"100",
    },
    b"vm": {
        b"overcommit_memory": b"0", b"overcommit_ratio": b"50", b"overcommit_kbytes": b"0",
        b"max_map_count": b"65530", b"mmap_min_addr": b"65536", b"swappiness": b"60",
        b"nr_hugepages": b"0", b"legacy_va_layout": b"0", b"page-cluster": b"3",
        b"min_free_kbytes": b"0", b"oom_kill_allocating_task": b"0", b"panic_on_oom": b"0",
        b"mmap_rnd_bits": b"28", b"memfd_noexec": b"0",
    },
    b"fs": {
        b"nr_open": b"1048576", b"pipe-max-size": b"1048576",
        b"pipe-user-pages-hard": b"0", b"pipe-user-pages-soft": b"16384",
        b"lease-break-time": b"45", b"leases-enable": b"0", b"mount-max": b"100000",
        b"overflowuid": b"65534", b"overflowgid": b"65534", b"protected_fifos": b"1",
        b"protected_hardlinks": b"1", b"protected_regular": b"2", b"protected_symlinks": b"1",
        b"suid_dumpable": b"0", b"aio-max-nr": b"65536", b"aio-nr": b"0",
        b"dir-notify-enable": b"0",
    },
    b"fs/inotify": {
        b"max_queued_events": b"16384", b"max_user_instances": b"128",
        b"max_user_watches": b"65536",
    },
    b"fs/epoll": {b"max_user_watches": b"1048576"},
    b"fs/mqueue": {
        b"msg_default": b"10", b"msg_max": b"10", b"msgsize_default": b"8192",
        b"msgsize_max": b"8192", b"queues_max": b"256",
    },
    b"kernel/keys": {b"maxbytes": b"0", b"maxkeys": b"0"},
    b"kernel/yama": {b"ptrace_scope": b"1"},
    b"net/core": {
        b"somaxconn": b"4096", b"rmem_default": b"212992", b"rmem_max": b"212992",
        b"wmem_default": b"212992", b"wmem_max": b"212992", b"optmem_max": b"131072",
        b"netdev_max_backlog": b"1000",
    },
    b"net/ipv4": {
        b"ip_local_port_range": b"32768\t60999", b"ip_forward": b"0",
        b"ip_unprivileged_port_start": b"1024", b"tcp_max_syn_backlog": b"4096",
        b"tcp_fin_timeout": b"60", b"tcp_syncookies": b"1", b"tcp_tw_reuse": b"2",
        b"tcp_keepalive_time": b"7200", b"tcp_keepalive_probes": b"9",
        b"tcp_keepalive_intvl": b"75", b"tcp_rmem": b"4096\t131072\t6291456",
        b"tcp_wmem": b"4096\t16384\t4194304", b"tcp_congestion_control": b"reno",
        b"tcp_available_congestion_control": b"reno", b"tcp_sack": b"1",
        b"tcp_window_scaling": b"1", b"tcp_timestamps": b"1",
    },
    b"net/ipv6/conf/all": {b"disable_ipv6": b"0"},
    b"net/ipv6/conf/default": {b"disable_ipv6": b"0"},
    b"net/ipv6/conf/lo": {b"disable_ipv6": b"0"},
    b"net/unix": {b"max_dgram_qlen": b"512"},
    b"user": {
        b"max_user_namespaces": b"0", b"max_pid_namespaces": b"0", b"max_net_namespaces": b"0",
        b"max_mnt_namespaces": b"0", b"max_uts_namespaces": b"0", b"max_ipc_namespaces": b"0",
        b"max_inotify_instances": b"128", b"max_inotify_watches": b"65536",
    },
}  # fmt: skip


def add_sysctls(fs: ProcFs, root: PseudoDirectory) -> None:
    """Fill /proc/sys."""
    directories = {b"": root}
    for path, values in CONSTANTS.items():
        directory = _directory(directories, path)
        for name, value in values.items():
            directory.add_constant(name, value + b"\n", 0o644)
    _add_names(fs.kernel, directories[b"kernel"])
    _add_random(_directory(directories, b"kernel/random"))
    pty = _directory(directories, b"kernel/pty")
    pty.add_text(b"max", lambda task: b"%d\n" % task.kernel.devpts.MAX)
    pty.add_text(b"nr", lambda task: b"%d\n" % task.kernel.devpts.count)
    directories[b"fs"].add_text(b"file-nr", lambda task: _file_nr(fs.kernel))
    directories[b"fs"].add_text(b"file-max", lambda task: b"%d\n" % fs.kernel.memory.max_files)


def _directory(directories: dict[bytes, PseudoDirectory], path: bytes) -> PseudoDirectory:
    """The directory `path`, made with its parents where it is missing."""
    directory = directories.get(path)
    if directory is None:
        parent, _, name = path.rpartition(b"/")
        directory = directories[path] = _directory(directories, parent).add_directory(name)
    return directory


def _add_names(kernel: Kernel, directory: PseudoDirectory) -> None:
    """What uname(2) tells."""
    directory.add_constant(b"ostype", utsname.SYSNAME + b"\n")
    directory.add_constant(b"osrelease", utsname.RELEASE + b"\n")
    directory.add_constant(b"version", utsname.VERSION + b"\n")
    directory.add_constant(b"arch", utsname.MACHINE + b"\n")

    def store_hostname(task: Task, data: bytes) -> None:
        kernel.hostname = _name(task, data)

    def store_domainname(task: Task, data: bytes) -> None:
        kernel.domainname = _name(task, data)

    directory.add_text(b"hostname", lambda task: kernel.hostname + b"\n", 0o644, store_hostname)
    directory.add_text(
        b"domainname", lambda task: kernel.domainname + b"\n", 0o644, store_domainname
    )


def _name(task: Task, data: bytes) -> bytes:
    """A name that is written: up to the end of its line, 64 bytes at most."""
    if not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    return data.split(b"\n", 1)[0].split(b"\0", 1)[0][:64]


def random_uuid() -> bytes:
    """A random UUID (version 4), RFC 9562."""
    data = bytearray(urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    text = data.hex().encode()
    return b"-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _add_random(directory: PseudoDirectory) -> None:
    directory.add_constant(b"boot_id", random_uuid() + b"\n")
    directory.add_text(b"uuid", lambda task: random_uuid() + b"\n")
    for name in (b"entropy_avail", b"poolsize", b"write_wakeup_threshold"):
        directory.add_constant(name, b"256\n")
    directory.add_constant(b"urandom_min_reseed_secs", b"60\n", 0o644)


def _file_nr(kernel: Kernel) -> bytes:
    """Open files, free ones, the limit."""
    return b"%d\t0\t%d\n" % (open_files(), kernel.memory.max_files)
