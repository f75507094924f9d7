"""Builds `pysandbox_kvm._native`, the C part, with cffi in API mode.

Interface: the declarations are `csrc/kv_api.h` itself, without its preprocessor lines. The
environment variable PYSANDBOX_SANITIZE=1 builds with AddressSanitizer and
UndefinedBehaviorSanitizer, PYSANDBOX_SANITIZE=thread with ThreadSanitizer; such a module needs
libasan or libtsan preloaded into Python (see the README).
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

PACKAGE = Path(__file__).resolve().parent
CSRC = Path("src/pysandbox_kvm/csrc")  # relative, as setuptools wants sources

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZE = {
    "1": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "thread": ["-fsanitize=thread", "-fno-omit-frame-pointer"],
}


def declarations(header: str) -> str:
    """What cffi can read of a header: everything but its preprocessor lines."""
    return "\n".join(line for line in header.splitlines() if not line.startswith("#"))


def make_builder() -> FFI:
    """The builder that setuptools asks for."""
    compile_args = ["-std=gnu11", "-O2", "-g", *WARNINGS]
    link_args = ["-pthread"]
    if sanitize := SANITIZE.get(os.environ.get("PYSANDBOX_SANITIZE", "")):
        compile_args += ["-O1", *sanitize]
        link_args += sanitize
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
