"""Files that are passed through AF_UNIX sockets: SCM_RIGHTS. unix(7)

Linux: net/unix/scm.c, garbage.c.

A file in a message holds one reference. Sockets can be passed through each other until nothing but
messages refers to them: such circles would live for ever. `collect` finds them, soon after a socket
or a descriptor of one was closed while files are in flight: what is only referred to by messages,
in inboxes that can only be reached through such messages, is dropped.
"""

from __future__ import annotations

from errno import EINVAL, ETOOMANYREFS
from time import monotonic_ns
from typing import TYPE_CHECKING

from pysandbox_core.abi.socket import SCM_MAX_FD
from pysandbox_core.credentials import CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from pysandbox_core.errors import LinuxError
from pysandbox_core.net.network import network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.net.network import Network
    from pysandbox_core.net.unix import Segment, UnixSocket
    from pysandbox_core.task import Task


MAX_LEVEL = 4
"""How deep sockets may lie in messages in sockets. Linux: MAX_RECURSION_LEVEL"""
_CLOSES_PER_LOOK = 8
"""Sockets and files there may be for each that was closed, for circles to be looked for at once."""
_DELAY_MIN_NS = 20_000_000
_PAUSE_FACTOR = 20
"""Between two looks there is this much more time than one takes."""


def send_files(task: Task, files: list[FileDescription], receiver: UnixSocket) -> None:
    """Count `files`, which `task` sends to `receiver`, as in flight.

    Errors: EINVAL too many in one message; ETOOMANYREFS more of the user's than RLIMIT_NOFILE, or
    sockets nested too deep.
    """
    from pysandbox_core.net.unix import UnixSocket

    if len(files) > SCM_MAX_FD:
        raise LinuxError(EINVAL)
    level = max((file.level + 1 for file in files if isinstance(file, UnixSocket)), default=0)
    if level > MAX_LEVEL:
        raise LinuxError(ETOOMANYREFS)
    net = network(task.kernel)
    uid = task.creds.uid
    limit = task.group.limits.nofile
    privileged = task.creds.capable(CAP_SYS_RESOURCE) or task.creds.capable(CAP_SYS_ADMIN)
    if net.in_flight.get(uid, 0) > limit:
        collect(net)
        if net.in_flight.get(uid, 0) > limit and not privileged:
            raise LinuxError(ETOOMANYREFS)
    net.in_flight[uid] = net.in_flight.get(uid, 0) + len(files)
    receiver.level = max(receiver.level, level)


def landed(net: Network, segment: Segment) -> list[FileDescription]:
    """Take the files out of `segment`: they have arrived, and their references are the caller's."""
    files = segment.files
    if files:
        segment.files = []
        left = net.in_flight[segment.uid] - len(files)
        if left:
            net.in_flight[segment.uid] = left
        else:
            del net.in_flight[segment.uid]
    return files


def drain(socket: UnixSocket) -> None:
    """Drop what `socket` has not read, the files in it too."""
    net = network(socket.kernel)
    socket.level = 0
    while socket.inbox:
        segment = socket.inbox.popleft()
        segment.sender.discharge(segment)
        for file in landed(net, segment):
            file.decref()


def socket_closed(kernel: Kernel) -> None:
    """A socket was closed while files are in flight: look for circles, but not so often that it
    takes all the time where there are many files or sockets; a little later then."""
    net = network(kernel)
    net.closes += 1
    if net.closes * _CLOSES_PER_LOOK >= max(sum(net.in_flight.values()), len(net.unix_sockets)):
        collect(net)
    else:
        look_later(kernel)


def look_later(kernel: Kernel) -> None:
    """A descriptor of a socket was closed, and messages may be all that refers to it now: nobody
    may ever close another socket."""
    net = network(kernel)
    if not net.will_collect:
        net.will_collect = True
        delay_ns = max(_DELAY_MIN_NS, net.collect_ns * _PAUSE_FACTOR)
        kernel.timers.add(monotonic_ns() + delay_ns, lambda: _collect_later(net))


def _collect_later(net: Network) -> None:
    net.will_collect = False
    if net.in_flight:
        collect(net)


def collect(net: Network) -> None:
    """Drop circles of sockets that only messages refer to."""
    net.closes = 0
    start_ns = monotonic_ns()
    _drop_circles(net)
    net.collect_ns = monotonic_ns() - start_ns


def _drop_circles(net: Network) -> None:
    """Linux: unix_gc()"""
    embryos = {embryo for socket in net.unix_sockets for embryo in socket.embryos()}
    sockets = [socket for socket in net.unix_sockets if socket not in embryos]
    flying: dict[UnixSocket, int] = {}
    for socket in sockets:
        for other in passed_sockets(socket):
            flying[other] = flying.get(other, 0) + 1
    candidates = {socket for socket, count in flying.items() if socket.refs == count}
    if not candidates:
        return
    # what somebody outside can receive stays, and what can be received from that
    reachable = [socket for socket in sockets if socket not in candidates]
    while reachable:
        for other in passed_sockets(reachable.pop()):
            if other in candidates:
                candidates.discard(other)
                reachable.append(other)
    for socket in candidates:
        socket.incref()
    for socket in candidates:
        for inbox_owner in (socket, *socket.embryos()):
            drain(inbox_owner)
    for socket in candidates:
        socket.decref()


def passed_sockets(socket: UnixSocket) -> Iterator[UnixSocket]:
    """AF_UNIX sockets on their way to `socket`, or to connections that it has yet to accept."""
    from pysandbox_core.net.unix import UnixSocket

    for owner in (socket, *socket.embryos()):
        for segment in owner.inbox:
            for file in segment.files:
                if isinstance(file, UnixSocket):
                    yield file
