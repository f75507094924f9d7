"""msgget(2), msgsnd(2), msgrcv(2), msgctl(2)"""

from __future__ import annotations

from errno import EINVAL, ENOSYS, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.credentials import CAP_SYS_RESOURCE
from pysandbox_core.declare import Int, Long, Result, Size, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.ipc.message_queues import (
    MSG_COPY,
    MSG_EXCEPT,
    MSGMAX,
    MSGMNB,
    MSGMNI,
    Message,
    MessageQueue,
    queues,
)
from pysandbox_core.ipc.objects import (
    IPC_INFO,
    IPC_NOWAIT,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    PERM,
    READ,
)
from pysandbox_core.syscalls.sysv_shm import seconds

if TYPE_CHECKING:
    from pysandbox_core.task import Task

MSG_STAT, MSG_INFO, MSG_STAT_ANY = 11, 12, 13
MSQID_DS = Struct("<qqqQQQii16x")
"""struct msqid64_ds after its perm: stime, rtime, ctime, cbytes, qnum, qbytes, lspid, lrpid."""
MSGINFO = Struct("<7iHxx")
"""struct msginfo: msgpool, msgmap, msgmax, msgmnb, msgmni, msgssz, msgtql, msgseg."""
MSGSSZ, MSGSEG = 16, 0xFFFF
_SSIZE_MAX = (1 << 63) - 1


@syscall("msgget")
def msgget(task: Task, key: Int, msgflg: Int) -> Result:
    """The id of the queue of `key`, made if need be. ENOENT, EEXIST, EACCES, ENOSPC. msgget(2)"""
    return queues(task.kernel).get(
        task, key, msgflg, lambda: MessageQueue(task, key, msgflg, seconds(task)), lambda _: None
    )


@syscall("msgsnd")
def msgsnd(task: Task, msqid: Int, msgp: UserAddr, msgsz: Size, msgflg: Int) -> Result:
    """Send a message: its type, a long, and `msgsz` bytes. msgop(2)

    Errors, first match wins: EFAULT type; EINVAL size, id, type; EFAULT text; EINVAL; EACCES;
    EAGAIN; EIDRM; EINTR.
    """
    kind = task.mm.read_s64(msgp)
    if msgsz > MSGMAX or msqid < 0 or kind < 1:
        raise LinuxError(EINVAL)
    text = task.mm.read(msgp + 8, msgsz) if msgsz else b""
    queues(task.kernel).find(msqid).send(task, Message(kind, text), msgflg)
    return 0


@syscall("msgrcv", note="without MSG_COPY, as where CONFIG_CHECKPOINT_RESTORE is not set")
def msgrcv(
    task: Task, msqid: Int, msgp: UserAddr, msgsz: Size, msgtyp: Long, msgflg: Int
) -> Result:
    """Receive a message; the length of its text. msgop(2)

    Errors: EINVAL size, id; EACCES; E2BIG; ENOMSG; EIDRM; EINTR; EFAULT, the message is lost then.
    """
    if msqid < 0 or msgsz > _SSIZE_MAX:
        raise LinuxError(EINVAL)
    if msgflg & MSG_COPY:
        raise LinuxError(EINVAL if msgflg & MSG_EXCEPT or not msgflg & IPC_NOWAIT else ENOSYS)
    message = queues(task.kernel).find(msqid).take(task, msgsz, msgtyp, msgflg)
    task.mm.write(msgp, message.kind.to_bytes(8, "little") + message.text)
    return len(message.text)


@syscall("msgctl")
def msgctl(task: Task, msqid: Int, cmd: Int, buf: UserAddr) -> Result:
    """Ask or tell about queues. msgctl(2)

    Errors: EINVAL id, command; EACCES; EPERM not the owner, or a larger limit; EFAULT.
    """
    if msqid < 0 or cmd < 0:
        raise LinuxError(EINVAL)
    table = queues(task.kernel)
    if cmd in (IPC_INFO, MSG_INFO):
        return _info(task, cmd, buf)
    if cmd in (IPC_STAT, MSG_STAT, MSG_STAT_ANY):
        queue = table.find(msqid) if cmd == IPC_STAT else table.at(msqid)
        if cmd != MSG_STAT_ANY:
            queue.require(task.creds, READ)
        status = MSQID_DS.pack(
            queue.stime, queue.rtime, queue.ctime, queue.bytes, len(queue.messages), queue.limit,
            queue.lspid, queue.lrpid,
        )  # fmt: skip
        task.mm.write(buf, queue.perm() + status)
        return 0 if cmd == IPC_STAT else queue.id
    if cmd == IPC_RMID:
        queue = table.find(msqid)
        queue.require_owner(task.creds)
        table.remove(queue)
        queue.senders.wake()
        queue.receivers.wake()
        return 0
    if cmd == IPC_SET:
        return _set(task, msqid, task.mm.read(buf, PERM.size + MSQID_DS.size))
    raise LinuxError(EINVAL)


def _set(task: Task, msqid: int, data: bytes) -> int:
    queue = queues(task.kernel).find(msqid)
    queue.require_owner(task.creds)
    limit = MSQID_DS.unpack(data[PERM.size :])[5]
    if limit > MSGMNB and not task.creds.capable(CAP_SYS_RESOURCE):
        raise LinuxError(EPERM)
    queue.set_perm(data[: PERM.size], seconds(task))
    queue.limit = limit
    queue.receivers.wake()
    queue.senders.wake()
    return 0


def _info(task: Task, cmd: int, buf: int) -> int:
    table = queues(task.kernel)
    pool, entries, total = MSGMNI * MSGMNB // 1024, MSGMNB, MSGMNB
    if cmd == MSG_INFO:
        present = table.by_index.values()
        pool = len(table.by_index)
        entries = sum(len(queue.messages) for queue in present)
        total = sum(queue.bytes for queue in present)
    info = MSGINFO.pack(pool, entries, MSGMAX, MSGMNB, MSGMNI, MSGSSZ, total, MSGSEG)
    task.mm.write(buf, info)
    return table.max_index()
