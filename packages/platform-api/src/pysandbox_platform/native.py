"""Platforms whose inner loop is a C library: everything that is the same for all of them.

A platform of this kind derives `NativeContext`, `NativeAddressSpace` and `NativePlatform`, compiles
its library with cffi, and names it once: `library = NativeLibrary(ffi, lib, "xx")`. What Python has
to do for it is here: registers as a memoryview, stops as attributes, results as errors, who is
alive. `pysandbox_ptrace.platform` is an example of 80 lines.

The library has these functions, `xx` being a prefix of its own:

    typedef struct {                    the part of a context that Python sees
        uint64_t regs[27];              first in it; struct user_regs_struct
        uint64_t fault_addr;
        int32_t fault_access, signo, code;
        int32_t index;                  a small number, free again after the release
        ...                             the platform's own
    } xx_context;
    enum { XX_NOTHING = a result that is negative and no errno's };

    xx_platform *xx_open(int *error, char *message, int message_size);
    void xx_close(xx_platform *p);      ends everything; every other call then gives -EBADF
    void xx_free(xx_platform *p);       closes it too, if need be; no kick can come any more
    const char *xx_error(const xx_platform *p);     what failed last, in words
    int64_t xx_wait(xx_platform *p, int64_t timeout_ns);        -1 waits for ever
    void xx_kick(xx_platform *p);       from any thread, also after xx_close()
    uint64_t xx_read_tsc(const xx_platform *p);
    uint64_t xx_space_end(void);        end of what programs may have mapped

    xx_space *xx_space_new(xx_platform *p);
    void xx_space_release(xx_space *s); frees it; those that are left xx_close() frees
    int xx_map(xx_space *s, uint64_t addr, uint64_t length, int prot, int fd, uint64_t offset);
    int xx_protect(xx_space *s, uint64_t addr, uint64_t length, int prot);
    int xx_unmap(xx_space *s, uint64_t addr, uint64_t length);
    int xx_sync(xx_space *s);

    xx_context *xx_context_new(xx_platform *p);
    void xx_context_release(xx_context *c);
    void xx_context_free(xx_context *c);    releases it too, if need be; also after xx_free()
    uint64_t xx_context_cpu_ns(const xx_context *c);
    int xx_resume(xx_context *c, xx_space *s);
    int xx_interrupt(xx_context *c);

    uint64_t xx_xstate_features(const xx_platform *p);
    uint64_t xx_xstate_size(const xx_platform *p);
    int xx_xstate_get(xx_context *c, uint8_t *state, uint64_t size);
    int xx_xstate_set(xx_context *c, const uint8_t *state, uint64_t size);  -EINVAL: refused

Interface:

- A result of 0 or more is success, a negative one -errno, a null pointer failure; `xx_error` says
  more. `xx_open` has its words in `message` and -errno in `error`. `xx_wait` gives XX_NOTHING or
  `index << 3 | stop` of the context that stopped.
- The library never prints, never exits, never calls Python. A space that is NULL is one that was
  released: -EBADF.
- Each call comes from the thread that called `xx_open`, `xx_kick` excepted. cffi lets go of the GIL
  in every call.
- `resume` and `wait` are the hot path and do nothing that could be done elsewhere. Their C function
  is a local name there, because CPython calls that faster than an attribute.
- Subclasses may use what has one leading underscore here; nobody else.
"""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from pysandbox_platform.interface import AddressSpace, Context, Platform
from pysandbox_platform.registers_amd64 import NREGS
from pysandbox_platform.types import (
    STOP_KILLED,
    STOP_NONE,
    STOP_SYSCALL,
    PlatformError,
    PlatformUnavailableError,
)

if TYPE_CHECKING:
    from pysandbox_platform.cffi_types import FFI, CContext, CData

_REGS_SIZE = NREGS * 8
_MESSAGE_SIZE = 200
_LOWEST_ADDRESS = 0x10000
"""What mmap(2) lets an ordinary process have, mostly."""


def host_setting(name: str, default: int) -> int:
    """A number from /proc/sys; `default` where that can't be read, as in a jail: it is asked for
    when a module is imported, not later."""
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return default


_MMAP_MIN_ADDR = max(host_setting("vm/mmap_min_addr", _LOWEST_ADDRESS), _LOWEST_ADDRESS)


