"""Builds `pysandbox_kvm._native`, the C part, with cffi in API mode.

Interface: the declarations are `csrc/kv_api.h` itself, without its preprocessor lines. The
environment variable PYSANDBOX_SANITIZE=1 builds with AddressSanitizer and
UndefinedBehaviorSanitizer; such a module needs libasan preloaded into Python (see the README).
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

PACKAGE = Path(__file__).resolve().parent
CSRC = Path("src/pysandbox_kvm/csrc")  # relative, as setuptools wants sources

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def declarations(header: str) -> str:
    """What cffi can read of a header: everything but its preprocessor lines."""
    return "\n".join(line for line in header.splitlines() if not line.startswith("#"))


def make_builder() -> FFI:
    """The builder that setuptools asks for."""
    compile_args = ["-std=gnu11", "-O2", "-g", *WARNINGS]
    link_args = ["-pthread"]
    if os.environ.get("PYSANDBOX_SANITIZE") == "1":
        compile_args += ["-O1", *SANITIZE]
        link_args += SANITIZE
    builder = FFI()
    builder.cdef(declarations((PACKAGE / CSRC / "kv_api.h").read_text()))
    builder.set_source(
        "pysandbox_kvm._native",
        '#include "kv_api.h"',
        sources=sorted(str(CSRC / source.name) for source in (PACKAGE / CSRC).glob("*.c")),
        include_dirs=[str(CSRC)],
        depends=sorted(str(CSRC / header.name) for header in (PACKAGE / CSRC).glob("*.h")),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    return builder


ffibuilder = make_builder()
