"""Ending threads and processes: exit(2), exit_group(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core import task_exit
from pysandbox_core.declare import Int, Result, syscall

if TYPE_CHECKING:
    from pysandbox_core.task import Task


@syscall("exit")
def exit_(task: Task, status: Int) -> Result:
    """End the calling thread. exit(2)"""
    task_exit.request_exit(task, task_exit.status_of_exit(status))
    return None


@syscall("exit_group")
def exit_group(task: Task, status: Int) -> Result:
    """End every thread of the process. exit_group(2)"""
    task_exit.start_group_exit(task.group, task_exit.status_of_exit(status))
    return None
