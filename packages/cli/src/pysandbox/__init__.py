"""PySandbox: run untrusted Linux programs on a kernel written in Python.

    from pysandbox import Sandbox

    with Sandbox() as sandbox:
        result = sandbox.run(["python3", "-c", "print(6 * 7)"])
    assert result.stdout == b"42\\n"

The names here are the public interface; everything else in this package may change. They are
imported when they are first used: the `pysandbox` command does not need them to start a program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pysandbox_core.config import Bind
    from pysandbox_core.errors import (
        CommandNotExecutableError,
        CommandNotFoundError,
        InvalidOptionError,
        KernelFailureError,
        PlatformChoiceError,
        SandboxError,
        SandboxTimeoutError,
    )

    from pysandbox.process import Process
    from pysandbox.result import CommandFailedError, Result, RunTimeoutError, Usage
    from pysandbox.sandbox import DEVNULL, PIPE, Sandbox

__version__ = "0.1.0"

__all__ = [
    "DEVNULL",
    "PIPE",
    "Bind",
    "CommandFailedError",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "InvalidOptionError",
    "KernelFailureError",
    "PlatformChoiceError",
    "Process",
    "Result",
    "RunTimeoutError",
    "Sandbox",
    "SandboxError",
    "SandboxTimeoutError",
    "Usage",
]

_HOMES = {
    "DEVNULL": "pysandbox.sandbox",
    "PIPE": "pysandbox.sandbox",
    "Bind": "pysandbox_core.config",
    "CommandFailedError": "pysandbox.result",
    "Process": "pysandbox.process",
    "Result": "pysandbox.result",
    "RunTimeoutError": "pysandbox.result",
    "Sandbox": "pysandbox.sandbox",
    "Usage": "pysandbox.result",
}
"""Where each public name lives; errors that are not here are pysandbox_core.errors'."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES.get(name, "pysandbox_core.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
