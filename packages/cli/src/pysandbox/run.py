"""`pysandbox run`: one program in a sandbox of its own.

The process that the user started is only the front: it forks the sentry, which holds the kernel,
forwards signals to it and exits as it does. The sentry is killed with the front: when that is gone,
however it went, so are the sentry and every process of the platform.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from typing import TYPE_CHECKING

from pysandbox_core import config, standard_fds
from pysandbox_core.config import TIMEOUT_GRACE_S
from pysandbox_core.errors import InvalidOptionError
from pysandbox_core.jail.layers import parse_layers

from pysandbox.options import Option, Parsed

if TYPE_CHECKING:
    from pysandbox.job_control import Job

HELP = """\
usage: pysandbox run [OPTIONS] [--] PROGRAM [ARGUMENTS]

Run PROGRAM in a sandbox of its own. It sees the host's files read-only, writes go to memory and are
gone when it ends. Standard input, output and error are its own.

The exit status is the program's; 128+N after signal N; 124 after --timeout; 125 if the sandbox
failed or an option is wrong; 126 if PROGRAM can't be executed; 127 if it is not found.
"""

OPTIONS = (
    Option("--platform", "NAME", "what runs and traps the program; default: the best usable one"),
    Option("--rootfs", "DIR", "the sandbox's root, read-only below its own memory; default: /"),
    Option("--bind", "SRC:DST[:ro|rw]", "show the host's SRC at DST; default: ro", repeatable=True),
    Option(
        "--tmpfs",
        "DST[:size=SIZE,nr_inodes=N]",
        "mount an empty file system in memory at DST; default: half of the memory",
        repeatable=True,
    ),
    Option("--env", "K[=V]", "set K to V, or to the caller's own value of K", repeatable=True),
    Option("--workdir", "DIR", "start in DIR; default: the caller's, or / where that is missing"),
    Option("--user", "UID[:GID]", "run as this user; default: the caller's uid, gid and groups"),
    Option("--hostname", "H", "default: pysandbox"),
    Option("--memory", "SIZE", "limit of the sandbox's memory, like 512M; default: none"),
    Option("--pids", "N", "limit of tasks that exist at once; default: 4096"),
    Option("--cpu-time", "S", "limit of CPU time, in seconds, of all tasks; default: none"),
    Option("--require", "LAYER,...", "start only if these layers of the jail are on, or `all`"),
    Option("--without", "LAYER,...", "leave out layers of the jail, or `all`; for debugging"),
    Option("--timeout", "S", "kill everything after S seconds, like 2.5"),
    Option(
        "--strace",
        "FILE",
        "print every system call to standard error, or with --strace=FILE to FILE",
        value_optional=True,
    ),
    Option("--log-level", "LEVEL", f"{', '.join(config.LOG_LEVELS)}; default: warning"),
    Option("--help", "", "show this"),
    Option("-h", "", "show this"),
)


def run(parsed: Parsed) -> int:
    """Run the program that `parsed` asks for; the status to exit with."""
    stdio = standard_fds.occupy()
    if not parsed.rest:
        raise InvalidOptionError("no program to run; write it after the options: run -- PROGRAM")
    sandbox_config = read_config(parsed)
    spec = read_spec(parsed, sandbox_config)
    spec.stdio = stdio
    timeout_ns = read_timeout(parsed)
    strace_fd = open_strace(parsed)

    # imported before the fork, so that what the front and the sentry need is read once
    from pysandbox_core import sentry, terminal
    from pysandbox_core.choice import choose_platform
    from pysandbox_core.jail.jail import Jail

    from pysandbox.job_control import Job

    platform_class = choose_platform(sandbox_config.platform)
    jail = Jail(sandbox_config.require, sandbox_config.without)

    restore_terminal = terminal.save()
    can_stop = has_terminal()
    requests, requests_end = os.pipe2(os.O_CLOEXEC)
    spec.ignored = frozenset(
        signo for signo in sentry.FORWARDED_SIGNALS if signal.getsignal(signo) == signal.SIG_IGN
    )
    wanted = {*sentry.FORWARDED_SIGNALS, signal.SIGCHLD, signal.SIGIO}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller that ignores it would hide the status
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    tell_of_input(requests)
    pid = jail.fork()
    if pid:
        os.close(requests_end)
        try:
            job = Job(pid, requests if can_stop else -1)
            wait_status = wait_for_sentry(pid, wanted, job, timeout_ns)
        finally:
            restore_terminal()  # before anything is written to it: it may have been stopped
        return status_of_sentry(wait_status, timeout_ns)
    status = sentry.STATUS_FAILED
    try:
        status = sentry.run_program(
            sandbox_config,
            spec,
            platform_class,
            timeout_ns=timeout_ns,
            strace_fd=strace_fd,
            signal_mask=previous,
            jail=jail,
            requests_fd=requests_end if can_stop else -1,
        )
    finally:
        os._exit(status)  # nothing of the front's is the sentry's to clean up


def has_terminal() -> bool:
    """Is there a controlling terminal, and so perhaps somebody who sees that a job has stopped and
    goes on with it? Otherwise a program that stops itself is stopped alone: its time goes on."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def tell_of_input(fd: int) -> None:
    """Have SIGIO sent to this process when there is something to read from `fd`. fcntl(2)"""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)


