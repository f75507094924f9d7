"""What a person asks for: a sandbox (`SandboxConfig`) and processes in it (`ProcessSpec`).

Interface: both are checked when they are made, so that the kernel need not check them again; what
is wrong raises InvalidOptionError with one line that says what to write instead. Paths are bytes.
The `parse_*` functions read the notations that the command line and the SDK share.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOG_LEVELS = ("error", "warning", "info", "debug")
"""Least to most talkative. `warning` tells of system calls that are not implemented."""

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MIN_MEMORY = 1 << 20
"""Bytes: below this not even a static program starts."""
HOST_NAME_MAX = 64
"""Bytes of a host name, gethostname(2)."""

TIMEOUT_GRACE_S = 10
"""How much longer than a sandbox's time its sentry may take to end: it keeps the time itself,
unless the program has taken it over."""
MAX_TIMEOUT_S = 1_000_000_000
"""Some thirty years; more does not fit the clocks."""

MAX_SIZE = 1 << 60
"""Bytes of memory or of a file system, and files in one; what counts them has 63 bits."""

_SIZE_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_MAX_DIGITS = 40
"""Of a number; Python converts no number of any length."""
_TOO_MUCH = f"more than {MAX_SIZE >> 40}T can't be counted"
_ID_MAX = 0xFFFFFFFE
"""Highest uid or gid; the next one means "unchanged" to chown(2)."""


class Bind(NamedTuple):
    """A host directory or file that the sandbox has at `target`."""

    source: bytes
    """Absolute path on the host."""
    target: bytes
    """Absolute path in the sandbox."""
    writable: bool = False


class Tmpfs(NamedTuple):
    """An empty file system in memory."""

    target: bytes
    """Absolute path in the sandbox."""
    size: int | None = None
    """Bytes that its files may have; None: half of the memory there is."""
    inodes: int | None = None
    """Files that it may have; None: one for each page it may have, at most a million."""


class User(NamedTuple):
    """Who a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @classmethod
    def caller(cls) -> User:
        """Whoever runs this."""
        return cls(os.getuid(), os.getgid(), tuple(os.getgroups()))


class SandboxConfig:
    """A sandbox, as asked for. Immutable by convention; shared by everything in the kernel."""

    __slots__ = (
        "binds", "cpu_time_ns", "hostname", "log_level", "memory", "pids", "platform", "require",
        "rootfs", "tmpfs", "user", "without",
    )  # fmt: skip

    def __init__(
        self,
        *,
        platform: str = "auto",
        rootfs: bytes = b"/",
        binds: Iterable[Bind] = (),
        tmpfs: Iterable[Tmpfs] = (),
        hostname: bytes = b"pysandbox",
        memory: int | None = None,
        pids: int | None = None,
        cpu_time_ns: int | None = None,
        user: User | None = None,
        log_level: str = "warning",
        require: frozenset[str] = frozenset(),
        without: frozenset[str] = frozenset(),
    ) -> None:
        self.platform = platform
        """Name of a platform, or `auto` for the best usable one."""
        self.rootfs = host_path(rootfs)
        """Host directory below the overlay that is the sandbox's root; never written to."""
        self.binds = tuple(binds)
        self.tmpfs = tuple(tmpfs)
        """Empty file systems in memory, and where they are mounted."""
        self.hostname = hostname
        self.memory = memory
        """Bytes of memory the sandbox may have, files in memory and what the kernel keeps for its
        programs included; None: no limit but that of kernel_memory.default_bound."""
        self.pids = pids
        """Tasks (threads of all processes) that may exist at once; None:
        task_clone.DEFAULT_TASKS."""
        self.cpu_time_ns = cpu_time_ns
        """CPU time that all programs and the kernel's work for them may take; None: no limit."""
        self.user = user or User.caller()
        """Whom processes run as unless they say otherwise."""
        self.log_level = log_level
        """One of LOG_LEVELS."""
        self.require = require
        """Layers of the jail (jail/layers.py) without which the sandbox is not to start."""
        self.without = without
        """Layers of the jail that are left out."""
        self._check(rootfs)

    def logs(self, level: str) -> bool:
        """Are messages of `level` wanted?"""
        return LOG_LEVELS.index(level) <= LOG_LEVELS.index(self.log_level)

    def _check(self, rootfs: bytes) -> None:
        if not rootfs or not os.path.isdir(self.rootfs):
            raise InvalidOptionError(
                f"rootfs {show(rootfs)} is no directory; name one with a root file system"
            )
        for bind in self.binds:
            _check_target("bind", bind.target)
            if not os.path.exists(bind.source):
                raise InvalidOptionError(
                    f"bind source {show(bind.source)} does not exist on the host; create it first"
                )
        for mount in self.tmpfs:
            _check_target("tmpfs", mount.target)
            if max(mount.size or 0, mount.inodes or 0) > MAX_SIZE:
                raise InvalidOptionError(f"tmpfs {show(mount.target)}: {_TOO_MUCH}")
        if not 0 < len(self.hostname) <= HOST_NAME_MAX or b"\0" in self.hostname:
            raise InvalidOptionError(f"a hostname has 1 to {HOST_NAME_MAX} bytes, none of them NUL")
        if self.memory is not None and self.memory < MIN_MEMORY:
            raise InvalidOptionError(f"memory must be at least {MIN_MEMORY >> 20}M")
        if self.memory is not None and self.memory > MAX_SIZE:
            raise InvalidOptionError(f"memory: {_TOO_MUCH}")
        if self.pids is not None and self.pids < 1:
            raise InvalidOptionError("pids must be at least 1")
        both = sorted(self.require & self.without)
        if both:
            raise InvalidOptionError(f"layer {both[0]} of the jail is both required and left out")
        if self.log_level not in LOG_LEVELS:
            raise InvalidOptionError(
                f"unknown log level {self.log_level!r}; use one of {', '.join(LOG_LEVELS)}"
            )


