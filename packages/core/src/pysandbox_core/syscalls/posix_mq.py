"""mq_open(2) and the other calls of POSIX message queues. mq_overview(7)"""

from __future__ import annotations

import os
from errno import EBADF, EBUSY, EINVAL
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.signal import NSIG
from pysandbox_core.abi.time import CLOCK_REALTIME, read_timespec_ns
from pysandbox_core.declare import (
    Fd,
    Mode,
    OpenFlags,
    Result,
    Size,
    TimespecPtr,
    UInt,
    UserAddr,
    UserString,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FMODE_READ, FMODE_WRITE
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.ipc.posix_queues import QueueFile

MQ_ATTR = Struct("<qqqq32x")
"""struct mq_attr: mq_flags, mq_maxmsg, mq_msgsize, mq_curmsgs."""
SIGEVENT = Struct("<Qiii44x")
"""struct sigevent: sigev_value, sigev_signo, sigev_notify, sigev_notify_thread_id."""
SIGEV_SIGNAL = 0
SIGEV_NONE = 1
SIGEV_THREAD = 2
PATH_MAX = 4096
PRIO_MAX = 32768


def queue_file(task: Task, mqdes: int, mode: int = 0) -> QueueFile:
    """EBADF unless `mqdes` is an open queue, open for `mode`."""
    from pysandbox_core.ipc.posix_queues import QueueFile

    file = task.files.get(mqdes)
    if not isinstance(file, QueueFile) or mode & ~file.mode:
        raise LinuxError(EBADF)
    return file


@syscall("mq_open", note="the names lie in no file system: /dev/mqueue can't be mounted")
def mq_open(task: Task, name: UserString, oflag: OpenFlags, mode: Mode, attr: UserAddr) -> Result:
    """Open a queue, and make it with O_CREAT. mq_open(3)

    Errors: EFAULT; EACCES, ENOENT, ENAMETOOLONG name; EEXIST; EINVAL sizes; ENOSPC; EMFILE.
    """
    from pysandbox_core.ipc.posix_queues import queues

    sizes = None
    if attr:
        _, maxmsg, msgsize, _ = task.mm.unpack(attr, MQ_ATTR)
        sizes = maxmsg, msgsize
    text = task.mm.read_cstring(name, PATH_MAX)
    task.files.allocate(task.group.limits.nofile)
    file = queues(task.kernel).open(task, text, oflag, mode, sizes)
    return task.files.install(task, file, cloexec=True)


@syscall("mq_unlink")
def mq_unlink(task: Task, name: UserString) -> Result:
    """Remove a queue's name; it is gone once nobody has it open. mq_unlink(3)"""
    from pysandbox_core.ipc.posix_queues import queues

    queues(task.kernel).unlink(task, task.mm.read_cstring(name, PATH_MAX))
    return 0


def read_deadline(task: Task, timeout: int) -> int | None:
    """A struct timespec of CLOCK_REALTIME as a deadline. EFAULT, EINVAL"""
    if not timeout:
        return None
    until_ns = read_timespec_ns(task.mm, timeout)
    return task.kernel.clocks.monotonic_deadline(CLOCK_REALTIME, until_ns)


@syscall("mq_timedsend")
def mq_timedsend(
    task: Task, mqdes: Fd, msg: UserAddr, size: Size, priority: UInt, timeout: TimespecPtr
) -> Result:
    """Add a message; blocks while the queue is full. mq_send(3)

    Errors: EINVAL, EFAULT timeout; EINVAL priority; EBADF; EMSGSIZE; EFAULT; EAGAIN; ETIMEDOUT.
    """
    deadline_ns = read_deadline(task, timeout)
    if priority >= PRIO_MAX:
        raise LinuxError(EINVAL)
    file = queue_file(task, mqdes, FMODE_WRITE)
    data = task.mm.read(msg, min(size, file.posix_queue.msgsize + 1)) if size else b""
    file.send(task, data, priority, deadline_ns)
    return 0


@syscall("mq_timedreceive")
def mq_timedreceive(
    task: Task, mqdes: Fd, msg: UserAddr, size: Size, priority: UserAddr, timeout: TimespecPtr
) -> Result:
    """Take the oldest message of the highest priority; its length. mq_receive(3)"""
    deadline_ns = read_deadline(task, timeout)
    file = queue_file(task, mqdes, FMODE_READ)
    data, value = file.receive(task, size, deadline_ns)
    if priority:
        task.mm.write_u32(priority, value)
    if data:
        task.mm.write(msg, data)
    return len(data)


@syscall("mq_notify")
def mq_notify(task: Task, mqdes: Fd, sevp: UserAddr) -> Result:
    """Be told, once, when a message comes to the empty queue; without `sevp` no longer.
    mq_notify(3)

    Errors: EFAULT; EINVAL; EBADF; EBUSY somebody is registered.
    """
    from pysandbox_core.ipc.posix_queues import NOTIFY_COOKIE_LEN, Notification
    from pysandbox_core.net.netlink import NetlinkSocket

    notification = None
    if sevp:
        value, signo, notify, _ = task.mm.unpack(sevp, SIGEVENT)
        if notify not in (SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD):
            raise LinuxError(EINVAL)
        if notify == SIGEV_SIGNAL and not 0 < signo <= NSIG:
            raise LinuxError(EINVAL)
        notification = Notification(task.group)
        notification.value = value
        if notify == SIGEV_SIGNAL:
            notification.signo = signo
        elif notify == SIGEV_THREAD:
            notification.cookie = task.mm.read(value, NOTIFY_COOKIE_LEN)
            socket = task.files.get(signo)
            if not isinstance(socket, NetlinkSocket):
                raise LinuxError(EINVAL)
            notification.socket = socket
    queue = queue_file(task, mqdes).posix_queue
    current = queue.notification
    if notification is None:
        if current is not None and current.group is task.group:
            queue.notification = None
            current.remove()
        return 0
    if current is not None:
        raise LinuxError(EBUSY)
    if notification.socket is not None:
        notification.socket.incref()
    queue.notification = notification
    return 0


@syscall("mq_getsetattr")
def mq_getsetattr(task: Task, mqdes: Fd, newattr: UserAddr, oldattr: UserAddr) -> Result:
    """Tell a queue's attributes; set O_NONBLOCK of the description. mq_getattr(3)

    Errors: EFAULT; EINVAL any other flag; EBADF.
    """
    flags = None
    if newattr:
        flags = task.mm.unpack(newattr, MQ_ATTR)[0]
        if flags & ~os.O_NONBLOCK:
            raise LinuxError(EINVAL)
    file = queue_file(task, mqdes)
    queue = file.posix_queue
    old = MQ_ATTR.pack(file.flags & os.O_NONBLOCK, queue.maxmsg, queue.msgsize, len(queue.heap))
    if flags is not None:
        file.flags = file.flags & ~os.O_NONBLOCK | flags
    if oldattr:
        task.mm.write(oldattr, old)
    return 0
