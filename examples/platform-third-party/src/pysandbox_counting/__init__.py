"""An example of a platform that a third party publishes: ptrace's, with its stops counted.

The entry point in pyproject.toml is all that PySandbox needs to find it. Nothing here imports
PySandbox's kernel: a platform knows the interface alone.
"""

from __future__ import annotations

import json
import os

from pysandbox_platform import STOP_NAMES, STOP_NONE, Probe
from pysandbox_platform.native import NativeContext
from pysandbox_ptrace.platform import PtracePlatform

# The sentry that makes a platform is jailed: what it is to know from outside it reads when it is
# imported, and there are no files to write to.
REPORT = bool(os.environ.get("COUNTING_REPORT"))


class CountingPlatform(PtracePlatform):
    """Counts how often contexts gave control back, and why. If the environment variable
    COUNTING_REPORT is set, it says so on standard error at the end."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__()
        self.counts = [0] * len(STOP_NAMES)
        self._reported = False

    @classmethod
    def probe(cls) -> Probe:
        """As usable as what it builds on, but never the automatic choice before it."""
        found = super().probe()
        return Probe(
            found.usable, f"as ptrace, and counts stops ({found.reason})", 0, found.details
        )

    def wait(self, timeout_ns: int | None = None) -> NativeContext | None:
        context = super().wait(timeout_ns)
        if context is not None:
            self.counts[context.stop] += 1
        return context

    def close(self) -> None:
        super().close()
        if REPORT and not self._reported:
            self._reported = True
            counts = dict(zip(STOP_NAMES, self.counts, strict=True))
            del counts[STOP_NAMES[STOP_NONE]]
            os.write(2, json.dumps(counts, sort_keys=True).encode() + b"\n")