class ProcessSpec:
    """A program to start: what execve(2) is given, and what a process inherits."""

    __slots__ = ("argv", "cwd", "cwd_required", "env", "ignored", "stdio", "user")

    def __init__(
        self,
        argv: Sequence[bytes],
        *,
        env: Sequence[bytes] = (),
        cwd: bytes = b"/",
        cwd_required: bool = False,
        stdio: tuple[int, int, int] = (0, 1, 2),
        user: User | None = None,
        ignored: Iterable[int] = (),
    ) -> None:
        self.argv = list(argv)
        self.env = list(env)
        """`NAME=value` each, in the order the program sees."""
        self.cwd = cwd
        """Absolute path in the sandbox."""
        self.cwd_required = cwd_required
        """Fail if `cwd` does not exist; otherwise `/` serves instead."""
        self.stdio = stdio
        """Host descriptors that become its descriptors 0, 1 and 2, standard_fds.CLOSED for none.
        The kernel works on copies of them, which live as long as any process has them open; these
        remain the caller's."""
        self.user = user
        """None: the sandbox's."""
        self.ignored = frozenset(ignored)
        """Numbers of the signals that it ignores from the start, signal(7)."""
        if not self.argv or not self.argv[0]:
            raise InvalidOptionError("no program to run; give at least its name")
        if any(b"\0" in word for word in (*self.argv, *self.env, cwd)):
            raise InvalidOptionError("a NUL byte in an argument, the environment or a path")
        if not cwd.startswith(b"/"):
            raise InvalidOptionError(f"working directory {show(cwd)} is not an absolute path")

    def variable(self, name: bytes) -> bytes | None:
        """The value of an environment variable; the first entry counts, as for getenv(3)."""
        prefix = name + b"="
        for entry in self.env:
            if entry.startswith(prefix):
                return entry[len(prefix) :]
        return None


def show(path: bytes) -> str:
    """A path for an error message."""
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode()


def host_path(path: bytes) -> bytes:
    """The absolute path of a host's file; a relative one starts at the caller's working
    directory."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise InvalidOptionError(
            f"{show(path)} is a relative path, and the working directory has been deleted"
        ) from None


def caller_directory() -> bytes:
    """The caller's working directory, / if it is gone."""
    try:
        return os.getcwdb()
    except FileNotFoundError:
        return b"/"


