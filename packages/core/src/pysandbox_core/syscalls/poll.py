"""poll(2), ppoll(2), select(2), pselect6(2).

Linux: fs/select.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EINVAL
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core import task_signals
from pysandbox_core.abi.time import (
    KTIME_MAX,
    NSEC_PER_SEC,
    NSEC_PER_USEC,
    TIMEVAL,
    USEC_PER_SEC,
    read_timespec_ns,
    write_timespec_ns,
    write_timeval_ns,
)
from pysandbox_core.declare import (
    Int,
    Result,
    SigsetPtr,
    Size,
    TimespecPtr,
    TimevalPtr,
    UInt,
    UserAddr,
    syscall,
)
from pysandbox_core.errors import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    Interrupted,
    LinuxError,
)
from pysandbox_core.task import Task
from pysandbox_core.waiting import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
    Turn,
)

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription

POLLFD = Struct("<iHH")
"""struct pollfd: fd, events, revents."""
SIGSET_SIZE = 8
SIGMASK_ARGUMENT = Struct("<QQ")
"""pselect6's last argument: address and size of the mask."""

# fs/select.c: what makes a descriptor readable, writable, exceptional to select(2).
SELECT_IN = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR | POLLNVAL
SELECT_OUT = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR | POLLNVAL
SELECT_EXCEPT = POLLPRI | POLLNVAL
PIECE = 1 << 14
"""Descriptors after which a call that has more lets others have their turn."""
MIN_FD_TABLE = 64
"""Linux's table is never smaller (NR_OPEN_DEFAULT); select(2) ignores what lies beyond it."""


@syscall("poll")
def poll(task: Task, fds: UserAddr, nfds: UInt, timeout_ms: Int) -> Result:
    """Wait until one of the descriptors is ready; how many are. poll(2)

    Errors: EINVAL more than RLIMIT_NOFILE; EFAULT; EINTR.
    """
    deadline_ns = None
    if timeout_ms > 0:
        deadline_ns = task.kernel.clocks.monotonic_ns() + timeout_ms * 1_000_000
    elif timeout_ms == 0:
        deadline_ns = 0
    return poll_until(task, fds, nfds, deadline_ns, ERESTART_RESTARTBLOCK)


@syscall("ppoll")
def ppoll(
    task: Task,
    fds: UserAddr,
    nfds: UInt,
    timeout: TimespecPtr,
    sigmask: SigsetPtr,
    sigsetsize: Size,
) -> Result:
    """poll(2) with another signal mask meanwhile; what is left of the time goes to `timeout`."""
    deadline_ns = None
    if timeout:
        deadline_ns = deadline_after(task, read_timespec_ns(task.mm, timeout))
    swap_sigmask(task, sigmask, sigsetsize)
    try:
        return poll_until(task, fds, nfds, deadline_ns, ERESTARTNOHAND)
    finally:
        if deadline_ns is not None:
            write_left(task, deadline_ns, timeout, write_timespec_ns)


def deadline_after(task: Task, timeout_ns: int) -> int:
    """`timeout_ns` from now on the monotonic clock; 0, which has long passed, for no time at
    all."""
    if not timeout_ns:
        return 0
    return min(task.kernel.clocks.monotonic_ns() + timeout_ns, KTIME_MAX)


def swap_sigmask(task: Task, sigmask: int, sigsetsize: int) -> None:
    """Use the mask at `sigmask` for this call, if there is one. EINVAL, EFAULT"""
    if sigmask:
        if sigsetsize != SIGSET_SIZE:
            raise LinuxError(EINVAL)
        task_signals.set_temporary_sigmask(task, task.mm.read_u64(sigmask))


def write_left(task: Task, deadline_ns: int, addr: int, write: Callable[..., None]) -> None:
    """Tell the program what is left of its timeout; memory that can't be written is no error."""
    left_ns = max(deadline_ns - task.kernel.clocks.monotonic_ns(), 0) if deadline_ns else 0
    with suppress(LinuxError):
        write(task.mm, addr, left_ns)


def poll_until(task: Task, fds: int, nfds: int, deadline_ns: int | None, restart: int) -> int:
    """poll(2) with a point in time for its end: None for never, 0 for now."""
    if nfds > task.group.limits.nofile:
        raise LinuxError(EINVAL)
    mm = task.mm
    data = mm.read(fds, nfds * POLLFD.size) if nfds else b""
    turn = Turn(task) if nfds > PIECE else None
    wanted = Wanted()
    answers: dict[int, int] = {}
    try:
        for index, (fd, events, _) in enumerate(POLLFD.iter_unpack(data)):
            if turn is not None and not index % PIECE:
                turn.goes_on()
            if fd >= 0:
                try:
                    wanted.add(task.files.get(fd), index, events | POLLERR | POLLHUP)
                except LinuxError:
                    answers[index] = POLLNVAL
        found = wait_for_any(task, wanted, bool(answers), deadline_ns, restart)
    except Interrupted:
        if restart == ERESTART_RESTARTBLOCK:
            task.restart_block = lambda task: poll_until(task, fds, nfds, deadline_ns, restart)
        raise
    finally:
        wanted.release()
    answers.update(found)
    for index, (_, _, revents) in enumerate(POLLFD.iter_unpack(data)):
        if turn is not None and not index % PIECE:
            turn.goes_on()
        answer = answers.get(index, 0)
        if answer != revents or not index:  # one always, so that read-only memory is EFAULT
            mm.write(fds + index * POLLFD.size + 6, answer.to_bytes(2, "little"))
    return len(answers)


