"""The ptrace platform passes the conformance kit."""

from __future__ import annotations

import os
import signal

from pysandbox_platform.conformance import ConformanceSuite
from pysandbox_platform.interface import Context
from pysandbox_ptrace.platform import PtraceContext, PtracePlatform


class TestConformance(ConformanceSuite):
    platform_class = PtracePlatform

    def kill(self, context: Context) -> None:
        assert isinstance(context, PtraceContext)
        os.kill(context.stub_tid, signal.SIGKILL)