class NativeLibrary:
    """The functions of one library, without their prefix. Made once, when the platform's module is
    imported; AttributeError names a function that is missing."""

    def __init__(self, ffi: FFI, lib: object, prefix: str) -> None:
        def function(name: str) -> Any:
            return getattr(lib, f"{prefix}_{name}")

        self.ffi = ffi
        self.nothing: int = getattr(lib, f"{prefix.upper()}_NOTHING")
        self.open: Callable[[CData, CData, int], CData] = function("open")
        self.close: Callable[[CData], None] = function("close")
        self.free: Callable[[CData], None] = function("free")
        self.error: Callable[[CData], CData] = function("error")
        self.wait: Callable[[CData, int], int] = function("wait")
        self.kick: Callable[[CData], None] = function("kick")
        self.read_tsc: Callable[[CData], int] = function("read_tsc")
        self.space_end: Callable[[], int] = function("space_end")
        self.space_new: Callable[[CData], CData] = function("space_new")
        self.space_release: Callable[[CData], None] = function("space_release")
        self.map: Callable[[CData, int, int, int, int, int], int] = function("map")
        self.protect: Callable[[CData, int, int, int], int] = function("protect")
        self.unmap: Callable[[CData, int, int], int] = function("unmap")
        self.sync: Callable[[CData], int] = function("sync")
        self.context_new: Callable[[CData], CContext] = function("context_new")
        self.context_release: Callable[[CData], None] = function("context_release")
        self.context_free: Callable[[CData], None] = function("context_free")
        self.context_cpu_ns: Callable[[CData], int] = function("context_cpu_ns")
        self.resume: Callable[[CData, CData], int] = function("resume")
        self.interrupt: Callable[[CData], int] = function("interrupt")
        self.xstate_features: Callable[[CData], int] = function("xstate_features")
        self.xstate_size: Callable[[CData], int] = function("xstate_size")
        self.xstate_get: Callable[[CData, CData, int], int] = function("xstate_get")
        self.xstate_set: Callable[[CData, CData, int], int] = function("xstate_set")


class NativeContext(Context):
    """A context whose registers and reason to stop are in the library's memory.

    Known to its platform until `release`. The memory is given back when nobody refers to the object
    any more: `regs` stays readable that long.
    """

    __slots__ = (
        "_library",
        "_native",
        "_platform",
        "_resume",
        "code",
        "fault_access",
        "fault_addr",
        "message",
        "owner",
        "regs",
        "signo",
        "stop",
    )

    def __init__(self, platform: NativePlatform) -> None:
        platform._require_open()
        library = platform.library
        native = library.context_new(platform._native)
        if native == library.ffi.NULL:
            raise platform._error(0)
        self._native = library.ffi.gc(native, library.context_free)
        self._platform = platform
        self._library = library
        self._resume = library.resume
        self.regs = memoryview(library.ffi.buffer(native, _REGS_SIZE)).cast("Q")
        self.stop = STOP_NONE
        self.fault_addr = self.fault_access = self.signo = self.code = 0
        self.message = ""
        self.owner = None
        contexts = platform._contexts
        index = native.index
        while index >= len(contexts):
            contexts.append(None)
        contexts[index] = self

    def resume(self, address_space: NativeAddressSpace) -> None:  # type: ignore[override]
        self.stop = STOP_NONE
        resume = self._resume
        result = resume(self._native, address_space._native)
        if result:
            raise self._platform._error(result)

    def _describe(self, stop: int) -> None:
        """Takes over what C knows of a stop that is no system call."""
        native = self._native
        self.fault_addr = native.fault_addr
        self.fault_access = native.fault_access
        self.signo = native.signo
        self.code = native.code
        if stop == STOP_KILLED:
            self.message = self._cause_of_death()

    @abstractmethod
    def _cause_of_death(self) -> str:
        """STOP_KILLED: what happened, in words, from what the library left in `_native`."""

    def interrupt(self) -> None:
        self._platform._check(self._library.interrupt(self._native))

    def get_fpstate(self) -> bytes:
        ffi = self._library.ffi
        size = self._platform.xstate_size
        state = ffi.new("uint8_t[]", size)
        self._platform._check(self._library.xstate_get(self._native, state, size))
        return bytes(ffi.buffer(state, size))

    def set_fpstate(self, state: bytes) -> None:
        library = self._library
        result = library.xstate_set(self._native, library.ffi.from_buffer(state), len(state))
        if result == -errno.EINVAL:
            raise ValueError("an extended state that the processor would refuse")
        self._platform._check(result)

    def cpu_time_ns(self) -> int:
        return self._library.context_cpu_ns(self._native)

    def release(self) -> None:
        contexts = self._platform._contexts
        index = self._native.index
        if index < len(contexts) and contexts[index] is self:
            contexts[index] = None
            self._library.context_release(self._native)