class Wanted:
    """What a call waits for: for each file, which events under which keys. A million descriptors
    may be of one file, which is looked at once. Has a reference on each file until `release`."""

    __slots__ = ("files",)

    def __init__(self) -> None:
        self.files: dict[FileDescription, list[tuple[int, int]]] = {}

    def add(self, file: FileDescription, key: int, events: int) -> None:
        """Tell under `key` which of `events` are true of `file`."""
        entries = self.files.get(file)
        if entries is None:
            self.files[file.incref()] = [(key, events)]
        else:
            entries.append((key, events))

    def look(self) -> dict[int, int]:
        """What is ready now: the true events by key."""
        found = {}
        for file, entries in self.files.items():
            true_events = file.poll()
            if true_events:
                for key, events in entries:
                    if true_events & events:
                        found[key] = true_events & events
        return found

    def release(self) -> None:
        for file in self.files:
            file.decref()


def wait_for_any(
    task: Task, wanted: Wanted, at_once: bool, deadline_ns: int | None, restart: int
) -> dict[int, int]:
    """Wait until something of `wanted` is ready: what `look` finds. Looks just once if `at_once` or
    if `deadline_ns` is 0. Interrupted, with what `restart` says."""
    found = wanted.look()
    if found or at_once or deadline_ns == 0:
        return found
    queues = [file.queue for file in wanted.files]
    while not found and task.block(queues, deadline_ns, restart):
        found = wanted.look()
    if not found:
        assert deadline_ns is not None
        task.kernel.clocks.catch_up(deadline_ns)
        found = wanted.look()
    return found


@syscall("select")
def select(
    task: Task,
    nfds: Int,
    readfds: UserAddr,
    writefds: UserAddr,
    exceptfds: UserAddr,
    timeout: TimevalPtr,
) -> Result:
    """Wait until a descriptor of the sets is ready; how many bits are set. select(2)

    Errors: EFAULT; EINVAL; EBADF; EINTR. What is left of the time goes to `timeout`.
    """
    deadline_ns = None
    if timeout:
        sec, usec = task.mm.unpack(timeout, TIMEVAL)
        sec += usec // USEC_PER_SEC
        usec = usec % USEC_PER_SEC if usec >= 0 else usec
        if sec < 0 or usec < 0:
            raise LinuxError(EINVAL)
        deadline_ns = deadline_after(task, sec * NSEC_PER_SEC + usec * NSEC_PER_USEC)
    try:
        return select_until(task, nfds, (readfds, writefds, exceptfds), deadline_ns)
    finally:
        if deadline_ns is not None:
            write_left(task, deadline_ns, timeout, write_timeval_ns)


@syscall("pselect6")
def pselect6(
    task: Task,
    nfds: Int,
    readfds: UserAddr,
    writefds: UserAddr,
    exceptfds: UserAddr,
    timeout: TimespecPtr,
    sigmask: UserAddr,
) -> Result:
    """select(2) with another signal mask meanwhile. pselect6's `sigmask` is address and size of
    one."""
    mask, size = task.mm.unpack(sigmask, SIGMASK_ARGUMENT) if sigmask else (0, 0)
    deadline_ns = None
    if timeout:
        deadline_ns = deadline_after(task, read_timespec_ns(task.mm, timeout))
    swap_sigmask(task, mask, size)
    try:
        return select_until(task, nfds, (readfds, writefds, exceptfds), deadline_ns)
    finally:
        if deadline_ns is not None:
            write_left(task, deadline_ns, timeout, write_timespec_ns)


def select_until(
    task: Task, nfds: int, addrs: tuple[int, int, int], deadline_ns: int | None
) -> int:
    """select(2) on the sets at `addrs` (read, write, except; 0 for none)."""
    if nfds < 0:
        raise LinuxError(EINVAL)
    nfds = min(nfds, max(task.files.size, MIN_FD_TABLE))
    size = (nfds + 63) // 64 * 8
    meanings = (SELECT_IN, SELECT_OUT, SELECT_EXCEPT)
    sets = [task.mm.read(addr, size) if addr and size else bytes(size) for addr in addrs]
    turn = Turn(task) if nfds > PIECE else None
    wanted = Wanted()
    try:
        for fd, members in _members(sets, nfds):
            if turn is not None and not fd % PIECE:
                turn.goes_on()
            events = 0
            for is_member, meaning in zip(members, meanings, strict=True):
                if is_member:
                    events |= meaning
            wanted.add(task.files.get(fd), fd, events)
        found = wait_for_any(task, wanted, False, deadline_ns, ERESTARTNOHAND)
    finally:
        wanted.release()
    count = 0
    for addr, bits, meaning in zip(addrs, sets, meanings, strict=True):
        ready = bytearray(size)
        for fd, events in found.items():
            if events & meaning:
                ready[fd >> 3] |= bits[fd >> 3] & 1 << (fd & 7)
        count += int.from_bytes(ready, "little").bit_count()
        if addr and size:
            task.mm.write(addr, ready)
    return count


def _members(sets: list[bytes], nfds: int) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Each descriptor below `nfds` that is in one of three sets, and whether it is in each."""
    for index, (read, write, exceptional) in enumerate(zip(*sets, strict=True)):
        together = read | write | exceptional
        fd = 8 * index
        while together and fd < nfds:
            if together & 1:
                bit = 1 << (fd & 7)
                yield fd, (read & bit, write & bit, exceptional & bit)
            together >>= 1
            fd += 1
