"""The conformance kit: what every platform must pass, as a pytest suite.

A platform's package has one test file like this:

    from pysandbox_platform.conformance import ConformanceSuite
    from my_platform import MyPlatform

    class TestConformance(ConformanceSuite):
        platform_class = MyPlatform

Interface: `platform_class` must be set. A platform whose contexts can be killed from outside
overrides `kill`; see `kit.PlatformTests`. The programs are x86-64 machine code (`code_amd64`) and
need nothing of the host but the platform.

Importing this package needs pytest (`pip install pysandbox-platform-api[conformance]`).
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "constant_results",
            "kit",
            "memory",
            "stops",
            "state",
            "hostile",
            "events",
            "lifetime",
            "sanitized",
        )
    )
)

from pysandbox_platform.conformance.constant_results import ConstantResultTests  # noqa: E402
from pysandbox_platform.conformance.events import EventTests  # noqa: E402
from pysandbox_platform.conformance.hostile import HostileTests  # noqa: E402
from pysandbox_platform.conformance.kit import Guest, PlatformTests  # noqa: E402
from pysandbox_platform.conformance.lifetime import LifetimeTests  # noqa: E402
from pysandbox_platform.conformance.memory import MemoryTests  # noqa: E402
from pysandbox_platform.conformance.state import StateTests  # noqa: E402
from pysandbox_platform.conformance.stops import StopTests  # noqa: E402


class ConformanceSuite(
    MemoryTests,
    StopTests,
    StateTests,
    HostileTests,
    EventTests,
    LifetimeTests,
    ConstantResultTests,
):
    """All of them; derive a class whose name starts with Test and set `platform_class`."""


__all__ = [
    "ConformanceSuite",
    "ConstantResultTests",
    "EventTests",
    "Guest",
    "HostileTests",
    "LifetimeTests",
    "MemoryTests",
    "PlatformTests",
    "StateTests",
    "StopTests",
]
