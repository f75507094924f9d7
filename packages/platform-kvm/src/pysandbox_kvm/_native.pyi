"""What the compiled module offers: cffi's `ffi`, and the functions of `csrc/kv_api.h` that are the
platform's own; `pysandbox_platform.native` has those that all such platforms have."""

from typing import Final, Protocol

from pysandbox_platform.cffi_types import FFI, CContext, CData

class KvContext(CContext, Protocol):
    message: CData

class Lib:
    KV_FLAVOUR_PVM: Final[int]
    def kv_guest_kernel(self) -> int: ...
    def kv_guest_image(self, p: CData, /) -> CData: ...
    def kv_flavour(self, p: CData, /) -> int: ...
    def kv_vcpu_count(self, p: CData, /) -> int: ...
    def kv_stats_fd(self, p: CData, vcpu: int, /) -> int: ...
    def kv_constant_results(
        self, c: CContext, count: int, numbers: list[int], values: list[int], /
    ) -> int: ...
    def kv_table_count(self, p: CData, /) -> int: ...

ffi: FFI
lib: Lib
