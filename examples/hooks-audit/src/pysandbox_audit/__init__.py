"""An example of a hook plugin: an audit log, and rules that refuse or answer calls.

Environment variables of whoever runs the sandbox (the program sees none of them):

- AUDIT_LOG: the file that events are appended to, a JSON object a line.
- AUDIT_DENY: paths, separated by colons, that can't be opened.
- AUDIT_UID: what getuid(2) says, to show a call that the plugin answers itself.
"""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

from pysandbox_core.hooks import Answer, Refuse, Verdict, hookimpl

if TYPE_CHECKING:
    from pysandbox_core.declare import Declaration
    from pysandbox_core.task import Task


class Audit:
    """The plugin. It is made when the sentry imports it, which every sandbox does anew, and which
    is the time to open files and to look at the environment: afterwards the sentry is jailed."""

    def __init__(self) -> None:
        path = os.environ.get("AUDIT_LOG")
        self.log = None
        if path:
            self.log = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - for good
        self.denied = os.fsencode(os.environ.get("AUDIT_DENY", "")).split(b":")
        self.uid = os.environ.get("AUDIT_UID")

    def record(self, event: str, task: Task, **fields: object) -> None:
        """Append one event to the log."""
        if self.log:
            entry = {"event": event, "pid": task.group.pid, **fields}
            self.log.write(json.dumps(entry, sort_keys=True) + "\n")

    @hookimpl
    def task_start(self, task: Task) -> None:
        self.record("start", task)

    @hookimpl
    def task_exit(self, task: Task, status: int) -> None:
        self.record("exit", task, status=status)

    @hookimpl
    def file_open(self, task: Task, path: bytes) -> Refuse | None:
        self.record("open", task, path=path.decode(errors="backslashreplace"))
        return Refuse(errno.EACCES) if path in self.denied else None

    @hookimpl
    def connect(self, task: Task, address: tuple[str, bytes | str, int]) -> None:
        self.record("connect", task, address=str(address))

    @hookimpl
    def syscall_enter(self, declaration: Declaration) -> Verdict | None:
        if self.uid and declaration.name in ("getuid", "geteuid"):
            return Answer(int(self.uid))
        return None


plugin = Audit()
