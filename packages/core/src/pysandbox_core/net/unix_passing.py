"""Files that are passed through AF_UNIX sockets: SCM_RIGHTS. unix(7)

Linux: net/unix/scm.c, garbage.c.

A file in a message holds one reference. Sockets can be passed through each other until nothing but
messages refers to them: such circles would live for ever. `collect` finds them, whenever a socket
is closed while files are in flight: what is only referred to by messages, in inboxes that can only
be reached through such messages, is dropped.
"""

from __future__ import annotations

from errno import EINVAL, ETOOMANYREFS
from typing import TYPE_CHECKING

from pysandbox_core.abi.socket import SCM_MAX_FD
from pysandbox_core.credentials import CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from pysandbox_core.errors import LinuxError
from pysandbox_core.net.network import network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.net.network import Network
    from pysandbox_core.net.unix import Segment, UnixSocket
    from pysandbox_core.task import Task


def send_files(task: Task, files: list[FileDescription]) -> None:
    """Count `files`, which `task` sends, as in flight.

    Errors: EINVAL too many in one message; ETOOMANYREFS more of the user's than RLIMIT_NOFILE.
    """
    if len(files) > SCM_MAX_FD:
        raise LinuxError(EINVAL)
    net = network(task.kernel)
    uid = task.creds.uid
    limit = task.group.limits.nofile
    privileged = task.creds.capable(CAP_SYS_RESOURCE) or task.creds.capable(CAP_SYS_ADMIN)
    if net.in_flight.get(uid, 0) > limit:
        collect(net)
        if net.in_flight.get(uid, 0) > limit and not privileged:
            raise LinuxError(ETOOMANYREFS)
    net.in_flight[uid] = net.in_flight.get(uid, 0) + len(files)


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
    while socket.inbox:
        segment = socket.inbox.popleft()
        segment.sender.discharge(segment)
        for file in landed(net, segment):
            file.decref()


def collect(net: Network) -> None:
    """Drop circles of sockets that only messages refer to. Linux: unix_gc()"""
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
