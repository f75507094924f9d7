"""What a program that has taken the kernel over would try: a hook plugin that runs in the jailed
sentry, with all of Python and every host system call at hand.

Interface: test_broken_in.py publishes `plugin` as a hook of a sandbox and says in the environment
what to try (BROKEN_IN, a JSON object: "attempts", a list of names; and what they need to know about
the host). On the program's first system call each attempt is made. Standard output gets a line
before it, `trying NAME`, and one after it: `stopped NAME error` or `DONE NAME what came of it`. An
attempt that the jail answers with death is the last one that has no second line.

An attempt is a function that returns what it got, or raises OSError as the host does. It harms
nobody if it succeeds, which it does once the walls named beside it are down: where a call can't be
made without harm, it is made with arguments that are refused after the permission was checked, and
that refusal is the success.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import re
import resource
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

from pysandbox_core.hooks import hookimpl

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 6

facts: dict[str, Any] = json.loads(os.environ.get("BROKEN_IN", "{}"))
"""What the test says about the host."""

if facts.get("lenient"):
    # What the filter forbids is EUSERS here instead of death, so that one sandbox can try it all.
    # The filter is installed later, and what it forbids is the same.
    from pysandbox_core.jail import bpf

    bpf.KILL_PROCESS = bpf.ERRNO | errno.EUSERS

Attempt = Callable[[], object]
ATTEMPTS: dict[str, Attempt] = {}
WALLS: dict[str, frozenset[str]] = {}
"""Attempt -> layers of the jail each of which stops it without any other."""
APART: set[str] = set()
"""What leaves the sentry in a state in which other attempts would show nothing."""

FILES = "mountns landlock"
PRIVILEGE = "userns capabilities seccomp"
AT_FDCWD = -100


def attempt(walls: str, *, apart: bool = False) -> Callable[[Attempt], Attempt]:
    def register(function: Attempt) -> Attempt:
        if apart:
            APART.add(function.__name__)
        ATTEMPTS[function.__name__] = function
        WALLS[function.__name__] = frozenset(walls.split())
        return function

    return register


def call(number: int, *arguments: Any) -> int:
    """A raw system call of the host's."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    result: int = _libc.syscall(number, *words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def allowed(number: int, *arguments: Any, after: tuple[int, ...]) -> str:
    """Make a call that fails with one of `after` where it is permitted."""
    try:
        return f"returned {call(number, *arguments)}"
    except OSError as error:
        if error.errno in after:
            return f"it was permitted, and failed with {errno.errorcode[error.errno]}"
        raise


def read(path: str | int, **how: Any) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK, **how)  # type: ignore[arg-type]
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def first_of(tries: list[Attempt]) -> object:
    """What the first one that succeeds gives; the last one's error if none does."""
    error: OSError = OSError(errno.ENOENT, "nothing to try")
    for one in tries:
        try:
            return one()
        except OSError as failure:
            error = failure
    raise error


def directory_fds() -> list[int]:
    """Descriptors that lead somewhere: those that are open, and the jail's places."""
    fds = []
    for place in ("/", "/lower", "/bind/1", "/bind/2", "/proc", facts["shown"]):
        try:
            fds.append(os.open(place, os.O_RDONLY | os.O_DIRECTORY))
        except OSError:
            continue
    return [*range(3, 64), *fds]


# Files outside the root and the binds.


@attempt(FILES)
def read_shadow() -> object:
    return read("/etc/shadow")


@attempt(FILES)
def read_a_file_by_its_path() -> object:
    return read(facts["secret"])


@attempt(FILES)
def read_by_dotdot_from_every_descriptor() -> object:
    path = "../" * 30 + facts["secret"].lstrip("/")
    return first_of([lambda fd=fd: read(path, dir_fd=fd) for fd in directory_fds()])  # type: ignore[misc]


@attempt(FILES)
def read_by_openat2() -> object:
    how = struct.pack("=QQQ", os.O_RDONLY, 0, 0)

    def one(fd: int) -> bytes:
        path = ("../" * 30 + facts["secret"].lstrip("/")).encode()
        opened = call(437, fd, path, how, len(how))
        return os.read(opened, 100)

    return first_of([lambda fd=fd: one(fd) for fd in directory_fds()])  # type: ignore[misc]


