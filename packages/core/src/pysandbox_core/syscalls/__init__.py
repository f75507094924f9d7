"""The system calls, a module for each man-page family.

A family is imported when one of its calls is first made: all of them take a third of a start, and a
program makes a few. Who wants to see every declaration calls `declare_all` first.
"""

from __future__ import annotations

from importlib import import_module


def declare_family(name: str) -> None:
    """Import the module `name` of this package, which declares its calls."""
    import_module(f"{__name__}.{name}")


def declare_all() -> None:
    """Import every family that index.py has."""
    from pysandbox_core.syscalls.index import CALLS

    for name in CALLS:
        declare_family(name)
