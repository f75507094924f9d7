"""Compiling the guest programs: once per session, and only those that are asked for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent

COMPILE = [
    os.environ.get("CC", "gcc"),
    *("-std=gnu11", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"),
    # The programs pass wrong pointers and sizes on purpose.
    *("-Wno-nonnull", "-Wno-stringop-overflow", "-Wno-stringop-overread", "-Wno-format-truncation"),
]


@pytest.fixture(scope="session")
def build(scratch: Path) -> Callable[..., Path]:
    """Compiles a guest program by name, once, and gives the executable's path."""
    built: dict[tuple[str, bool], Path] = {}

    def compile_program(name: str, *, static: bool = False) -> Path:
        if (name, static) not in built:
            target = scratch / (f"{name}-static" if static else name)
            options = ["-static"] if static else []
            source = SOURCES / f"{name}.c"
            subprocess.run([*COMPILE, *options, "-o", target, source], check=True)
            built[name, static] = target
        return built[name, static]

    return compile_program
