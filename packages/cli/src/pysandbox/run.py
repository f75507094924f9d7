"""`pysandbox run`: one program in a sandbox of its own.

The process that the user started is only the front: it forks the sentry, which holds the kernel,
forwards signals to it and exits as it does. The sentry is tied to the front by a pipe: when the
front is gone, however it went, so are the sentry and every process of the platform.
"""

from __future__ import annotations

import os
import signal

from pysandbox_core import config
from pysandbox_core.errors import InvalidOptionError

from pysandbox.options import Option, Parsed

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
    Option("--tmpfs", "DST", "mount an empty file system in memory at DST", repeatable=True),
    Option("--env", "K[=V]", "set K to V, or to the caller's own value of K", repeatable=True),
    Option("--workdir", "DIR", "start in DIR; default: the caller's, or / where that is missing"),
    Option("--user", "UID[:GID]", "run as this user; default: the caller's uid, gid and groups"),
    Option("--hostname", "H", "default: pysandbox"),
    Option("--memory", "SIZE", "limit of the sandbox's memory, like 512M; default: none"),
    Option("--pids", "N", "limit of tasks that exist at once; default: none"),
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
    if not parsed.rest:
        raise InvalidOptionError("no program to run; write it after the options: run -- PROGRAM")
    sandbox_config = read_config(parsed)
    spec = read_spec(parsed, sandbox_config)
    timeout_ns = read_timeout(parsed)
    strace_fd = open_strace(parsed)

    # imported before the fork, so that what the front and the sentry need is read once
    from pysandbox_core import sentry, terminal
    from pysandbox_core.choice import choose_platform

    platform_class = choose_platform(sandbox_config.platform)

    restore_terminal = terminal.save()
    lifeline, held_end = os.pipe2(os.O_CLOEXEC)
    wanted = {*sentry.FORWARDED_SIGNALS, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller that ignores it would hide the status
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    pid = os.fork()
    if pid:
        os.close(lifeline)
        try:
            return wait_for_sentry(pid, wanted)
        finally:
            restore_terminal()
    status = sentry.STATUS_FAILED
    try:
        os.close(held_end)
        sentry.tie_to_lifeline(lifeline)
        status = sentry.run_program(
            sandbox_config,
            spec,
            platform_class,
            timeout_ns=timeout_ns,
            strace_fd=strace_fd,
            signal_mask=previous,
        )
    finally:
        os._exit(status)  # nothing of the front's is the sentry's to clean up


def wait_for_sentry(pid: int, wanted: set[signal.Signals]) -> int:
    """Forward signals to the sentry until it ends; the status to exit with."""
    from pysandbox_core import sentry

    while True:
        info = signal.sigwaitinfo(wanted)
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
            break
        # it stops with its program (^Z); whoever continues us continues both
        os.kill(os.getpid(), signal.SIGSTOP)
    if os.WIFSIGNALED(wait_status):
        signo = os.WTERMSIG(wait_status)
        sentry.report(f"the sandbox was killed by signal {signo} ({signal.strsignal(signo)})")
        return sentry.STATUS_FAILED
    return os.WEXITSTATUS(wait_status)


def read_config(parsed: Parsed) -> config.SandboxConfig:
    """The sandbox that the options ask for."""
    memory = parsed.get("--memory")
    pids = parsed.get("--pids")
    user = parsed.get("--user")
    if pids is not None and not pids.isdecimal():
        raise InvalidOptionError(f"--pids {pids!r} is not a number")
    return config.SandboxConfig(
        platform=parsed.get("--platform") or "auto",
        rootfs=os.fsencode(parsed.get("--rootfs") or "/"),
        binds=[config.parse_bind(text) for text in parsed.all("--bind")],
        tmpfs=[os.fsencode(text) for text in parsed.all("--tmpfs")],
        hostname=os.fsencode(parsed.get("--hostname") or "pysandbox"),
        memory=None if memory is None else config.parse_size(memory),
        pids=None if pids is None else int(pids),
        user=None if user is None else config.parse_user(user),
        log_level=parsed.get("--log-level") or "warning",
    )


def read_spec(parsed: Parsed, sandbox_config: config.SandboxConfig) -> config.ProcessSpec:
    """The program that the command line asks for, with the caller's standard descriptors."""
    workdir = parsed.get("--workdir")
    return config.ProcessSpec(
        [os.fsencode(word) for word in parsed.rest],
        env=read_environment(parsed.all("--env"), sandbox_config.user),
        cwd=os.fsencode(workdir) if workdir is not None else caller_directory(),
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


def caller_directory() -> bytes:
    """The directory we were started in, / if it is gone."""
    try:
        return os.getcwdb()
    except FileNotFoundError:
        return b"/"


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