@attempt(FILES)
def read_through_the_root_of_other_processes() -> object:
    pids = [1, os.getppid(), facts["neighbour"], *facts["ancestors"]]
    places = [f"/proc/{pid}/{link}" for pid in pids for link in ("root", "cwd")]
    return first_of([
        lambda place=place: read(place + "/../../../../../.." + facts["secret"])  # type: ignore[misc]
        for place in places
    ])  # fmt: skip


@attempt(FILES)
def read_through_the_root_of_another_thread() -> object:
    """A thread that was there before the jail would be outside of it."""
    path = facts["secret"]
    return first_of([
        lambda thread=thread: read(f"/proc/self/task/{thread}/root{path}")  # type: ignore[misc]
        for thread in os.listdir("/proc/self/task")
    ])  # fmt: skip


@attempt("landlock")
def read_the_interpreter() -> object:
    if not read("/proc/self/exe").startswith(b"\x7fELF"):
        raise OSError(errno.ENOENT, "something else")
    return "the host's Python, by a magic link"


@attempt(FILES)
def look_around() -> object:
    found = set(os.listdir("/")) & {"etc", "home", "usr", "var"}
    if not found:
        raise OSError(errno.ENOENT, "nothing of the host's")
    return found


@attempt("userns capabilities seccomp")
def open_a_file_by_its_handle() -> object:
    handle = struct.pack("=Ii8s", 8, 1, b"\x02\0\0\0\0\0\0\0")
    return allowed(
        304, os.open("/", os.O_RDONLY), handle, 0, after=(errno.ESTALE, errno.EOPNOTSUPP)
    )


# Writing.


def write(path: str, flags: int = os.O_CREAT) -> str:
    fd = os.open(path, os.O_WRONLY | flags, 0o600)
    os.close(fd)
    return f"{path} could be opened for writing"


@attempt(FILES)
def write_a_file_of_the_host() -> object:
    return write(facts["secret"], 0)


@attempt(FILES)
def create_a_file_of_the_host() -> object:
    path = facts["scratch"] + "/created"
    result = write(path)
    os.unlink(path)
    return result


@attempt(FILES)
def write_to_the_lower_directory() -> object:
    return first_of([lambda: write("/lower/lower-file", 0), lambda: write(facts["lower"], 0)])


@attempt(FILES)
def write_to_what_is_bound_read_only() -> object:
    return first_of([lambda: write("/bind/1/shown-file", 0), lambda: write(facts["shown_file"], 0)])


@attempt(FILES)
def write_to_the_jail_itself() -> object:
    for path in ("/new", "/lower/new", "/proc/new", "/bind/new", facts["scratch"] + "/new"):
        try:
            result = write(path)
        except OSError as error:
            failure = error
        else:
            os.unlink(path)
            return result
    raise failure


@attempt("landlock")
def write_to_what_was_given_for_reading() -> object:
    return write("/proc/self/fd/0", 0)


@attempt("seccomp")
def change_the_mode_of_what_was_given_for_reading() -> object:
    os.chmod(0, os.fstat(0).st_mode & 0o7777)
    return "fchmod"


@attempt("seccomp")
def change_the_times_of_what_was_given_for_reading() -> object:
    status = os.fstat(0)
    os.utime("/proc/self/fd/0", ns=(status.st_atime_ns, status.st_mtime_ns))
    return "utimensat"


@attempt("seccomp")
def lock_a_file_of_the_host() -> object:
    fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return "flock"


# Network.


@attempt("netns seccomp")
def connect_by_tcp() -> object:
    with socket.socket() as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", facts["tcp_port"]))
        return sock.recv(10)


@attempt("netns seccomp")
def send_by_udp() -> object:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", facts["udp_port"]))
        sock.send(b"here")
        sock.settimeout(5)
        return sock.recv(10)


@attempt("netns seccomp")
def connect_to_an_abstract_name() -> object:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + facts["abstract"])
        return sock.recv(10)


@attempt("mountns seccomp")
def connect_to_a_socket_file() -> object:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(facts["socket"])
        return sock.recv(10)


@attempt("seccomp")
def make_a_netlink_socket_by_number() -> object:
    return call(41, socket.AF_NETLINK, socket.SOCK_RAW, 0)


@attempt("seccomp")
def make_a_pair_of_sockets() -> object:
    return call(53, socket.AF_UNIX, socket.SOCK_STREAM, 0, (ctypes.c_int * 2)())


@attempt("userns capabilities seccomp")
def make_a_packet_socket() -> object:
    return call(41, 17, socket.SOCK_RAW, 0)


