"""Processor time in clock ticks, as proc shows it. All of it is user time, see accounting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core.accounting import (
    TICKS_PER_SECOND,
    group_cpu_time_ns,
    task_cpu_time_ns,
    ticks,
)

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task, ThreadGroup

HZ = TICKS_PER_SECOND
TICK_NS = 1_000_000_000 // HZ


def task_ticks(task: Task) -> int:
    """Ticks of processor time that a thread has used."""
    return ticks(task_cpu_time_ns(task))


def group_ticks(group: ThreadGroup) -> int:
    """Ticks that all threads of a process have used, those that are gone included."""
    return ticks(group_cpu_time_ns(group))


def busy_ticks(kernel: Kernel) -> int:
    """Ticks of everything that ever ran here: of children that were waited for, their parent
    knows."""
    return sum(
        ticks(group_cpu_time_ns(group) + group.children_cpu_ns)
        for group in tuple(kernel.groups.values())
    )


def start_ticks(kernel: Kernel, start_time_ns: int) -> int:
    """A moment of CLOCK_MONOTONIC in ticks since boot."""
    return max(0, start_time_ns - kernel.booted_ns) // TICK_NS
