"""The sentry as the SDK uses it: a process of its own that runs programs on request.

`python -m pysandbox_core.sentry_server CONTROL LIFELINE` with two descriptor numbers: a socket for
messages (control.py) and the pipe it is tied to (sentry.tie_to_lifeline).

Interface, SDK to sentry:
- `{"sandbox": {…}, "timeout_ns": N}` first, the fields of SandboxConfig. Answer: `{"ready":
  platform, "off": {layer: why}}` or `{"failed": kind, "message": text}`.
- `{"run": id, "argv": […], "env": […], "cwd": path, …}` with four descriptors: standard input,
  output and error, and a pipe for the status, to which the sentry writes one line of JSON when the
  program has ended or could not be started: `{"exited": wait status, "usage": {…}}` or `{"failed":
  …}`. A status pipe that ends without a line means that the sentry is gone.
- `{"signal": signo, "run": id, "all": bool}`: to its process, or to every descendant of it as well.
- Closing the socket ends the sandbox.

Sentry to SDK, besides the answer: `{"failed": kind, "message": text}` when the kernel failed or the
sandbox's time is up; then it ends.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NoReturn

from pysandbox_core import errors, standard_fds
from pysandbox_core.choice import choose_platform
from pysandbox_core.config import (
    TIMEOUT_GRACE_S,
    Bind,
    ProcessSpec,
    SandboxConfig,
    Tmpfs,
    User,
)
from pysandbox_core.control import Channel, Message
from pysandbox_core.jail.jail import Jail
from pysandbox_core.limits import deciding
from pysandbox_core.sentry import HostWatch, Sentry, describe_failure, tie_to_lifeline
from pysandbox_core.signals import SigInfo
from pysandbox_core.task_signals import send

if TYPE_CHECKING:
    from pysandbox_core.task import ThreadGroup


class Run:
    """One program that runs on request."""

    def __init__(self, number: int, fds: list[int]) -> None:
        self.number = number
        self.stdio = (fds[0], fds[1], fds[2])
        self.status_fd = fds[3]
        self.group: ThreadGroup | None = None
        self.met_before: dict[str, int] = {}
        """How often limits had been met when it started, by nobody in particular."""

    def finish(self, status: Message) -> None:
        """Tell the SDK, and let go of the descriptors: what the program left running keeps
        copies."""
        line = json.dumps(status).encode() + b"\n"
        with suppress(OSError):  # the caller has given up on it
            os.write(self.status_fd, line)
        for fd in (*self.stdio, self.status_fd):
            os.close(fd)


class Server:
    """Answers one SDK over one channel until that goes away."""

    def __init__(self, channel: Channel, sentry: Sentry, timeout_ns: int | None) -> None:
        self.channel = channel
        self.sentry = sentry
        self.runs: dict[int, Run] = {}
        HostWatch(sentry.kernel.reactor, channel.socket.fileno(), self._receive)
        if timeout_ns is not None:
            sentry.kernel.timers.add(monotonic_ns() + timeout_ns, self._expire)

    def _expire(self) -> None:
        self.channel.send({"failed": "SandboxTimeoutError", "message": "the sandbox's time is up"})
        self.sentry.stop()

    def _receive(self) -> None:
        try:
            received = self.channel.receive()
        except (OSError, ValueError):
            received = None
        if received is None:
            self.sentry.stop()
            return
        message, fds = received
        if "argv" in message:
            self._start(message, fds)
        elif "signal" in message:
            self._signal(message)

    def _start(self, message: Message, fds: list[int]) -> None:
        run = Run(message["run"], fds)
        try:
            spec = ProcessSpec(
                [os.fsencode(word) for word in message["argv"]],
                env=[os.fsencode(entry) for entry in message["env"]],
                cwd=os.fsencode(message["cwd"]),
                cwd_required=message["cwd_required"],
                stdio=run.stdio,
                user=None if message["user"] is None else _user(message["user"]),
            )
            run.met_before = dict(self.sentry.kernel.account.own)
            run.group = self.sentry.start(spec, lambda status: self._ended(run, status))
        except errors.SandboxError as error:
            run.finish(failure(error))
        else:
            self.runs[run.number] = run

    def _ended(self, run: Run, wait_status: int) -> None:
        del self.runs[run.number]
        group = run.group
        assert group is not None
        usage = {
            "cpu_time": (group.cpu_time_ns + group.children_cpu_ns) / 1e9,
            "max_memory": max(group.max_rss, group.children_max_rss),
        }
        own = self.sentry.kernel.account.own
        met = [name for name, count in own.items() if count > run.met_before.get(name, 0)]
        limit = deciding(group.account.reached) or deciding(met)
        run.finish({"exited": wait_status, "usage": usage, "limit": limit})

    def _signal(self, message: Message) -> None:
        run = self.runs.get(message["run"])
        if run is None or run.group is None:
            return  # it has ended meanwhile
        groups = descendants(run.group) if message["all"] else [run.group]
        for group in groups:
            send(group, message["signal"], SigInfo.kernel(message["signal"]))


def descendants(group: ThreadGroup) -> list[ThreadGroup]:
    """`group`, its children, theirs and so on, and whoever else is in their sessions: what a
    program has started, as far as it did not take care to be forgotten."""
    found = [group]
    for member in found:
        found += member.children.values()
    sessions = {member.process_group.session for member in found if member.process_group}
    for session in sessions:
        for process_group in session.process_groups.values():
            found += process_group.members.values()
    return list(dict.fromkeys(found))


def failure(error: BaseException) -> Message:
    """What to tell the SDK of an exception: the SandboxError it shall raise."""
    if isinstance(error, errors.SandboxError):
        return {"failed": type(error).__name__, "message": str(error)}
    return {"failed": "KernelFailureError", "message": describe_failure(error)}


def _user(words: list[Any]) -> User:
    uid, gid, groups = words
    return User(uid, gid, tuple(groups))


def _config(fields: Message) -> SandboxConfig:
    return SandboxConfig(
        platform=fields["platform"],
        rootfs=os.fsencode(fields["rootfs"]),
        binds=[
            Bind(os.fsencode(source), os.fsencode(target), writable)
            for source, target, writable in fields["binds"]
        ],
        tmpfs=[
            Tmpfs(os.fsencode(target), size, inodes) for target, size, inodes in fields["tmpfs"]
        ],
        hostname=os.fsencode(fields["hostname"]),
        memory=fields["memory"],
        pids=fields["pids"],
        cpu_time_ns=fields["cpu_time_ns"],
        user=_user(fields["user"]),
        log_level=fields["log_level"],
        require=frozenset(fields["require"]),
        without=frozenset(fields["without"]),
    )


def serve(channel: Channel) -> None:
    """Fork the sentry that the SDK asks for, and end as it does. The sentry answers until the
    sandbox is to end."""
    first = channel.receive()
    if first is None:
        return
    sentry = None
    try:
        config = _config(first[0]["sandbox"])
        platform = choose_platform(config.platform)
        jail = Jail(config.require, config.without)
        pid = jail.fork()
        if pid:
            channel.socket.close()
            end_after(first[0]["timeout_ns"])
            end_like(os.waitpid(pid, 0)[1])
        sentry = Sentry(config, platform, jail=jail, own_fds=[channel.socket.fileno()])
        Server(channel, sentry, first[0]["timeout_ns"])
        channel.send({"ready": platform.name, "off": jail.off})
        sentry.run()
    except Exception as error:
        with suppress(OSError):
            channel.send(failure(error))
    finally:
        if sentry is not None:
            sentry.close()


def end_after(timeout_ns: int | None) -> None:
    """Be killed, and the sentry with us, if the sandbox's time is up and it does not end by itself:
    it keeps the time, unless a program has taken it over. SIGALRM tells the SDK."""
    if timeout_ns is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, timeout_ns / 1e9 + TIMEOUT_GRACE_S)


def end_like(wait_status: int) -> NoReturn:
    """End this process as the one that has this wait status did."""
    if os.WIFSIGNALED(wait_status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), os.WTERMSIG(wait_status))
    os._exit(os.waitstatus_to_exitcode(wait_status) & 0xFF)


def main() -> None:
    standard_fds.occupy()
    control, lifeline = map(int, sys.argv[1:])
    os.set_inheritable(control, False)
    os.set_inheritable(lifeline, False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored no child can be waited for
    tie_to_lifeline(lifeline)
    serve(Channel(socket.socket(fileno=control)))
    os._exit(0)


if __name__ == "__main__":
    main()
