"""poll(2), ppoll(2), select(2), pselect6(2).

Linux: fs/select.c.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from errno import EBADF, EINVAL
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
    wanted: list[tuple[int, int, FileDescription]] = []
    answers: dict[int, int] = {}
    for index, (fd, events, _) in enumerate(POLLFD.iter_unpack(data)):
        if fd >= 0:
            try:
                wanted.append((index, events | POLLERR | POLLHUP, task.files.get(fd)))
            except LinuxError:
                answers[index] = POLLNVAL
    try:
        found = wait_for_any(task, wanted, bool(answers), deadline_ns, restart)
    except Interrupted:
        if restart == ERESTART_RESTARTBLOCK:
            task.restart_block = lambda task: poll_until(task, fds, nfds, deadline_ns, restart)
        raise
    answers.update(found)
    for index, (_, _, revents) in enumerate(POLLFD.iter_unpack(data)):
        answer = answers.get(index, 0)
        if answer != revents or not index:  # one always, so that read-only memory is EFAULT
            mm.write(fds + index * POLLFD.size + 6, answer.to_bytes(2, "little"))
    return len(answers)


def wait_for_any(
    task: Task,
    wanted: list[tuple[int, int, FileDescription]],
    at_once: bool,
    deadline_ns: int | None,
    restart: int,
) -> dict[int, int]:
    """Wait until one of `wanted` (key, events, file) is ready: the true events by key. Looks just
    once if `at_once` or if `deadline_ns` is 0. Interrupted, with what `restart` says."""
    found = look(wanted)
    if found or at_once or deadline_ns == 0:
        return found
    queues = [file.queue for _, _, file in wanted]
    for _, _, file in wanted:
        file.incref()
    try:
        while not found and task.block(queues, deadline_ns, restart):
            found = look(wanted)
        if not found:
            assert deadline_ns is not None
            task.kernel.clocks.catch_up(deadline_ns)
            found = look(wanted)
    finally:
        for _, _, file in wanted:
            file.decref()
    return found


def look(wanted: list[tuple[int, int, FileDescription]]) -> dict[int, int]:
    """What is ready now."""
    found = {}
    for key, events, file in wanted:
        true_events = file.poll() & events
        if true_events:
            found[key] = true_events
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
    valid = (1 << nfds) - 1
    sets = [
        int.from_bytes(task.mm.read(addr, size), "little") & valid if addr and size else 0
        for addr in addrs
    ]
    wanted = []
    fds = sets[0] | sets[1] | sets[2]
    while fds:
        bit = fds & -fds
        fds ^= bit
        events = 0
        for bits, meaning in zip(sets, meanings, strict=True):
            if bits & bit:
                events |= meaning
        fd = bit.bit_length() - 1
        try:
            wanted.append((fd, events, task.files.get(fd)))
        except LinuxError:
            raise LinuxError(EBADF) from None
    found = wait_for_any(task, wanted, False, deadline_ns, ERESTARTNOHAND)
    count = 0
    for addr, bits, meaning in zip(addrs, sets, meanings, strict=True):
        ready = 0
        for fd, events in found.items():
            if events & meaning:
                ready |= bits & 1 << fd
        count += ready.bit_count()
        if addr and size:
            task.mm.write(addr, ready.to_bytes(size, "little"))
    return count
