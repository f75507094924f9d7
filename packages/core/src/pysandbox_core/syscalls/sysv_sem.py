"""semget(2), semop(2), semtimedop(2), semctl(2)"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ERANGE
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.time import read_timespec_ns
from pysandbox_core.declare import Int, Result, TimespecPtr, UInt, ULong, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.ipc.objects import IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, PERM, READ, WRITE
from pysandbox_core.ipc.semaphores import (
    SEMAEM,
    SEMMNI,
    SEMMNS,
    SEMMSL,
    SEMOPM,
    SEMVMX,
    Operation,
    SemaphoreSet,
    make_set,
    sets,
)
from pysandbox_core.syscalls.sysv_shm import seconds

if TYPE_CHECKING:
    from pysandbox_core.task import Task

GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL = 11, 12, 13, 14, 15, 16, 17
SEM_STAT, SEM_INFO, SEM_STAT_ANY = 18, 19, 20

SEMBUF = Struct("<Hhh")
SEMID_DS = Struct("<q8xq8xQ16x")
"""struct semid64_ds after its perm: otime, ctime, nsems."""
SEMINFO = Struct("<10i")
"""struct seminfo: semmap, mni, mns, mnu, msl, opm, ume, usz, vmx, aem."""
SEMUSZ = 20


@syscall("semget")
def semget(task: Task, key: Int, nsems: Int, semflg: Int) -> Result:
    """The id of the set of `key`, made if need be. semget(2)

    Errors: EINVAL nsems; ENOENT, EEXIST; EACCES; ENOSPC.
    """
    if not 0 <= nsems <= SEMMSL:
        raise LinuxError(EINVAL)

    def check(found: SemaphoreSet) -> None:
        if nsems > len(found.semaphores):
            raise LinuxError(EINVAL)

    return sets(task.kernel).get(
        task, key, semflg, lambda: make_set(task, key, nsems, semflg, seconds(task)), check
    )


@syscall("semop")
def semop(task: Task, semid: Int, sops: UserAddr, nsops: UInt) -> Result:
    """Do operations as one, waiting if need be. semop(2)

    Errors, first match wins: EINVAL no operations, id; E2BIG; EFAULT; EFBIG; EACCES; ERANGE;
    EAGAIN; EIDRM; EINTR.
    """
    return _operate(task, semid, sops, nsops, 0)


@syscall("semtimedop")
def semtimedop(task: Task, semid: Int, sops: UserAddr, nsops: UInt, timeout: TimespecPtr) -> Result:
    """semop with a limit on the time it waits: EAGAIN. semtimedop(2)"""
    return _operate(task, semid, sops, nsops, timeout)


def _operate(task: Task, semid: int, sops: int, nsops: int, timeout: int) -> int:
    if nsops < 1 or semid < 0:
        raise LinuxError(EINVAL)
    if nsops > SEMOPM:
        raise LinuxError(E2BIG)
    deadline_ns = None
    wait_ns = read_timespec_ns(task.mm, timeout) if timeout else None
    data = task.mm.read(sops, nsops * SEMBUF.size)
    if wait_ns is not None:
        deadline_ns = task.kernel.clocks.monotonic_ns() + wait_ns
    operations = [Operation(*fields) for fields in SEMBUF.iter_unpack(data)]
    sets(task.kernel).find(semid).operate(task, operations, deadline_ns)
    return 0


@syscall("semctl")
def semctl(task: Task, semid: Int, semnum: Int, cmd: Int, arg: ULong) -> Result:
    """Ask or tell about semaphores. semctl(2)

    Errors: EINVAL id, number, command; EACCES; EPERM not the owner; ERANGE; EFAULT.
    """
    if semid < 0:
        raise LinuxError(EINVAL)
    table = sets(task.kernel)
    if cmd in (IPC_INFO, SEM_INFO):
        return _info(task, cmd, arg)
    if cmd in (IPC_STAT, SEM_STAT, SEM_STAT_ANY):
        target = table.find(semid) if cmd == IPC_STAT else table.at(semid)
        if cmd != SEM_STAT_ANY:
            target.require(task.creds, READ)
        status = SEMID_DS.pack(target.otime, target.ctime, len(target.semaphores))
        task.mm.write(arg, target.perm() + status)
        return 0 if cmd == IPC_STAT else target.id
    if cmd in (IPC_SET, IPC_RMID):
        data = task.mm.read(arg, PERM.size) if cmd == IPC_SET else b""
        target = table.find(semid)
        target.require_owner(task.creds)
        if cmd == IPC_SET:
            target.set_perm(data, seconds(task))
        else:
            table.remove(target)
            target.queue.wake()
        return 0
    if cmd in (GETALL, SETALL):
        return _all(task, table.find(semid), cmd, arg)
    if cmd in (GETPID, GETVAL, GETNCNT, GETZCNT, SETVAL):
        return _one(task, table.find(semid), semnum, cmd, arg)
    raise LinuxError(EINVAL)


def _info(task: Task, cmd: int, arg: int) -> int:
    table = sets(task.kernel)
    usz, aem = SEMUSZ, SEMAEM
    if cmd == SEM_INFO:
        usz = len(table.by_index)
        aem = sum(len(target.semaphores) for target in table.by_index.values())
    data = SEMINFO.pack(SEMMNS, SEMMNI, SEMMNS, SEMMNS, SEMMSL, SEMOPM, SEMOPM, usz, SEMVMX, aem)
    task.mm.write(arg, data)
    return table.max_index()


def _all(task: Task, target: SemaphoreSet, cmd: int, arg: int) -> int:
    """Every value at once, as an array of unsigned short."""
    values = Struct(f"<{len(target.semaphores)}H")
    target.require(task.creds, READ if cmd == GETALL else WRITE)
    if cmd == GETALL:
        task.mm.write(arg, values.pack(*(semaphore.value for semaphore in target.semaphores)))
    else:
        target.set_values(task, 0, values.unpack(task.mm.read(arg, values.size)))
    return 0


def _one(task: Task, target: SemaphoreSet, semnum: int, cmd: int, arg: int) -> int:
    if cmd == SETVAL:
        value = (arg & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
        if not 0 <= value <= SEMVMX:
            raise LinuxError(ERANGE)
    target.require(task.creds, WRITE if cmd == SETVAL else READ)
    if not 0 <= semnum < len(target.semaphores):
        raise LinuxError(EINVAL)
    semaphore = target.semaphores[semnum]
    if cmd == SETVAL:
        target.set_values(task, semnum, (value,))
        return 0
    return {
        GETPID: semaphore.pid,
        GETVAL: semaphore.value,
        GETNCNT: semaphore.waiting_up,
        GETZCNT: semaphore.waiting_zero,
    }[cmd]
