"""struct msghdr and control messages, as sendmsg(2) and recvmsg(2) have them. cmsg(3)

Linux: net/socket.c (copy_msghdr_from_user), net/core/scm.c.
"""

from __future__ import annotations

from errno import EINVAL, ENOBUFS, EPERM, ESRCH
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.abi.socket import (
    CMSGHDR,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSGHDR,
    SCM_CREDENTIALS,
    SCM_MAX_FD,
    SCM_RIGHTS,
    SOCKADDR_STORAGE_SIZE,
    SOL_SOCKET,
    UCRED,
)
from pysandbox_core.credentials import CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from pysandbox_core.errors import LinuxError
from pysandbox_core.net.socket_file import Ancillary

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.net.socket_file import Received
    from pysandbox_core.task import Task

ALIGNMENT = 8
CONTROL_MAX = 20480
"""net.core.optmem_max: more control data than this is ENOBUFS."""
NAMELEN_OFFSET = 8
CONTROLLEN_OFFSET = 40
FLAGS_OFFSET = 48
INT = Struct("<i")


class MessageHeader(NamedTuple):
    """A struct msghdr, checked."""

    name: int
    namelen: int
    iov: int
    iovlen: int
    control: int
    controllen: int


def read_header(task: Task, addr: int) -> MessageHeader:
    """The struct msghdr at `addr`. EFAULT; EINVAL a negative msg_namelen."""
    name, namelen, iov, iovlen, control, controllen, _ = task.mm.unpack(addr, MSGHDR)
    if namelen < 0:
        raise LinuxError(EINVAL)
    if not name:
        namelen = 0
    return MessageHeader(
        name, min(namelen, SOCKADDR_STORAGE_SIZE), iov, iovlen, control, controllen
    )


def read_ancillary(task: Task, control: int, controllen: int) -> Ancillary | None:
    """What the control messages at `control` attach; its files have references of their own.

    Errors: ENOBUFS too long; EFAULT; EINVAL a bad header or level; EBADF; those of credentials.
    """
    if not controllen:
        return None
    if controllen > CONTROL_MAX:
        raise LinuxError(ENOBUFS)
    data = task.mm.read(control, controllen)
    ancillary = Ancillary()
    position = 0
    try:
        while position + CMSGHDR.size <= len(data):
            length, level, type_ = CMSGHDR.unpack_from(data, position)
            if length < CMSGHDR.size or length > len(data) - position:
                raise LinuxError(EINVAL)
            body = data[position + CMSGHDR.size : position + length]
            if level == SOL_SOCKET:
                add_control(task, ancillary, type_, body)
            position += (length + ALIGNMENT - 1) & -ALIGNMENT
    except LinuxError:
        ancillary.release()
        raise
    return ancillary


def add_control(task: Task, ancillary: Ancillary, type_: int, body: bytes) -> None:
    """One control message of level SOL_SOCKET. EINVAL any type but rights and credentials"""
    if type_ == SCM_RIGHTS:
        count = len(body) // INT.size
        if count + len(ancillary.files) > SCM_MAX_FD:
            raise LinuxError(EINVAL)
        for (fd,) in INT.iter_unpack(body[: count * INT.size]):
            ancillary.files.append(task.files.get_any(fd).incref())
    elif type_ == SCM_CREDENTIALS:
        if len(body) != UCRED.size:
            raise LinuxError(EINVAL)
        pid, uid, gid = UCRED.unpack(body)
        check_credentials(task, pid, uid, gid)
        ancillary.creds = (pid, uid, gid)
    else:
        raise LinuxError(EINVAL)


def check_credentials(task: Task, pid: int, uid: int, gid: int) -> None:
    """EPERM unless `task` may say that this is who it is. Linux: scm_check_creds(); ESRCH"""
    creds = task.creds
    if pid != task.group.pid and not creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    if uid not in (creds.uid, creds.euid, creds.suid) and not creds.capable(CAP_SETUID):
        raise LinuxError(EPERM)
    if gid not in (creds.gid, creds.egid, creds.sgid) and not creds.capable(CAP_SETGID):
        raise LinuxError(EPERM)
    if pid not in task.kernel.groups:
        raise LinuxError(ESRCH)


def write_received(
    task: Task, addr: int, header: MessageHeader, received: Received, flags: int, passcred: bool
) -> None:
    """Fill in the struct msghdr at `addr`, its name and control buffers. What does not fit is cut,
    and says so in msg_flags; files that do not fit are closed."""
    mm = task.mm
    out_flags = received.flags
    if header.name:
        mm.write(header.name, received.address[: header.namelen])
        mm.write(addr + NAMELEN_OFFSET, len(received.address).to_bytes(4, "little"))
    control = ControlWriter(task, header.control, header.controllen)
    for level, type_, data in received.control:
        control.put(level, type_, data)
    if passcred:
        control.put(SOL_SOCKET, SCM_CREDENTIALS, UCRED.pack(*(received.creds or (0, -1, -1))))
    if received.files:
        files, received.files = received.files, []
        control.put_files(files, bool(flags & MSG_CMSG_CLOEXEC))
    out_flags |= control.flags
    mm.write(addr + CONTROLLEN_OFFSET, control.used.to_bytes(8, "little"))
    mm.write(addr + FLAGS_OFFSET, out_flags.to_bytes(4, "little"))


class ControlWriter:
    """Fills a control buffer. Linux: put_cmsg(), scm_detach_fds()."""

    def __init__(self, task: Task, addr: int, room: int) -> None:
        self._task = task
        self._addr = addr
        self._room = room if addr else 0
        self.used = 0
        self.flags = 0

    def put(self, level: int, type_: int, data: bytes) -> None:
        """Append one message, cut to the room there is."""
        room = self._room
        if room < CMSGHDR.size:
            self.flags |= MSG_CTRUNC
            return
        length = CMSGHDR.size + len(data)
        if length > room:
            self.flags |= MSG_CTRUNC
            length = room
        body = CMSGHDR.pack(length, level, type_) + data[: length - CMSGHDR.size]
        self._task.mm.write(self._addr, body)
        self._advance(length)

    def _advance(self, length: int) -> None:
        space = min((length + ALIGNMENT - 1) & -ALIGNMENT, self._room)
        self._addr += space
        self._room -= space
        self.used += space

    def put_files(self, files: list[FileDescription], cloexec: bool) -> None:
        """Install `files`, whose references it takes over, and append their numbers."""
        task = self._task
        fits = max(self._room - CMSGHDR.size, 0) // INT.size
        fds: list[int] = []
        left = list(files)
        while left and len(fds) < fits:
            try:
                fds.append(task.files.install(task, left.pop(0), cloexec=cloexec))
            except LinuxError:
                break
        if left or len(fds) < len(files):
            self.flags |= MSG_CTRUNC
        for file in left:
            file.decref()
        if not fds:
            return
        length = CMSGHDR.size + len(fds) * INT.size
        header = CMSGHDR.pack(length, SOL_SOCKET, SCM_RIGHTS)
        try:
            task.mm.write(self._addr, header + b"".join(map(INT.pack, fds)))
        except LinuxError:  # no number is given out that the program can't be told
            for fd in fds:
                task.files.close(task, fd)
            self.flags |= MSG_CTRUNC
            return
        self._advance(length)