@attempt("seccomp")
def send_a_message_with_an_address() -> object:
    """No socket may be found that can still be pointed somewhere else."""
    return allowed(46, 0, 0, 0, after=(errno.ENOTSOCK, errno.EFAULT))


@attempt("seccomp")
def send_to_an_address() -> object:
    address = ctypes.create_string_buffer(struct.pack("=H14x", socket.AF_INET))
    return allowed(44, 0, 0, 0, 0, ctypes.addressof(address), 16, after=(errno.ENOTSOCK,))


# Other processes.


@attempt("pidns")
def signal_a_neighbour() -> object:
    os.kill(facts["neighbour"], 0)
    return "kill"


@attempt("seccomp")
def signal_everybody() -> object:
    return call(62, -1, 0)


@attempt("seccomp")
def signal_its_process_group() -> object:
    """Some of it is outside of the PID namespace, and kill(2) reaches that as well."""
    return call(62, 0, 0)


@attempt("seccomp")
def signal_a_process_group() -> object:
    return allowed(62, -os.getpgrp() or -facts["ancestors"][0], 0, after=(errno.ESRCH,))


@attempt("pidns seccomp")
def signal_a_neighbour_by_descriptor() -> object:
    return call(424, os.pidfd_open(facts["neighbour"]), 0, 0, 0)


@attempt("pidns seccomp")
def have_a_pipe_signal_a_neighbour() -> object:
    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, facts["neighbour"])
    return "F_SETOWN"


@attempt("seccomp", apart=True)
def have_a_descriptor_signal_its_owner() -> object:
    """Whoever once asked to be told of it, or the terminal's foreground processes."""
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    return "O_ASYNC"


@attempt("seccomp", apart=True)
def have_a_descriptor_signal_its_owner_by_ioctl() -> object:
    FIOASYNC = 0x5452
    return allowed(16, 0, FIOASYNC, struct.pack("=i", 1), after=(errno.ENOTTY,))


@attempt("seccomp", apart=True)
def change_how_the_caller_waits() -> object:
    """Flags of an open file are everybody's who has it."""
    os.set_blocking(0, False)
    return "O_NONBLOCK"


@attempt("pidns seccomp landlock")
def trace_a_neighbour() -> object:
    PTRACE_ATTACH, PTRACE_DETACH = 16, 17
    call(101, PTRACE_ATTACH, facts["neighbour"])
    os.waitpid(facts["neighbour"], 0x40000000)
    call(101, PTRACE_DETACH, facts["neighbour"])
    return "PTRACE_ATTACH"


@attempt("pidns landlock")
def read_the_memory_of_a_neighbour() -> object:
    buffer = ctypes.create_string_buffer(16)
    local = struct.pack("=QQ", ctypes.addressof(buffer), 16)
    remote = struct.pack("=QQ", facts["neighbour_address"], 16)
    call(310, facts["neighbour"], local, 1, remote, 1, 0)
    return buffer.raw


@attempt("mountns landlock")
def read_the_memory_of_a_neighbour_in_proc() -> object:
    fd = os.open(f"/proc/{facts['neighbour']}/mem", os.O_RDONLY)
    return os.pread(fd, 16, facts["neighbour_address"])


@attempt("mountns")
def see_processes() -> object:
    pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    for pid in pids:
        try:
            name = read(f"/proc/{pid}/comm")
        except OSError:
            continue
        if name.strip() == facts["neighbour_name"].encode():
            return f"{name!r} among {len(pids)}"
    raise OSError(errno.ENOENT, f"{len(pids)} processes, all of them ours")


@attempt("pidns seccomp")
def limit_a_neighbour() -> object:
    buffer = ctypes.create_string_buffer(16)
    return call(302, facts["neighbour"], resource.RLIMIT_NOFILE, 0, ctypes.addressof(buffer))


# Programs and code.


@attempt("seccomp", apart=True)
def fork() -> object:
    pid = call(57)
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return "fork"


@attempt("seccomp", apart=True)
def clone_with_a_namespace() -> object:
    CLONE_NEWUSER = 0x10000000
    pid = call(56, CLONE_NEWUSER | signal.SIGCHLD)
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return "clone"


@attempt("seccomp")
def execute_a_program() -> object:
    os.environ.clear()
    for path in ("/lower/garbage", facts["garbage"]):
        try:
            os.execve(path, [path], {})
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                return "it would have been executed if it were one"
            failure = error
    raise failure


