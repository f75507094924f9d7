"""What a task asks of the scheduler: policy, priority, nice value, processors. sched(7)

The host's scheduler runs the contexts, and nothing of this reaches it: the values are kept, checked
and inherited as Linux does, so that programs which set them go on.
"""

from __future__ import annotations

import os

from pysandbox_core.abi.sched import SCHED_OTHER


class Scheduling:
    """One task's scheduling attributes. A new task gets a copy of its maker's."""

    __slots__ = ("affinity", "ioprio", "nice", "policy", "priority", "reset_on_fork")

    def __init__(self) -> None:
        self.policy = SCHED_OTHER
        self.priority = 0
        """1 to 99 for SCHED_FIFO and SCHED_RR, else 0."""
        self.nice = 0
        """-20 to 19."""
        self.reset_on_fork = False
        self.affinity = 0
        """The processors that it may run on, bit N for number N; 0 for all."""
        self.ioprio = 0

    def copy(self) -> Scheduling:
        """As a child gets it."""
        child = Scheduling()
        child.affinity, child.ioprio = self.affinity, self.ioprio
        if self.reset_on_fork:
            child.nice = max(self.nice, 0)
        else:
            child.policy, child.priority, child.nice = self.policy, self.priority, self.nice
        return child


PROCESSORS = tuple(sorted(os.sched_getaffinity(0)))
"""Numbers of the processors that the sandbox has: those that the host lets it use. Looked up on
import, before a platform moves the kernel thread."""
