"""What the compiled module offers: cffi's `ffi`, and the functions of `csrc/pt_api.h` that are the
platform's own; `pysandbox_platform.native` has those that all such platforms have."""

from typing import Protocol

from pysandbox_platform.cffi_types import FFI, CContext, CData

class PtContext(CContext, Protocol):
    exit_status: int

class Lib:
    def pt_stub_syscall(self) -> int: ...
    def pt_process_count(self, p: CData, /) -> int: ...
    def pt_thread_count(self, p: CData, /) -> int: ...
    def pt_space_pid(self, s: CData, /) -> int: ...
    def pt_context_tid(self, c: CData, /) -> int: ...

ffi: FFI
lib: Lib