@attempt("seccomp")
def execute_what_it_has_written() -> object:
    fd = os.memfd_create("program")
    os.write(fd, b"\0\0\0\0 is no program")
    null = (ctypes.c_void_p * 1)()
    return allowed(322, fd, b"", null, null, 0x1000, after=(errno.ENOEXEC,))


@attempt("seccomp")
def map_executable_memory() -> object:
    return hex(call(9, 0, 4096, 4, 0x22, ctypes.c_void_p(-1), 0))


@attempt("seccomp")
def make_memory_executable() -> object:
    address = call(9, 0, 4096, 3, 0x22, ctypes.c_void_p(-1), 0)
    return call(10, address, 4096, 5)


@attempt("seccomp")
def make_memory_executable_with_a_key() -> object:
    address = call(9, 0, 4096, 3, 0x22, ctypes.c_void_p(-1), 0)
    return call(329, address, 4096, 5, -1)


@attempt("seccomp")
def map_what_it_has_written() -> object:
    fd = os.memfd_create("code")
    os.ftruncate(fd, 4096)
    return mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)


@attempt("seccomp", apart=True)
def have_all_memory_executable() -> object:
    READ_IMPLIES_EXEC = 0x0400000
    return call(135, READ_IMPLIES_EXEC)


@attempt("landlock")
def write_to_its_own_code() -> object:
    return write("/proc/self/mem", 0)


# Namespaces, mounts, the host's kernel.


@attempt("seccomp", apart=True)
def unshare_a_user_namespace() -> object:
    return allowed(272, 0x10000000, after=(errno.EINVAL,))  # there are other threads


@attempt("capabilities seccomp", apart=True)
def unshare_mounts() -> object:
    return call(272, 0x00020000)


@attempt(PRIVILEGE)
def mount() -> object:
    return allowed(165, b"none", b"/proc", b"nosuchfs", 0, 0, after=(errno.ENODEV,))


@attempt("capabilities seccomp")
def unmount() -> object:
    return allowed(166, b"/proc/self", 0, after=(errno.EINVAL,))


@attempt(PRIVILEGE)
def open_a_file_system() -> object:
    return call(430, b"tmpfs", 0)


@attempt(PRIVILEGE)
def clone_the_mounts() -> object:
    return call(428, AT_FDCWD, b"/", 1)


@attempt("capabilities seccomp")
def pivot_the_root() -> object:
    return allowed(155, b"/no", b"/no", after=(errno.ENOENT,))


@attempt("capabilities seccomp", apart=True)
def change_the_root() -> object:
    return call(161, b"/proc")


@attempt("seccomp")
def join_a_namespace() -> object:
    fd = os.open(f"/proc/{os.getpid()}/ns/uts", os.O_RDONLY)
    call(308, fd, 0)
    return "setns"


@attempt(PRIVILEGE)
def load_a_module() -> object:
    return allowed(175, b"\0" * 64, 64, b"", after=(errno.ENOEXEC,))


@attempt("seccomp")
def load_a_bpf_program() -> object:
    return allowed(321, 0, 0, 0, after=(errno.EINVAL, errno.EPERM))


@attempt("seccomp")
def watch_performance() -> object:
    return allowed(298, 0, 0, -1, -1, 0, after=(errno.EFAULT, errno.EACCES))


@attempt("seccomp")
def set_up_a_ring() -> object:
    return allowed(425, 0, 0, after=(errno.EFAULT, errno.EINVAL, errno.EPERM))


@attempt("seccomp")
def use_the_keys() -> object:
    return allowed(250, 0, -3, 0, after=(errno.ENOKEY,))


@attempt("seccomp")
def handle_page_faults() -> object:
    return call(323, 1)


@attempt(PRIVILEGE)
def restart_the_host() -> object:
    return allowed(169, 0, 0, 0, 0, after=(errno.EINVAL,))


@attempt(PRIVILEGE)
def load_another_kernel() -> object:
    return allowed(246, 0, 0, 0, 0xFFFF, after=(errno.EINVAL,))


@attempt(PRIVILEGE)
def name_the_host() -> object:
    name = os.uname().nodename.encode()
    return call(170, name, len(name))


@attempt("capabilities userns seccomp")
def read_the_log_of_the_host() -> object:
    return call(103, 5, 0, 0)


@attempt("seccomp")
def write_a_filter_of_its_own() -> object:
    return allowed(317, 1, 0, 0, after=(errno.EFAULT,))


# Devices.


@attempt("seccomp")
def make_a_machine() -> object:
    """The platform may have its own; /dev/kvm is in the jail if it has."""
    KVM_CREATE_VM = 0xAE01
    return call(16, os.open("/dev/kvm", os.O_RDWR), KVM_CREATE_VM, 0)


