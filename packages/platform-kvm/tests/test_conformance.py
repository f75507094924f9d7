"""The KVM platform passes the conformance kit."""

from __future__ import annotations

from pysandbox_kvm.platform import KvmPlatform
from pysandbox_platform.conformance import ConformanceSuite


class TestConformance(ConformanceSuite):
    platform_class = KvmPlatform