class NativeAddressSpace(AddressSpace):
    """An address space in the library's memory, until `release` or the platform's `close`."""

    __slots__ = ("_library", "_native", "_platform")

    def __init__(self, platform: NativePlatform) -> None:
        platform._require_open()
        library = platform.library
        native = library.space_new(platform._native)
        if native == library.ffi.NULL:
            raise platform._error(0)
        self._native = native
        self._platform = platform
        self._library = library
        platform._spaces.add(self)

    def map(self, addr: int, length: int, prot: int, fd: int, offset: int) -> None:
        result = self._library.map(self._native, addr, length, prot, fd, offset)
        if result:
            raise self._platform._error(result)

    def protect(self, addr: int, length: int, prot: int) -> None:
        result = self._library.protect(self._native, addr, length, prot)
        if result:
            raise self._platform._error(result)

    def unmap(self, addr: int, length: int) -> None:
        result = self._library.unmap(self._native, addr, length)
        if result:
            raise self._platform._error(result)

    def sync(self) -> None:
        self._platform._check(self._library.sync(self._native))

    def release(self) -> None:
        spaces = self._platform._spaces
        if self in spaces:
            spaces.remove(self)
            self._library.space_release(self._native)
        self._native = self._library.ffi.NULL


class NativePlatform(Platform):
    """A platform that a library implements. A subclass sets `name`, `precise_access` and `library`,
    and defines `probe`, `new_address_space` and `new_context`, which call a constructor."""

    library: ClassVar[NativeLibrary]

    def __init__(self) -> None:
        library = self.library
        ffi = library.ffi
        error = ffi.new("int *")
        message = ffi.new("char[]", _MESSAGE_SIZE)
        native = library.open(error, message, _MESSAGE_SIZE)
        if native == ffi.NULL:
            raise PlatformUnavailableError(ffi.string(message).decode(), -error[0])
        self._native = ffi.gc(native, library.free)
        self._wait = library.wait
        self._nothing = library.nothing
        self._contexts: list[NativeContext | None] = []
        """By the library's index; None where there is none now."""
        self._spaces: set[NativeAddressSpace] = set()
        self._closed = False
        self.address_range = (_MMAP_MIN_ADDR, library.space_end())
        self.xstate_size = library.xstate_size(native)
        self.xstate_features = library.xstate_features(native)

    def _error(self, result: int) -> PlatformError:
        """The error for a result; 0 where the library gave a null pointer."""
        if result == -errno.EBADF:
            return PlatformError(f"{self.name} platform: it was released or closed", errno.EBADF)
        library = self.library
        reason = library.ffi.string(library.error(self._native)).decode(errors="replace")
        return PlatformError(f"{self.name} platform: {reason or os.strerror(-result)}", -result)

    def _check(self, result: int) -> None:
        if result < 0:
            raise self._error(result)

    def _require_open(self) -> None:
        if self._closed:
            raise PlatformError(f"{self.name} platform: it is closed")

    def wait(self, timeout_ns: int | None = None) -> NativeContext | None:
        wait = self._wait
        result = wait(self._native, -1 if timeout_ns is None else timeout_ns)
        if result >= 0:
            context = self._contexts[result >> 3]
            assert context is not None
            context.stop = stop = result & 7
            if stop != STOP_SYSCALL:
                context._describe(stop)
            return context
        if result == self._nothing:
            return None
        raise self._error(result)

    def kick(self) -> None:
        self.library.kick(self._native)

    def read_tsc(self) -> int:
        return self.library.read_tsc(self._native)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for space in self._spaces:
            space._native = self.library.ffi.NULL  # the library gives them back below
        self._spaces.clear()
        self._contexts.clear()
        self.library.close(self._native)
