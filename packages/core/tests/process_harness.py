"""Processes on the fake platform whose programs are Python generators that make real system calls.

A program is a generator function that is given its `Cpu` and yields system calls; each `yield`
gives the result, -errno for a failure:

    def program(cpu):
        pid = yield call("fork", child=other_program)
        result = yield call("wait4", pid, 0, 0, 0)

The processor is modelled as far as signals need it: a SYSCALL instruction of two bytes that runs
again when RIP was set back, handlers at addresses that `Cpu.handler` gives out, and their return
through rt_sigreturn. Memory is one flat range for each process, see harness.FlatMemory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

from fake_platform import FakeContext, FakePlatform, Program
from harness import BASE, SIZE, FlatMemory
from pysandbox_core import syscalls, task_clone
from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.abi.signal import SA_RESTORER
from pysandbox_core.credentials import Credentials
from pysandbox_core.declare import ARGUMENT_REGISTERS, DECLARATIONS, TABLE_SIZE, build_entry
from pysandbox_core.fs.fd_table import FdTable
from pysandbox_core.kernel import Kernel
from pysandbox_core.signals import SignalAction
from pysandbox_core.task import Task, ThreadGroup
from pysandbox_core.time.clocks import Clocks
from pysandbox_platform import STOP_EXCEPTION, STOP_SYSCALL
from pysandbox_platform.registers_amd64 import ORIG_RAX, RAX, RIP, RSP

syscalls.declare_all()

CODE = 0x400000
"""Where every SYSCALL instruction is."""
HANDLERS = 0x500000
"""Handler addresses start here."""
STACK = BASE + SIZE - 4096
SCRATCH = BASE
"""Memory that a test may use as it likes."""

Call = dict[str, Any]
Body = Callable[["Cpu"], Generator[Call, int, None]]


def call(name: str, *arguments: int, child: Body | None = None) -> Call:
    """A system call for a program to yield; `child` is what a task that it makes runs."""
    return {"name": name, "arguments": arguments, "child": child}


def fault(signo: int, code: int, addr: int) -> Call:
    """An exception for a program to yield."""
    return {"fault": (signo, code, addr)}


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


class Memory(FlatMemory):
    """A FlatMemory that can be shared and copied as clone wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.users = 1
        self.dumpable = 1
        self.released = False

    def fork(self, space: object, limits: object, stack_pointer: int) -> Memory:
        child = Memory()
        child.data[:] = self.data
        return child

    def range_count(self) -> int:
        return 1

    host_bytes_found = 0

    def release(self, task: object = None) -> None:
        self.users -= 1
        self.released = not self.users

    def peak_rss(self) -> int:
        return 1 << 20

    def read_s32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little", signed=True)


class FsContext:
    """As much of one as clone and exit need."""

    def __init__(self) -> None:
        self.users = 1

    def copy(self) -> FsContext:
        return FsContext()

    def release(self) -> None:
        self.users -= 1


