"""The interface between a sandbox kernel and what runs and traps programs for it.

A platform is a class that derives from `Platform` and is published under the entry-point group
`pysandbox.platforms`. See `interface` for the specification and `conformance` for the test suite
that every platform passes.
"""

from pysandbox_platform.interface import AddressSpace, Context, Platform
from pysandbox_platform.types import (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_WRITE,
    PAGE_SIZE,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    STOP_EXCEPTION,
    STOP_FAULT,
    STOP_INTERRUPTED,
    STOP_KILLED,
    STOP_NAMES,
    STOP_NONE,
    STOP_SYSCALL,
    PlatformError,
    PlatformUnavailableError,
    Probe,
)

__all__ = [
    "ACCESS_EXEC",
    "ACCESS_READ",
    "ACCESS_WRITE",
    "PAGE_SIZE",
    "PROT_EXEC",
    "PROT_NONE",
    "PROT_READ",
    "PROT_WRITE",
    "STOP_EXCEPTION",
    "STOP_FAULT",
    "STOP_INTERRUPTED",
    "STOP_KILLED",
    "STOP_NAMES",
    "STOP_NONE",
    "STOP_SYSCALL",
    "AddressSpace",
    "Context",
    "Platform",
    "PlatformError",
    "PlatformUnavailableError",
    "Probe",
]
