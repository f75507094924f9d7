"""The kernel has no special case for any platform: it imports none and knows none by name.

What differs between platforms is a property of `pysandbox_platform.interface`, documented there.
Comments and docstrings may name a platform as an example. "ptrace" is also a system call.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pysandbox_core
import pytest

SOURCE = Path(pysandbox_core.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

INTERFACE = re.compile(
    r"pysandbox_platform(\.(interface|types|registers_amd64|discovery|entry_points|host_calls))?"
)
"""What of platform-api is for kernels; the rest is for those who write platforms."""

PLATFORM = re.compile(r"kvm|systrap|pysandbox_ptrace|ptrace_?platform", re.IGNORECASE)


def is_text(node: ast.AST) -> bool:
    """Is it a docstring, of a module or of whatever stands above it?"""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def nodes(path: Path) -> Iterator[ast.AST]:
    """All of a module's code but its docstrings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not is_text(node):
            yield from (child for child in ast.iter_child_nodes(node) if not is_text(child))


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [str(node.module)] if isinstance(node, ast.ImportFrom) else []


def words(node: ast.AST) -> Iterator[str]:
    """What a node says by itself: identifiers and strings."""
    for _, value in ast.iter_fields(node):
        if isinstance(value, str):
            yield value
        elif isinstance(value, bytes):
            yield value.decode("latin-1")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_platform(path: Path) -> None:
    for node in nodes(path):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        for module in imported(node):
            if module.startswith("pysandbox") and not module.startswith("pysandbox_core"):
                assert INTERFACE.fullmatch(module), f"{where} imports {module}"
        for word in words(node):
            assert not PLATFORM.search(word), f"{where} names a platform: {word!r}"


def test_a_platforms_name_is_only_for_people() -> None:
    """`platform.name` may be shown; nothing depends on it."""
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.Compare | ast.Match | ast.Subscript):
                of = ast.unparse(node.subject if isinstance(node, ast.Match) else node)
                where = f"{path}:{getattr(node, 'lineno', 0)}"
                assert "platform.name" not in of, f"{where} decides by the platform's name"
