"""The platform interface: address spaces, contexts that run in them, and getting control back.

Interface, the rules for both sides:

- One `Platform` object serves one sandbox and belongs to the thread that made it, the kernel's:
  every method of every object here is called on that thread, `Platform.kick` excepted.
- A platform knows nothing of Linux system calls, tasks or files; a kernel knows nothing of how a
  platform traps.
- Addresses and lengths are in bytes, multiples of PAGE_SIZE where a mapping is meant, and inside
  `Platform.address_range`; the kernel has checked them. Register values are the program's or the
  kernel's and have not been checked: a platform makes any 27 words safe to load (selectors are the
  user's, EFLAGS is masked to EFLAGS_USER, a non-canonical RIP raises a fault in the program).
- Nothing that the program does may raise in the platform, block it, or reach the host: whatever it
  does comes back as a stop.
- A method that fails raises PlatformError, and the sandbox ends.

Contexts run truly in parallel; the kernel is told of one at a time, by `Platform.wait`. The cycle
of a context is: `resume` -> (running) -> `wait` returns it -> read `stop`, read and write `regs` ->
`resume` again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pysandbox_platform.types import Probe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pysandbox_platform.host_calls import HostCall


class AddressSpace(ABC):
    """What a context sees as memory: shared mappings of host file ranges, nothing else.

    Made empty by `Platform.new_address_space`, owned by the caller until `release`.

    Changes are queued in order and may be carried out late, but always before a context that
    `resume` starts in this space runs its next instruction. Contexts that are running in it
    meanwhile may go on seeing what was there until `sync` returns.
    """

    __slots__ = ()

    @abstractmethod
    def map(self, addr: int, length: int, prot: int, fd: int, offset: int) -> None:
        """Map `length` bytes of host file `fd` from byte `offset`, shared, at `addr`.

        Replaces whatever was mapped there. `prot` is any combination of PROT_READ, PROT_WRITE and
        PROT_EXEC. The caller keeps `fd` open until `sync` has returned or a context resumed in this
        space after the call has stopped again. Pages of the file beyond its end fault.
        """

    @abstractmethod
    def protect(self, addr: int, length: int, prot: int) -> None:
        """Change the protection of the mapped pages of the range; the others stay unmapped."""

    @abstractmethod
    def unmap(self, addr: int, length: int) -> None:
        """Forget the range; parts that were not mapped are no error."""

    @abstractmethod
    def sync(self) -> None:
        """Carry out what is queued, now: when it returns, no context, running or not, can reach
        what was unmapped or write what was made read-only, and every `fd` passed to `map` may be
        closed."""

    @abstractmethod
    def release(self) -> None:
        """Give everything back. No context may be running in it; contexts that last ran in it stay
        usable elsewhere. Idempotent."""


class Context(ABC):
    """One thread of execution: a register file, an extended state, and a reason for the last stop.

    Made by `Platform.new_context` with every register zero but the selectors and EFLAGS, and the
    extended state initial (Intel SDM volume 1, 13.6: XSAVE's init state, MXCSR 0x1f80). Owned by
    the caller until `release`.

    The attributes are plain ones, set before `wait` returns the context, and may only be touched
    while it is not running.
    """

    regs: memoryview
    """27 words, see `registers_amd64`. FS_BASE and GS_BASE are in it; both are kept across
    stops."""
    stop: int
    """One of STOP_*."""
    fault_addr: int
    """STOP_FAULT: the address that could not be reached. STOP_EXCEPTION: si_addr."""
    fault_access: int
    """STOP_FAULT: one of ACCESS_*. Where `Platform.precise_access` is false, ACCESS_READ may also
    stand for a write to a page that is not mapped at all; once the page is mapped readable, the
    same write is reported as ACCESS_WRITE."""
    signo: int
    """STOP_EXCEPTION: SIGFPE, SIGILL, SIGTRAP, SIGSEGV or SIGBUS. STOP_FAULT: SIGSEGV, or SIGBUS
    for a page beyond the end of its file."""
    code: int
    """STOP_EXCEPTION and STOP_FAULT: si_code as Linux has it (SEGV_MAPERR, FPE_INTDIV, TRAP_BRKPT,
    SI_KERNEL, ...)."""
    message: str
    """STOP_KILLED: what happened, for a person."""
    owner: object
    """The caller's own; never touched by the platform."""

    @abstractmethod
    def resume(self, address_space: AddressSpace) -> None:
        """Let the context run in `address_space`, from the registers as they are now. Never blocks.

        The context may start at once or when `wait` is next called; `stop` is STOP_NONE until
        `wait` returns it.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make a running context stop soon, as STOP_INTERRUPTED or for a reason of its own.

        It is still `wait` that returns it. A context that is not running is not affected; one whose
        stop `wait` has not returned yet may, or may not, be stopped once more after its next
        resume.
        """

    @abstractmethod
    def get_fpstate(self) -> bytes:
        """The extended state in the standard (non-compacted) form of XSAVE, `Platform.xstate_size`
        bytes long; Intel SDM volume 1, 13.4."""

    @abstractmethod
    def set_fpstate(self, state: bytes) -> None:
        """Replace the extended state.

        `state` is `Platform.xstate_size` bytes, or a shorter prefix that ends on a component (512
        bytes are the legacy FXSAVE area alone, the rest is then initial). It comes from the program
        and is not trusted: a header, MXCSR or component that the processor would refuse raises
        ValueError and leaves the state as it was.
        """

    def set_constant_results(self, results: Mapping[int, int]) -> None:
        """Let system calls whose result is known ahead be answered without a stop.

        From the next `resume` on, SYSCALL with a number that is in `results` puts the value into
        RAX and goes on; all else is as after the instruction, RCX and R11 included. `results` takes
        the place of what was set before; for a new context it is empty. A number is 0 to 2**32-1
        and is compared with the low half of RAX, as Linux does; a value is 0 to 2**64-1.

        Any of these calls may still be a stop, which the caller answers: all of them while TF is
        set, what there is no room for (there is for eight numbers), and now and then for no reason.
        Where `Platform.constant_results` is false, nothing happens. The context must not be
        running.
        """
        return

    def cpu_time_ns(self) -> int:
        """Processor time, in nanoseconds, that the program has used on this context since it was
        made, running or not; what the platform spends on its behalf may be part of it. 0 where the
        platform can't say: the program then sees clocks of processor time that stand still."""
        return 0

    @abstractmethod
    def release(self) -> None:
        """Give the context back. It must not be running. Idempotent."""


class Platform(ABC):
    """One way of running untrusted code, made once for a sandbox.

    The constructor takes no arguments, acquires what the host must give, and raises
    PlatformUnavailableError with a reason where `probe` would have said no.
    """

    name: ClassVar[str]
    """As in `--platform NAME`; the name of the entry point."""
    precise_access: ClassVar[bool] = False
    """Faults on pages that are not mapped tell reads from writes."""
    runs_in_process: ClassVar[bool] = False
    """Contexts run on threads of this process: its processor time includes theirs."""
    host_files: ClassVar[tuple[bytes, ...]] = ()
    """Files of the host that the constructor opens, by absolute path: all that there is of the
    host's file system when it is called in a jail."""
    host_calls: ClassVar[Sequence[HostCall] | None] = None
    """The host's system calls that the platform makes from its construction to its `close`, on any
    thread, over and above those of any Python program; see `host_calls`. None: it does not say, and
    the sentry's jail goes without a filter."""
    address_range: tuple[int, int]
    """Lowest address and end of what the program may have mapped, page aligned; what lies outside
    is the platform's own."""
    max_mappings: int = 2**63 - 1
    """Pieces that one address space may be in: neighbours are one piece where protection, file and
    offset go on, as in Linux's vm.max_map_count. A kernel that makes more of them gets a
    PlatformError, then or later."""
    lost_fd: int = -1
    """A descriptor that becomes readable when something outside this process that contexts run on,
    a process of its own say, was killed: `check` then says what. At most an eighth of the
    descriptors that the host lets this process have are used for that. -1: there is no such
    thing."""
    xstate_size: int
    """Bytes of a context's extended state."""
    xstate_features: int
    """XCR0: the state components that a context has."""

    @property
    def constant_results(self) -> bool:
        """`Context.set_constant_results` spares stops. A platform that only finds out by the first
        system call says true until then."""
        return False

    @classmethod
    @abstractmethod
    def probe(cls) -> Probe:
        """Can it be used here, and how good is it? Tries what it needs for real; leaves nothing
        behind; never raises; at most some tens of milliseconds."""

    @abstractmethod
    def new_address_space(self) -> AddressSpace:
        """An empty address space."""

    @abstractmethod
    def new_context(self) -> Context:
        """A context that has not run yet."""

    @abstractmethod
    def wait(self, timeout_ns: int | None = None) -> Context | None:
        """Block until a running context gives control back, and return it.

        None after `kick`, after `timeout_ns` nanoseconds (0 polls, None waits for ever), and now
        and then for no reason at all. Without a running context it still waits for the kick or the
        time. The GIL is released while it blocks.
        """

    @abstractmethod
    def kick(self) -> None:
        """From any thread: the `wait` in progress, or else the next one, returns. Never lost;
        several kicks may count as one."""

    def host_bytes(self) -> int:
        """About how much memory the host's own kernel keeps for contexts and spaces: the kernel
        stacks of threads, say. Page tables are the caller's to estimate."""
        return 0

    def check(self) -> None:
        """PlatformError if something was killed that contexts run on, see `lost_fd`."""
        return

    @abstractmethod
    def read_tsc(self) -> int:
        """What RDTSC would give a context now; 0 where contexts have no usable time-stamp
        counter."""

    @abstractmethod
    def close(self) -> None:
        """End everything, also what is running; nothing of the platform is left on the host.
        Idempotent."""
