"""What Python does for a platform over a C library, with a library that is written in Python."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pysandbox_platform import (
    STOP_FAULT,
    STOP_KILLED,
    STOP_NONE,
    STOP_SYSCALL,
    PlatformError,
    PlatformUnavailableError,
    Probe,
)
from pysandbox_platform.native import (
    NativeAddressSpace,
    NativeContext,
    NativeLibrary,
    NativePlatform,
)
from pysandbox_platform.registers_amd64 import NREGS, RAX

NOTHING = -10000
LIGHT = """
import sys
import pysandbox_platform
assert "pysandbox_platform.native" not in sys.modules
import pysandbox_platform.native
loaded = {"cffi", "_cffi_backend", "pysandbox_platform.cffi_types"} & sys.modules.keys()
assert not loaded, loaded
"""


class View:
    """A context as the library has it."""

    def __init__(self, index: int) -> None:
        self.registers = bytearray(8 * NREGS)
        self.index = index
        self.fault_addr = self.fault_access = self.signo = self.code = 0


class FakeFFI:
    """Of cffi, what the base classes use."""

    NULL = None

    def __init__(self) -> None:
        self.collected: list[object] = []

    def new(self, cdecl: str, init: int = 1) -> Any:
        return [0] if cdecl == "int *" else bytearray(init)

    def gc(self, cdata: Any, destructor: Callable[[Any], None]) -> Any:
        return cdata

    def buffer(self, cdata: Any, size: int) -> Any:
        return memoryview(cdata.registers if isinstance(cdata, View) else cdata)[:size]

    def from_buffer(self, python_buffer: bytes) -> Any:
        return python_buffer

    def string(self, cdata: bytes) -> bytes:
        return bytes(cdata).rstrip(b"\0")


class FakeLib:
    """A library with the prefix `fake`; `answers` are what its functions will return."""

    FAKE_NOTHING = NOTHING

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "open": "platform",
            "error": b"out of luck\0",
            "space_end": 0x7000_0000_0000,
            "xstate_size": 576,
            "xstate_features": 3,
            "space_new": "space",
            "read_tsc": 77,
            "context_cpu_ns": 5,
        }
        self.calls: list[tuple[Any, ...]] = []
        self.views: list[View] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        prefix, _, function = name.partition("_")
        if prefix != "fake" or function == "absent":
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append((function, *arguments))
            answer = self.answers.get(function, 0)
            return answer(*arguments) if callable(answer) else answer

        return call

    def called(self, function: str) -> list[list[Any]]:
        """The arguments of each call of a function."""
        return [arguments for name, *arguments in self.calls if name == function]


class FakeContext(NativeContext):
    __slots__ = ()

    def _cause_of_death(self) -> str:
        return "of old age"


class FakePlatform(NativePlatform):
    name = "fake"

    @classmethod
    def probe(cls) -> Probe:
        return Probe(True, "always")

    def new_address_space(self) -> NativeAddressSpace:
        return NativeAddressSpace(self)

    def new_context(self) -> FakeContext:
        return FakeContext(self)


@pytest.fixture
def lib() -> FakeLib:
    lib = FakeLib()

    def context_new(_platform: object) -> View:
        taken = {view.index for view in lib.views}
        view = View(next(index for index in range(len(taken) + 1) if index not in taken))
        lib.views.append(view)
        return view

    lib.answers["context_new"] = context_new
    lib.answers["context_release"] = lib.views.remove
    return lib


@pytest.fixture
def platform(lib: FakeLib, monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    library = NativeLibrary(FakeFFI(), lib, "fake")  # type: ignore[arg-type]
    monkeypatch.setattr(FakePlatform, "library", library, raising=False)
    return FakePlatform()


def stop(platform: FakePlatform, lib: FakeLib, context: FakeContext, reason: int) -> None:
    """The library reports a stop of the context."""
    lib.answers["wait"] = lib.views[0].index << 3 | reason
    assert platform.wait() is context


def test_importing_it_is_light() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, timeout=60)


def test_a_missing_function_is_named() -> None:
    class Empty:
        FAKE_NOTHING = NOTHING

    with pytest.raises(AttributeError, match="fake_open"):
        NativeLibrary(FakeFFI(), Empty(), "fake")  # type: ignore[arg-type]


def test_what_the_library_says_of_itself(platform: FakePlatform) -> None:
    assert platform.address_range[1] == 0x7000_0000_0000
    assert (platform.xstate_size, platform.xstate_features) == (576, 3)
    assert platform.read_tsc() == 77


def test_a_platform_that_can_not_be_opened(platform: FakePlatform, lib: FakeLib) -> None:
    def fail(error: list[int], message: bytearray, size: int) -> None:
        error[0] = -errno.EACCES
        message[:9] = b"no, sorry"
        assert size == len(message)

    lib.answers["open"] = fail
    with pytest.raises(PlatformUnavailableError, match=r"^no, sorry$") as caught:
        FakePlatform()
    assert caught.value.errno == errno.EACCES


def test_registers_are_the_librarys_memory(platform: FakePlatform, lib: FakeLib) -> None:
    context = platform.new_context()
    assert len(context.regs) == NREGS
    context.regs[RAX] = 0x1122334455667788
    assert lib.views[0].registers[8 * RAX : 8 * RAX + 8].hex() == "8877665544332211"


def test_a_system_call_is_two_calls(platform: FakePlatform, lib: FakeLib) -> None:
    space, context = platform.new_address_space(), platform.new_context()
    lib.calls.clear()
    context.resume(space)
    assert context.stop == STOP_NONE
    stop(platform, lib, context, STOP_SYSCALL)
    assert context.stop == STOP_SYSCALL
    assert lib.calls == [("resume", lib.views[0], "space"), ("wait", "platform", -1)]


def test_a_fault_is_described(platform: FakePlatform, lib: FakeLib) -> None:
    context = platform.new_context()
    view = lib.views[0]
    view.fault_addr, view.fault_access, view.signo, view.code = 0x1000, 2, 11, 1
    stop(platform, lib, context, STOP_FAULT)
    assert context.stop == STOP_FAULT
    assert (context.fault_addr, context.fault_access) == (0x1000, 2)
    assert (context.signo, context.code, context.message) == (11, 1, "")


def test_a_death_has_a_cause(platform: FakePlatform, lib: FakeLib) -> None:
    context = platform.new_context()
    stop(platform, lib, context, STOP_KILLED)
    assert context.message == "of old age"


def test_nothing_to_report(platform: FakePlatform, lib: FakeLib) -> None:
    lib.answers["wait"] = NOTHING
    assert platform.wait(0) is None
    assert platform.wait(5) is None
    assert lib.called("wait") == [["platform", 0], ["platform", 5]]


@pytest.mark.parametrize("function", ["map", "protect", "unmap", "sync"])
def test_errors_have_the_librarys_words(
    platform: FakePlatform, lib: FakeLib, function: str
) -> None:
    space = platform.new_address_space()
    lib.answers[function] = -errno.ENOMEM
    arguments = {"map": (0, 4096, 1, 3, 0), "protect": (0, 4096, 1), "unmap": (0, 4096)}
    with pytest.raises(PlatformError, match=r"^fake platform: out of luck$") as caught:
        getattr(space, function)(*arguments.get(function, ()))
    assert caught.value.errno == errno.ENOMEM


def test_an_error_without_words_has_the_hosts(platform: FakePlatform, lib: FakeLib) -> None:
    lib.answers |= {"error": b"", "wait": -errno.EIO}
    with pytest.raises(PlatformError, match="fake platform: Input/output error"):
        platform.wait()


def test_released_is_said(platform: FakePlatform, lib: FakeLib) -> None:
    space = platform.new_address_space()
    space.release()
    space.release()
    assert lib.called("space_release") == [["space"]]
    lib.answers["sync"] = lambda native: -errno.EBADF if native is None else 0
    with pytest.raises(PlatformError, match="it was released or closed"):
        space.sync()


def test_an_extended_state_that_is_refused(platform: FakePlatform, lib: FakeLib) -> None:
    context = platform.new_context()
    lib.answers["xstate_set"] = -errno.EINVAL
    with pytest.raises(ValueError, match="the processor would refuse"):
        context.set_fpstate(bytes(512))
    lib.answers["xstate_set"] = -errno.EIO
    with pytest.raises(PlatformError):
        context.set_fpstate(bytes(512))


def test_an_index_is_used_again(platform: FakePlatform, lib: FakeLib) -> None:
    first, second = platform.new_context(), platform.new_context()
    first.release()
    third = platform.new_context()
    first.release()  # the index is the third's now
    assert len(lib.called("context_release")) == 1
    lib.answers["wait"] = 0 << 3 | STOP_SYSCALL
    assert platform.wait() is third
    lib.answers["wait"] = 1 << 3 | STOP_SYSCALL
    assert platform.wait() is second


def test_close_is_the_end(platform: FakePlatform, lib: FakeLib) -> None:
    space, context = platform.new_address_space(), platform.new_context()
    platform.close()
    platform.close()
    context.release()
    space.release()
    assert lib.called("close") == [["platform"]]
    assert not lib.called("space_release"), "the library gave it back itself"
    assert not lib.called("context_release")
    for make in (platform.new_context, platform.new_address_space):
        with pytest.raises(PlatformError, match="fake platform: it is closed"):
            make()
    platform.kick()
