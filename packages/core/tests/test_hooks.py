"""Hooks: what plugins see, what they can decide, and that nothing is paid without them."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from pysandbox_core import hook_calls
from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.declare import TABLE_SIZE, Declaration, build_entry
from pysandbox_core.errors import ERESTARTSYS, LinuxError
from pysandbox_core.hooks import Answer, HookSpecs, Refuse, hookimpl
from pysandbox_platform.registers_amd64 import NREGS, RDI, RSI


def handler(task: Any, a: int, b: int) -> int:
    """A system call with two arguments, Int and ULong; fails with what its task says."""
    if task.fails:
        raise LinuxError(task.fails)
    return a + b


DECLARATION = Declaration("add", 500, (("a", "Int"), ("b", "ULong")), handler)


class Recorder:
    """Remembers what it is told, and has a verdict."""

    def __init__(self, verdict: object = None) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.verdict = verdict

    @hookimpl
    def sandbox_start(self) -> None:
        self.seen.append(("start", None))

    @hookimpl
    def syscall_enter(self, declaration: Declaration, arguments: tuple[int, ...]) -> object:
        self.seen.append((declaration.name, arguments))
        return self.verdict

    @hookimpl
    def syscall_exit(self, declaration: Declaration, result: int | None) -> None:
        self.seen.append((f"{declaration.name} ends", result))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(hook_calls, "DECLARATIONS", {500: DECLARATION})
    monkeypatch.setattr(hook_calls, "NUMBERS", {"add": 500})
    logged: list[str] = []
    entry = build_entry(DECLARATION)
    return SimpleNamespace(
        table={500: entry},
        original=entry,
        hooks=None,
        log=lambda text, level="": logged.append(text),
        logged=logged,
    )


def call(kernel: SimpleNamespace, fails: int = 0) -> int:
    regs = memoryview(bytearray(8 * NREGS)).cast("Q")
    regs[RDI], regs[RSI] = 0xFFFFFFFF, 10
    result: int = kernel.table[500](SimpleNamespace(fails=fails), regs)
    return result


def test_nothing_changes_without_plugins(kernel: SimpleNamespace) -> None:
    hook_calls.install(kernel, [])
    assert kernel.hooks is None and kernel.table[500] is kernel.original


def test_the_table_is_left_alone_by_plugins_that_do_not_look_at_calls(
    kernel: SimpleNamespace,
) -> None:
    class Quiet:
        @hookimpl
        def task_start(self) -> None: ...

    hook_calls.install(kernel, [("quiet", Quiet())])
    assert kernel.hooks is not None and kernel.table[500] is kernel.original


def test_decoded_arguments_and_results(kernel: SimpleNamespace) -> None:
    recorder = Recorder()
    hook_calls.install(kernel, [("recorder", recorder)])
    assert call(kernel) == 9
    with pytest.raises(LinuxError):
        call(kernel, errno.EBADF)
    with pytest.raises(LinuxError):
        call(kernel, ERESTARTSYS)
    entered = ("add", (-1, 10))
    assert recorder.seen == [
        ("start", None),
        entered, ("add ends", 9),
        entered, ("add ends", -errno.EBADF),
        entered, ("add ends", -ERESTARTSYS),
    ]  # fmt: skip


def test_refusing(kernel: SimpleNamespace) -> None:
    recorder = Recorder(Refuse(errno.EPERM))
    hook_calls.install(kernel, [("recorder", recorder)])
    with pytest.raises(LinuxError) as caught:
        call(kernel)
    assert caught.value.errno == errno.EPERM
    assert recorder.seen[-1] == ("add ends", -errno.EPERM)


def test_answering(kernel: SimpleNamespace) -> None:
    hook_calls.install(kernel, [("recorder", Recorder(Answer(42)))])
    assert call(kernel) == 42


@pytest.mark.parametrize("verdict", [5, Answer(-1), Answer(1 << 64)])
def test_a_verdict_that_is_none_is_a_bug_in_the_plugin(
    kernel: SimpleNamespace, verdict: object
) -> None:
    hook_calls.install(kernel, [("recorder", Recorder(verdict))])
    with pytest.raises(TypeError, match="return None, Refuse"):
        call(kernel)


def test_a_plugin_that_does_not_fit_is_reported_and_the_others_are_used(
    kernel: SimpleNamespace,
) -> None:
    class Unfit:
        @hookimpl
        def syscall_enter(self, no_such_parameter: int) -> None: ...

    class Unknown:
        @hookimpl
        def no_such_hook(self) -> None: ...

    recorder = Recorder()
    hook_calls.install(kernel, [("unfit", Unfit()), ("unknown", Unknown()), ("recorder", recorder)])
    assert [text.split("'")[1] for text in kernel.logged] == ["unfit", "unknown"]
    assert call(kernel) == 9 and recorder.seen


def test_every_hook_is_described() -> None:
    hooks = [value for name, value in vars(HookSpecs).items() if not name.startswith("_")]
    assert hooks and all(hook.__doc__ for hook in hooks)


def test_every_call_is_seen_also_those_that_nobody_declares() -> None:
    table = [lambda task, regs: 0] * (TABLE_SIZE + 1)
    kernel = SimpleNamespace(table=list(table), hooks=None, log=print)
    hook_calls.install(kernel, [("recorder", Recorder())])  # type: ignore[arg-type]
    assert all(kernel.table[number] is not table[number] for number in NUMBERS.values())


@pytest.mark.parametrize(
    ("sockaddr", "address"),
    [
        (b"\x01\0/run/x\0rest", ("unix", b"/run/x", 0)),
        (b"\x01\0\0name", ("unix", b"\0name", 0)),
        (b"\x02\0\x1f\x90\x7f\0\0\1" + bytes(8), ("inet", "127.0.0.1", 8080)),
        (b"\x0a\0\0\x35" + bytes(4) + bytes(15) + b"\1" + bytes(4), ("inet6", "::1", 53)),
        (b"\x02\0\x1f", ("2", b"\x1f", 0)),
        (b"", ("0", b"", 0)),
    ],
)
def test_addresses(sockaddr: bytes, address: tuple[str, bytes | str, int]) -> None:
    assert hook_calls.describe_address(sockaddr) == address