@attempt("mountns landlock")
def open_the_memory_of_the_host() -> object:
    return os.open("/dev/mem", os.O_RDONLY)


@attempt("userns capabilities landlock seccomp")
def make_a_device() -> object:
    for place in ("/lower", "/", facts["scratch"]):
        path = place + "/device"
        try:
            os.mknod(path, 0o020600, os.makedev(1, 3))
        except OSError as error:
            failure = error
        else:
            os.unlink(path)
            return "mknod"
    raise failure


@attempt("seccomp")
def type_into_the_terminal() -> object:
    return allowed(16, 0, 0x5412, 0, after=(errno.ENOTTY,))


# Itself.


@attempt("seccomp", apart=True)
def raise_a_limit() -> object:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    return "setrlimit"


@attempt("seccomp", apart=True)
def raise_a_limit_from_an_odd_address() -> object:
    """The lower half of the pointer is zero: a filter has to look at both."""
    address = call(9, 7 << 32, 4096, 3, 0x100022, ctypes.c_void_p(-1), 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ctypes.memmove(address, struct.pack("=QQ", soft - 2, hard), 16)
    call(302, 0, resource.RLIMIT_NOFILE, address, 0)
    return resource.getrlimit(resource.RLIMIT_NOFILE)


@attempt("seccomp capabilities", apart=True)
def become_somebody_else() -> object:
    call(117, 1, 1, 0)
    return call(117, 0, 0, 0)


@attempt("capabilities seccomp", apart=True)
def regain_capabilities() -> object:
    header = struct.pack("=Ii", 0x20080522, 0)
    return call(126, header, struct.pack("=6I", 1 << 21, 1 << 21, 0, 0, 0, 0))


@attempt("seccomp undumpable")
def leave_a_core_dump() -> object:
    if not call(157, 3):
        raise OSError(errno.EPERM, "not dumpable")
    return "PR_GET_DUMPABLE"


@attempt("no_new_privs")
def gain_privileges_by_execve() -> object:
    if call(157, 39):
        raise OSError(errno.EPERM, "no_new_privs is set")
    return "no_new_privs is not set"


# The host's IPC objects.


@attempt("ipcns seccomp")
def find_shared_memory() -> object:
    return call(29, facts["shm_key"], 0, 0)


@attempt("ipcns seccomp")
def find_a_message_queue() -> object:
    return call(68, facts["msg_key"], 0)


# What no layer is for: it is never there.


def _memory() -> list[bytes]:
    pieces = []
    with open("/proc/self/maps", "rb") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        span, rights = line.split()[:2]
        start, end = (int(word, 16) for word in span.split(b"-"))
        if rights.startswith(b"rw") and b"[v" not in line and end - start < 1 << 28:
            pieces.append(ctypes.string_at(start, end - start))
    return pieces


@attempt("")
def find_the_callers_environment() -> object:
    """In all of its memory, and where execve(2) left it. The pattern must not be found itself."""
    half, rest = (bytes.fromhex(text) for text in facts["environment"])
    for piece in _memory():
        for found in re.finditer(re.escape(half), piece):
            if piece[found.end() : found.end() + len(rest)] == rest:
                around = piece[max(0, found.start() - 40) : found.end() + 20]
                return f"in memory: {around!r}"
    if half in read("/proc/self/environ"):
        return "in /proc/self/environ"
    raise OSError(errno.ENOENT, "nowhere")


@attempt("")
def find_a_descriptor_of_the_callers() -> object:
    for fd in range(3, 1024):
        try:
            data = os.pread(fd, 100, 0)
        except OSError:
            continue
        if facts["secret_text"].encode() in data:
            return f"descriptor {fd}"
    raise OSError(errno.EBADF, "nowhere")


class BrokenIn:
    """The plugin: takes over at the first system call."""

    def __init__(self) -> None:
        self.begun = False

    @hookimpl
    def syscall_enter(self) -> None:
        if self.begun:
            return
        self.begun = True
        for name in facts.get("attempts", ()):
            say(f"trying {name}")
            try:
                say(f"DONE {name} {ATTEMPTS[name]()!r}")
            except OSError as error:
                say(f"stopped {name} {error}")
        say("finished")


def say(line: str) -> None:
    os.write(1, line.encode("utf-8", "backslashreplace") + b"\n")


plugin = BrokenIn()
