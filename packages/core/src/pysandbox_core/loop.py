"""The kernel loop: stop, decode, handler, resume. The hot path, and nothing else.

Interface: `run(kernel)` is the body of every loop greenlet. One of them runs at a time, whichever
it is carries the whole kernel; the others are handlers that wait (`Kernel.park`) or spare loops. No
state of the loop lives in its locals across a call that may park, so that any of them can go on
where another one stopped.

Waiting costs a greenlet switch and the common call nothing: handlers are called straight from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform import STOP_SYSCALL
from pysandbox_platform.registers_amd64 import ORIG_RAX, RAX

from pysandbox_core.declare import TABLE_SIZE
from pysandbox_core.errors import LinuxError
from pysandbox_core.task_run import blame, finish_failed_syscall, handle_stop, return_to_user

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel


def run(kernel: Kernel) -> None:
    """Serve stops until the kernel is to stop."""
    ready = kernel.ready
    next_stop = kernel.next_stop
    while not kernel.stopping:
        if ready:
            task = ready.popleft()
            task.ready = False
            if task.parked is not None:
                kernel.unpark(task)  # comes back when some task parks and this loop is spare again
                continue
        else:
            context = next_stop()
            if context is None:
                continue
            task = context.owner  # type: ignore[assignment]  # Task.__init__ set it
            task.running = False
            if context.stop == STOP_SYSCALL:
                regs = task.regs
                number = regs[ORIG_RAX]
                task.syscall_number = number
                try:
                    result = kernel.table[number if number < TABLE_SIZE else TABLE_SIZE](task, regs)
                    if result is not None:
                        regs[RAX] = result
                except LinuxError as error:
                    finish_failed_syscall(task, error)
                except Exception as error:
                    blame(task, error)
                    raise
            else:
                handle_stop(task, context)
        if task.work:
            return_to_user(task)
        else:
            task.running = True
            kernel.running += 1
            task.context.resume(task.mm.address_space)