def wait_for_sentry(
    pid: int, wanted: set[signal.Signals], job: Job, timeout_ns: int | None
) -> int | None:
    """Forward signals to the sentry until it ends, and stop it when it asks `job` for that; its
    wait status. None: it did not end in time and was killed. What it does otherwise may be the
    program's doing, if that has taken it over, and moves us to nothing.
    """
    deadline = None if timeout_ns is None else time.monotonic() + timeout_ns / 1e9 + TIMEOUT_GRACE_S
    while True:
        if deadline is None:
            info = signal.sigwaitinfo(wanted)
        else:
            expiring = signal.sigtimedwait(wanted, max(0.0, deadline - time.monotonic()))
            if expiring is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None
            info = expiring
        if info.si_signo == signal.SIGIO:
            job.read_requests()
            continue
        job.signalled(info.si_signo)
        if info.si_signo != signal.SIGCHLD:
            # what the terminal sends (si_code SI_KERNEL) goes to the whole foreground process
            # group, so the sentry has it already
            if info.si_code <= 0:
                os.kill(pid, info.si_signo)  # SIGCONT as well: the sentry stops with us
            continue
        changed, wait_status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if not changed:
            continue
        if not os.WIFSTOPPED(wait_status):
            return wait_status
        job.sentry_stopped()


def status_of_sentry(wait_status: int | None, timeout_ns: int | None) -> int:
    """What to exit with after a sentry that ended so; its death is reported."""
    from pysandbox_core import sentry

    if wait_status is None:
        sentry.report(
            f"timed out after {(timeout_ns or 0) / 1e9:g} s, and the sandbox did not end by itself "
            f"within {TIMEOUT_GRACE_S} s more; it was killed"
        )
        return sentry.STATUS_TIMEOUT
    if os.WIFSIGNALED(wait_status):
        sentry.report(sentry.describe_death(os.WTERMSIG(wait_status)))
        return sentry.STATUS_FAILED
    return os.WEXITSTATUS(wait_status)


def read_config(parsed: Parsed) -> config.SandboxConfig:
    """The sandbox that the options ask for."""
    platform = parsed.get("--platform")
    rootfs = parsed.get("--rootfs")
    hostname = parsed.get("--hostname")
    log_level = parsed.get("--log-level")
    memory = parsed.get("--memory")
    pids = parsed.get("--pids")
    cpu_time = parsed.get("--cpu-time")
    user = parsed.get("--user")
    return config.SandboxConfig(
        platform="auto" if platform is None else platform,
        rootfs=b"/" if rootfs is None else os.fsencode(rootfs),
        binds=[config.parse_bind(text) for text in parsed.all("--bind")],
        tmpfs=[config.parse_tmpfs(text) for text in parsed.all("--tmpfs")],
        hostname=b"pysandbox" if hostname is None else os.fsencode(hostname),
        memory=None if memory is None else config.parse_size(memory),
        pids=None if pids is None else config.parse_count("--pids", pids),
        cpu_time_ns=None if cpu_time is None else config.parse_cpu_time(cpu_time),
        user=None if user is None else config.parse_user(user),
        log_level="warning" if log_level is None else log_level,
        require=parse_layers(parsed.get("--require") or ""),
        without=parse_layers(parsed.get("--without") or ""),
    )


def read_spec(parsed: Parsed, sandbox_config: config.SandboxConfig) -> config.ProcessSpec:
    """The program that the command line asks for, with the caller's standard descriptors."""
    workdir = parsed.get("--workdir")
    return config.ProcessSpec(
        [os.fsencode(word) for word in parsed.rest],
        env=read_environment(parsed.all("--env"), sandbox_config.user),
        cwd=os.fsencode(workdir) if workdir is not None else config.caller_directory(),
        cwd_required=workdir is not None,
    )


def read_environment(settings: list[str], user: config.User) -> list[bytes]:
    """The program's whole environment: the few variables that every program may expect, then what
    `settings` (`K=V` or `K`) asks for. Nothing else of the caller's is passed on."""
    environment = config.default_environment(user, terminal=os.isatty(1))
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name:
            raise InvalidOptionError(f"--env {setting!r} has no name; write K=V or K")
        if equals:
            environment[os.fsencode(name)] = os.fsencode(value)
        elif name in os.environ:
            environment[os.fsencode(name)] = os.fsencode(os.environ[name])
        else:
            environment.pop(os.fsencode(name), None)
    return [name + b"=" + value for name, value in environment.items()]


def read_timeout(parsed: Parsed) -> int | None:
    """`--timeout` in nanoseconds."""
    text = parsed.get("--timeout")
    return None if text is None else config.parse_timeout(text)


def open_strace(parsed: Parsed) -> int | None:
    """The host descriptor that `--strace` lines go to."""
    path = parsed.get("--strace")
    if path is None:
        return None
    if not path:
        return 2
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return os.open(path, flags, 0o666)
    except OSError as error:
        raise InvalidOptionError(f"--strace can't write {path}: {error.strerror}") from None
