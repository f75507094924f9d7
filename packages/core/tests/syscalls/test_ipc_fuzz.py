"""Sockets, pipes, timers, futexes and queues under random calls: every answer is a number or an
errno.

Whatever would block is interrupted at once, by a signal that is always pending.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from harness import BASE, SIZE, Harness
from pysandbox_core.declare import DECLARATIONS, KINDS, sign32, sign64
from pysandbox_core.errors import LinuxError
from pysandbox_core.syscalls import (  # noqa: F401  # declares what is called below
    epoll,
    eventfd,
    futex,
    pipe,
    poll,
    posix_mq,
    sockets,
    timerfd,
    timers,
)
from pysandbox_core.task import WORK_SIGNAL, Task

NAMES = [
    "socket",
    "socketpair",
    "bind",
    "connect",
    "listen",
    "accept4",
    "getsockname",
    "getpeername",
    "shutdown",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "sendmmsg",
    "recvmmsg",
    "setsockopt",
    "getsockopt",
    "pipe2",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait2",
    "eventfd2",
    "timerfd_create",
    "timerfd_settime",
    "timerfd_gettime",
    "timer_create",
    "timer_settime",
    "timer_gettime",
    "timer_delete",
    "setitimer",
    "getitimer",
    "alarm",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "futex",
    "futex_waitv",
    "mq_open",
    "mq_unlink",
    "mq_timedsend",
    "mq_timedreceive",
    "mq_notify",
    "mq_getsetattr",
    "clock_nanosleep",
    "nanosleep",
]
NUMBERS = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 17, 20, 28, 64, 127, 128, 129, 255, 256, 0x541B,
    0o4000, 0o2004000, 2048, 4096, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 47, (1 <<
    63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
CONVERT = {
    "s32": sign32,
    "u32": lambda value: value & 0xFFFFFFFF,
    "s64": sign64,
    "u64": int,
    "u16": lambda value: value & 0xFFFF,
}


def argument(choose: random.Random) -> int:
    """A number, a descriptor, or an address that is good, odd, at the end or bad."""
    kind = choose.randrange(4)
    if kind == 0:
        return choose.choice(NUMBERS)
    if kind == 1:
        return choose.randrange(24)
    if kind == 2:
        return BASE + 8 * choose.randrange(256)
    return choose.choice((0, 1, BASE + SIZE - choose.randrange(80), BASE + choose.randrange(4096)))


def fill(harness: Harness, choose: random.Random) -> None:
    """Memory full of small numbers, addresses of itself, and names of families."""
    for at in range(0, 2048, 8):
        word = choose.choice(
            (0, 1, 2, 10, 16, choose.randrange(24), BASE + 8 * choose.randrange(256))
        )
        if not choose.randrange(8):
            word = choose.getrandbits(64)
        harness.mm.write_u64(BASE + at, word)


@pytest.mark.parametrize("seed", range(12))
def test_every_answer_is_a_number_or_an_errno(seed: int) -> None:
    choose = random.Random(seed)
    harness = Harness()
    task = harness.task(uid=choose.choice((0, 1000)))
    task.fs = SimpleNamespace(umask=0o022)
    task.sigmask = -1
    by_name = {declaration.name: declaration for declaration in DECLARATIONS.values()}

    def calls(task: Task) -> None:
        for step in range(400):
            if step % 20 == 0:
                fill(harness, choose)
            declaration = by_name[choose.choice(NAMES)]
            arguments = [
                CONVERT[KINDS[kind]](argument(choose)) for _, kind in declaration.parameters
            ]
            task.work = WORK_SIGNAL
            try:
                result = declaration.handler(task, *arguments)
            except LinuxError as error:
                assert 0 < error.errno < 600, declaration.name
            else:
                assert result is None or 0 <= result < 1 << 63, (declaration.name, arguments)

    harness.call(calls, task)
    for fd, _ in tuple(task.files.open_fds()):
        task.files.close(task, fd)
    harness.close()
