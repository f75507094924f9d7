"""Every module that may be needed later, read before there are no more files.

Modules are imported when they are first needed, which is what keeps the start short; but in the
jail there is nothing to import from. So what has not been imported yet is read, not run: its code
waits in memory for its first import. What is not Python (extension modules) is imported at once.

Interface: `read_modules(packages)` before the jail's root is entered; `seal_imports()` when the
last plugin has been imported. After that an import finds what is in memory, or fails.
tests/jail/test_preload.py holds `STANDARD` against what the packages import.
"""

from __future__ import annotations

import marshal
import os
import sys
from contextlib import suppress
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source, find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import CodeType, ModuleType

EXTENSIONS = (
    "_ctypes", "_socket", "array", "fcntl", "greenlet", "math", "mmap", "resource", "select",
    "termios",
)  # fmt: skip
"""Imported at once: extension modules that the packages import, some of them late."""

STANDARD = (
    "ctypes", "ctypes._endian", "encodings.ascii", "linecache", "selectors", "socket", "textwrap",
    "threading", "token", "tokenize", "traceback",
)  # fmt: skip
"""Of the standard library, what the packages and their reports of failures import late."""

_CHECKED_BY_TIME = 0


class Waiting:
    """A module's code as it was read."""

    __slots__ = ("data", "is_compiled", "is_package", "path")

    def __init__(self, path: str, data: bytes, is_compiled: bool, is_package: bool) -> None:
        self.path = path
        self.data = data
        """Marshalled code, or source text where no compiled file was up to date."""
        self.is_compiled = is_compiled
        self.is_package = is_package

    def code(self) -> CodeType:
        if self.is_compiled:
            code: CodeType = marshal.loads(memoryview(self.data)[16:])
            return code
        return compile(self.data, self.path, "exec", dont_inherit=True)


class MemoryFinder:
    """Finds and loads what was read ahead; a meta path finder and its loader.
    importlib.abc.MetaPathFinder, importlib.abc.Loader"""

    def __init__(self) -> None:
        self.waiting: dict[str, Waiting] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = self.waiting.get(name)
        if found is None:
            return None
        return ModuleSpec(
            name,
            self,  # type: ignore[arg-type]
            origin=found.path,
            is_package=found.is_package,
        )

    def create_module(self, spec: ModuleSpec) -> None:
        """As for any Python module."""

    def exec_module(self, module: ModuleType) -> None:
        waiting = self.waiting[module.__name__]
        module.__file__ = waiting.path
        exec(waiting.code(), module.__dict__)

    def read(self, name: str, path: str, *, is_package: bool) -> None:
        """Read the module `name`, whose source is at `path`."""
        compiled_path = cache_from_source(path)
        with suppress(OSError):
            compiled = _read_file(compiled_path)
            if _is_current(compiled, os.stat(path)):
                self.waiting[name] = Waiting(path, compiled, True, is_package)
                return
        if not sys.dont_write_bytecode and os.access(os.path.dirname(path), os.W_OK):
            # Imports in the jail would compile it at every start: as elsewhere, the first one does.
            SourceFileLoader(name, path).get_code(name)
            with suppress(OSError):
                self.waiting[name] = Waiting(path, _read_file(compiled_path), True, is_package)
                return
        self.waiting[name] = Waiting(path, _read_file(path), False, is_package)


_finder = MemoryFinder()


def packages_of(things: Iterable[object]) -> list[str]:
    """The top-level packages that classes, modules or objects come from."""
    names = set()
    for thing in things:
        module = getattr(thing, "__module__", None) or getattr(thing, "__name__", "")
        top = str(module).partition(".")[0]
        if hasattr(sys.modules.get(top), "__path__"):
            names.add(top)
    return [*sorted(names | {"pysandbox_platform"})]


def read_modules(packages: Sequence[str]) -> None:
    """Read what was not imported yet of `packages` (names of top-level packages that were) and of
    the standard library."""
    for name in EXTENSIONS:
        with suppress(ImportError):  # built without it: who needs it says so
            __import__(name)
    for name in STANDARD:
        if name not in sys.modules:
            spec = find_spec(name)
            if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
                _finder.read(name, spec.origin, is_package=spec.origin.endswith("__init__.py"))
    for package in packages:
        for folder in sys.modules[package].__path__:
            for name, path, is_package in _modules(package, folder):
                if name not in sys.modules:
                    _finder.read(name, path, is_package=is_package)


def seal_imports() -> None:
    """From now on modules come from memory alone."""
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, _finder]
    sys.path.clear()
    sys.path_importer_cache.clear()


def _modules(package: str, folder: str) -> Iterator[tuple[str, str, bool]]:
    """(name, path of the source, is it a package?) of everything in `folder`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.endswith(".py"):
                if name == "__init__.py":
                    yield package, entry.path, True
                else:
                    yield f"{package}.{name[:-3]}", entry.path, False
            elif name.isidentifier() and name != "__pycache__" and entry.is_dir():
                yield from _modules(f"{package}.{name}", entry.path)


def _is_current(compiled: bytes, source: os.stat_result) -> bool:
    """Is this compiled file of this interpreter and of that source? PEP 552"""
    if compiled[:4] != MAGIC_NUMBER:
        return False
    flags = int.from_bytes(compiled[4:8], "little")
    if flags != _CHECKED_BY_TIME:
        return flags == 1  # by hash, not to be checked
    return (
        int.from_bytes(compiled[8:12], "little") == int(source.st_mtime) & 0xFFFFFFFF
        and int.from_bytes(compiled[12:16], "little") == source.st_size & 0xFFFFFFFF
    )


def _read_file(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, os.fstat(fd).st_size + 1)
    finally:
        os.close(fd)