def parse_bind(text: str) -> Bind:
    """`SRC`, `SRC:DST` or `SRC:DST:ro|rw`; read-only is the default. A relative SRC starts at the
    caller's working directory."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or mode not in ("", "ro", "rw"):
        raise InvalidOptionError(f"bind {text!r} is not SRC:DST, SRC:DST:ro or SRC:DST:rw")
    host = host_path(os.fsencode(source))
    return Bind(host, os.fsencode(target) if target else host, mode == "rw")


def parse_tmpfs(text: str) -> Tmpfs:
    """`DST` or `DST:size=64M,nr_inodes=1000`, the names of tmpfs(5)."""
    target, colon, options = text.partition(":")
    size = inodes = None
    for option in options.split(",") if colon else ():
        name, _, value = option.partition("=")
        if name == "size":
            size = parse_size(value)
        elif name == "nr_inodes":
            inodes = parse_size(value)
        else:
            raise InvalidOptionError(
                f"tmpfs option {option!r} is not size=SIZE or nr_inodes=N, like /tmp:size=64M"
            )
    if size == 0 or inodes == 0:
        raise InvalidOptionError(f"tmpfs {text!r}: a size and a number of files are at least 1")
    return Tmpfs(os.fsencode(target), size, inodes)


def parse_size(text: str) -> int:
    """`512M`, `2g`, `1.5GiB`, `4096`: a number of bytes with a power of 1024 as its unit."""
    unit = text.lstrip("0123456789.")
    number = text[: len(text) - len(unit)]
    shift = _SIZE_UNITS.get(unit.lower().removesuffix("ib" if len(unit) == 3 else "b"))
    try:
        if shift is not None and len(number) <= _MAX_DIGITS:
            return int(float(number) * (1 << shift)) if "." in number else int(number) << shift
    except ValueError:
        pass
    raise InvalidOptionError(f"size {text!r} is not a number with K, M, G or T, like 512M")


def parse_count(name: str, text: str) -> int:
    """A whole number, which is to be shown as `name` if it is none."""
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise InvalidOptionError(f"{name} {text!r} is not a number")
    return int(text)


def parse_user(text: str) -> User:
    """`UID` or `UID:GID`; the gid is the uid's number if it is left out."""
    uid, colon, gid = text.partition(":")
    numbers = (uid, gid) if colon else (uid,)
    if not all(number.isdecimal() and len(number) <= _MAX_DIGITS for number in numbers):
        raise InvalidOptionError(f"user {text!r} is not UID or UID:GID in numbers, like 1000:1000")
    user = User(int(uid), int(gid) if colon else int(uid))
    if user.uid > _ID_MAX or user.gid > _ID_MAX:
        raise InvalidOptionError(f"user {text!r}: the highest uid and gid is {_ID_MAX}")
    return user


def parse_timeout(text: str) -> int:
    """A positive number of seconds, in nanoseconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise InvalidOptionError(
            f"timeout {text!r} is not a number of seconds above 0 and up to {MAX_TIMEOUT_S}"
        )
    return max(1, int(seconds * 1e9))


def parse_cpu_time(text: str) -> int:
    """A positive number of seconds of CPU time, in nanoseconds."""
    try:
        return parse_timeout(text)
    except InvalidOptionError:
        raise InvalidOptionError(
            f"CPU time {text!r} is not a number of seconds above 0 and up to {MAX_TIMEOUT_S}"
        ) from None


def default_environment(user: User, *, terminal: bool = False) -> dict[bytes, bytes]:
    """What every program has in its environment unless it is told otherwise: nothing here comes
    from the caller's own."""
    environment = {b"PATH": DEFAULT_PATH, b"HOME": b"/root" if user.uid == 0 else b"/"}
    if terminal:
        environment[b"TERM"] = b"xterm"
    return environment


def _check_target(what: str, target: bytes) -> None:
    if not target.startswith(b"/") or b"\0" in target:
        raise InvalidOptionError(f"{what} target {show(target)} is not an absolute path")
    if not os.path.normpath(target).strip(b"/"):
        raise InvalidOptionError(f"{what} target / is the root itself; use rootfs for that")
