"""What cffi's objects offer, for type checkers.

Interface: cffi ships no types of its own. A platform's `_native.pyi` names these; import them under
TYPE_CHECKING, since nobody needs them at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T", bound="CData")


class CData(Protocol):
    """A C value, mostly a pointer."""

    def __getitem__(self, index: int) -> int: ...


class CContext(CData, Protocol):
    """A pointer to the part of a context that Python sees; `native` says what the fields mean."""

    index: int
    fault_addr: int
    fault_access: int
    signo: int
    code: int


class FFI(Protocol):
    """`ffi` of a module that cffi compiled; cffi's reference documents each method."""

    NULL: Any

    def new(self, cdecl: str, init: object = ...) -> CData: ...
    def gc(self, cdata: T, destructor: Callable[[T], None]) -> T: ...
    def buffer(self, cdata: CData, size: int = ...) -> Any: ...
    def from_buffer(self, python_buffer: bytes) -> CData: ...
    def string(self, cdata: CData) -> bytes: ...
    def cast(self, cdecl: str, source: object) -> Any: ...
    def addressof(self, cdata: object, *fields: str) -> CData: ...