class Cpu:
    """What runs one task's program."""

    def __init__(self, world: World, context: Processor) -> None:
        self.world = world
        self.context = context

    @property
    def task(self) -> Task:
        task = self.context.owner
        assert isinstance(task, Task)
        return task

    def handler(self, body: Callable[[Cpu], Any], flags: int = 0, mask: int = 0) -> SignalAction:
        """An action whose handler runs `body`, a function or a generator function of a Cpu."""
        self.world.handlers.append(body)
        addr = HANDLERS + len(self.world.handlers) - 1
        return SignalAction(addr, flags | SA_RESTORER, 0x600000, mask)

    def on(self, signo: int, body: Callable[[Cpu], Any], flags: int = 0, mask: int = 0) -> None:
        """sigaction without the system call."""
        self.task.sighand.actions[signo] = self.handler(body, flags, mask)

    def run(self, body: Body) -> Program:
        """The stops of `body`, a whole program; it ends with exit_group(0)."""
        regs = self.context.regs
        if not regs[RSP]:
            regs[RSP] = STACK
        yield from self._handlers()
        yield from self._steps(body(self))
        yield self._syscall("exit_group", 0)
        raise AssertionError("exit_group returned")

    def _steps(self, generator: Generator[Call, int, None]) -> Program:
        regs = self.context.regs
        try:
            step = next(generator)
            while True:
                if "fault" in step:
                    signo, code, addr = step["fault"]
                    regs[RIP] = CODE
                    yield {"stop": STOP_EXCEPTION, "signo": signo, "code": code, "fault_addr": addr}
                    yield from self._handlers()
                    step = generator.send(0)
                    continue
                if step["child"] is not None:
                    self.world.bodies.append(step["child"])
                stop = self._syscall(step["name"], *step["arguments"])
                yield stop
                yield from self._handlers()
                while regs[RIP] == CODE:  # the instruction runs again
                    stop[f"r{ORIG_RAX}"] = regs[RAX]
                    stop[f"r{RIP}"] = CODE + 2
                    yield stop
                    yield from self._handlers()
                step = generator.send(signed(regs[RAX]))
        except StopIteration:
            return

    def _syscall(self, name: str, *arguments: int) -> Call:
        words = {
            f"r{register}": value & 0xFFFFFFFFFFFFFFFF
            for register, value in zip(ARGUMENT_REGISTERS, arguments, strict=False)
        }
        return {"stop": STOP_SYSCALL, f"r{ORIG_RAX}": NUMBERS[name], f"r{RIP}": CODE + 2, **words}

    def _handlers(self) -> Program:
        """Run handlers as long as RIP points at one."""
        regs = self.context.regs
        while 0 <= regs[RIP] - HANDLERS < len(self.world.handlers):
            body = self.world.handlers[regs[RIP] - HANDLERS]
            frame = regs[RSP]
            result = body(self)
            if result is not None:
                yield from self._steps(result)
            regs[RSP] = frame + 8  # RET took the return address
            yield self._syscall("rt_sigreturn")


class Processor(FakeContext):
    """A context that checks and completes its extended state, and has used some time."""

    cpu_ns = 0

    def set_fpstate(self, state: bytes) -> None:
        if len(state) > self.platform.xstate_size or len(state) < 512:
            raise ValueError("size")
        self.fpstate = state.ljust(self.platform.xstate_size, b"\0")

    def cpu_time_ns(self) -> int:
        return self.cpu_ns


class Platform(FakePlatform):
    """Gives every new context the next program that waits for one."""

    world: World

    def new_context(self) -> Processor:
        context = Processor(self)
        cpu = Cpu(self.world, context)
        if self.world.bodies:
            context.program = cpu.run(self.world.bodies.popleft())
        return context


class World:
    """One kernel with process 1, and whatever runs in it."""

    def __init__(self) -> None:
        self.bodies: deque[Body] = deque()
        self.handlers: list[Callable[[Cpu], Any]] = []
        platform = Platform()
        platform.world = self
        config = SimpleNamespace(
            hostname=b"sandbox", pids=None, memory=None, logs=lambda level: False
        )
        self.kernel = Kernel(config, platform)  # type: ignore[arg-type]
        table: list[Any] = [None] * (TABLE_SIZE + 1)
        for number, declaration in DECLARATIONS.items():
            table[number] = build_entry(declaration)
        self.kernel.table = table
        view = memoryview(bytearray(4096))
        self.kernel.memory_file = SimpleNamespace(  # type: ignore[assignment]
            allocate=lambda npages: 0, view=view, usage=lambda: 0
        )
        self.kernel.clocks = Clocks(self.kernel)
        task_clone.new_init(self.kernel)

    def close(self) -> None:
        self.kernel.reactor.close()

    def spawn(self, body: Body, uid: int = 1000) -> Task:
        """A process that runs `body`, child of process 1."""
        self.bodies.append(body)
        task = task_clone.new_process(
            self.kernel,
            mm=Memory(),  # type: ignore[arg-type]
            files=FdTable(),
            fs=FsContext(),  # type: ignore[arg-type]
            creds=Credentials.for_user(uid, uid),
        )
        task_clone.start(task)
        return task

    def run(self, body: Body, uid: int = 1000) -> int:
        """Run `body` as a process, and everything that it starts, until it has ended; its wait
        status."""
        statuses: list[int] = []

        def ended(status: int) -> None:
            statuses.append(status)
            self.kernel.stop()

        self.spawn(body, uid).group.on_exit = ended
        self.kernel.run()
        return statuses[0]

    def group(self, pid: int) -> ThreadGroup:
        return self.kernel.groups[pid]
