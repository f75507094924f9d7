"""Getting control back without the program's help: interrupts, kicks, timeouts, death."""

from __future__ import annotations

import threading
import time

from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, Guest, PlatformTests, assert_syscall
from pysandbox_platform.interface import Context, Platform
from pysandbox_platform.types import STOP_INTERRUPTED, STOP_KILLED, STOP_NONE, STOP_SYSCALL

MS = 1_000_000


class EventTests(PlatformTests):
    """`interrupt`, `kick`, `wait`'s timeout, several contexts at once."""

    def spinner(self, guest: Guest) -> tuple[Context, int]:
        """A running context that counts in a word of the file, and the word's offset."""
        space = guest.space(asm.forever(asm.increment(asm.RDI)))
        offset = guest.map_data(space)
        context = guest.context(rdi=DATA)
        context.resume(space)
        while guest.word(offset) == 0:
            assert guest.platform.wait(MS) is None
        return context, offset

    def drain(self, guest: Guest) -> None:
        """Waits until `wait` has nothing to say."""
        while guest.platform.wait(0) is not None:
            pass

    def test_interrupt(self, guest: Guest) -> None:
        context, _ = self.spinner(guest)
        assert context.stop == STOP_NONE
        context.interrupt()
        assert guest.next_stop() is context
        assert context.stop == STOP_INTERRUPTED
        assert context.regs[reg.RIP] in (CODE, CODE + 3)

    def test_interrupt_before_it_started(self, guest: Guest) -> None:
        space = guest.space(asm.SPIN)
        context = guest.context()
        context.resume(space)
        context.interrupt()
        assert guest.next_stop() is context
        assert context.stop == STOP_INTERRUPTED

    def test_interrupted_context_goes_on(self, guest: Guest) -> None:
        space = guest.space(asm.poll(1))
        flag = guest.map_data(space)
        progress = guest.map_data(space, DATA + 0x1000)
        context = guest.context(rdi=DATA, rsi=DATA + 0x1000)
        for _ in range(20):
            before = guest.word(progress)
            context.resume(space)
            while guest.word(progress) == before:
                guest.platform.wait(MS)
            context.interrupt()
            assert guest.next_stop() is context
            assert context.stop == STOP_INTERRUPTED
        guest.set_word(flag, 1)
        guest.run_to_syscall(context, space)

    def test_processor_time(self, guest: Guest) -> None:
        """What a context has used never shrinks, not even in another space; without running it
        uses none."""
        other = guest.context()
        assert other.cpu_time_ns() == 0
        context, offset = self.spinner(guest)
        while guest.word(offset) < 1_000_000:
            guest.platform.wait(MS)
        context.interrupt()
        assert guest.next_stop() is context
        used_ns = context.cpu_time_ns()
        context.regs[reg.RIP] = CODE
        guest.run_to_syscall(context, guest.space(asm.SYSCALL))
        assert context.cpu_time_ns() >= used_ns
        assert other.cpu_time_ns() == 0

    def test_interrupt_of_a_stopped_context_is_nothing(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.run_to_syscall(guest.context(), space)
        context.interrupt()
        self.drain(guest)
        assert context.stop == STOP_SYSCALL
        guest.run_to_syscall(context, space)

    def test_interrupt_races_with_a_system_call(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.context()
        calls = 0
        for _ in range(200):
            context.resume(space)
            context.interrupt()
            assert guest.next_stop() is context
            assert context.stop in (STOP_SYSCALL, STOP_INTERRUPTED)
            calls += context.stop == STOP_SYSCALL
        guest.run_to_syscall(context, space)

    def test_kick_before_wait(self, guest: Guest) -> None:
        self.spinner(guest)
        guest.platform.kick()
        assert guest.platform.wait() is None

    def test_kick_before_wait_with_nothing_running(self, platform: Platform) -> None:
        platform.kick()
        platform.kick()
        assert platform.wait() is None

    def kicker(self, platform: Platform) -> threading.Thread:
        """A thread that kicks once; started."""
        thread = threading.Thread(target=platform.kick)
        thread.start()
        return thread

    def test_kick_from_another_thread(self, guest: Guest) -> None:
        context, offset = self.spinner(guest)
        for _ in range(50):
            thread = self.kicker(guest.platform)
            assert guest.platform.wait() is None
            thread.join()
        before = guest.word(offset)
        while guest.word(offset) == before:  # it went on running
            guest.platform.wait(MS)
        context.interrupt()
        assert guest.next_stop() is context

    def test_kick_from_another_thread_with_nothing_running(self, platform: Platform) -> None:
        for _ in range(50):
            thread = self.kicker(platform)
            assert platform.wait() is None
            thread.join()

    def test_kicks_beside_system_calls(self, guest: Guest) -> None:
        """A kick is never lost, and costs no stop of a context."""
        platform = guest.platform
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.context()
        kicks = 100
        seen = threading.Semaphore(0)

        def kick() -> None:
            for _ in range(kicks):
                platform.kick()
                seen.acquire()

        thread = threading.Thread(target=kick)
        thread.start()
        calls = nones = 0
        context.resume(space)
        while nones < kicks:
            stopped = platform.wait()
            if stopped is None:
                nones += 1
                seen.release()
            else:
                assert stopped.stop == STOP_SYSCALL
                calls += 1
                stopped.resume(space)
        thread.join()
        assert guest.next_stop() is context

    def test_timeout_with_nothing_running(self, platform: Platform) -> None:
        started = time.monotonic_ns()
        while time.monotonic_ns() - started < 5 * MS:
            assert platform.wait(5 * MS) is None

    def test_timeout_while_running(self, guest: Guest) -> None:
        context, _ = self.spinner(guest)
        for timeout_ns in (3 * MS, 1, MS, 2 * MS):
            assert guest.platform.wait(timeout_ns) is None
        assert context.stop == STOP_NONE

    def test_poll(self, guest: Guest) -> None:
        assert guest.platform.wait(0) is None
        context, _ = self.spinner(guest)
        assert guest.platform.wait(0) is None
        context.interrupt()
        assert guest.next_stop() is context

    def test_system_call_before_the_timeout(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.context()
        for _ in range(100):
            context.resume(space)
            while guest.platform.wait(60_000 * MS) is None:
                pass
            assert_syscall(context)

    def test_two_contexts_in_parallel(self, guest: Guest) -> None:
        """They pass a word back and forth; neither stops before both are done."""
        rounds = 1000
        space = guest.space(asm.ping_pong(rounds))
        offset = guest.map_data(space)
        players = [guest.context(rdi=DATA, rsi=turn) for turn in (0, 1)]
        for player in players:
            player.resume(space)
        stopped = [guest.next_stop() for _ in players]
        assert {id(context) for context in stopped} == {id(player) for player in players}
        for context in stopped:
            assert_syscall(context)
        assert guest.word(offset) == 2 * rounds

    def test_two_contexts_in_two_spaces(self, guest: Guest) -> None:
        rounds = 1000
        offset = guest.pages()
        players = []
        for turn in (0, 1):
            space = guest.space(asm.ping_pong(rounds))
            space.map(DATA, 4096, 3, guest.fd, offset)
            player = guest.context(rdi=DATA, rsi=turn)
            players.append(player)
            player.resume(space)
        for _ in players:
            assert_syscall(guest.next_stop())
        assert guest.word(offset) == 2 * rounds

    def test_many_contexts_in_one_space(self, guest: Guest) -> None:
        """Every one of them makes its calls; the kernel serves them in the order they come."""
        space = guest.space(asm.forever(asm.SYSCALL))
        count, rounds = 20, 50
        contexts = [guest.context(rax=n, rdi=n) for n in range(count)]
        calls = dict.fromkeys(range(count), 0)
        for context in contexts:
            context.resume(space)
        running = count
        while running:
            context = guest.next_stop()
            assert_syscall(context)
            number = context.regs[reg.RDI]
            assert context.regs[reg.ORIG_RAX] == number
            calls[number] += 1
            if calls[number] < rounds:
                context.regs[reg.RAX] = number
                context.resume(space)
            else:
                running -= 1
        assert set(calls.values()) == {rounds}

    def test_alone_and_in_company(self, guest: Guest) -> None:
        """A context that makes calls while another computes, starts and ends beside it."""
        busy_space = guest.space(asm.forever(asm.increment(asm.RDI)))
        word = guest.map_data(busy_space)
        busy = guest.context(rdi=DATA)
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.context()
        for _ in range(5):
            for _ in range(50):
                guest.run_to_syscall(context, space)
            before = guest.word(word)
            busy.resume(busy_space)
            for _ in range(50):
                context.resume(space)
                assert guest.next_stop() is context
            while guest.word(word) == before:
                guest.platform.wait(MS)
            busy.interrupt()
            assert guest.next_stop() is busy

    def test_killed_while_running(self, guest: Guest) -> None:
        context, _ = self.spinner(guest)
        self.kill(context)
        assert guest.next_stop() is context
        assert context.stop == STOP_KILLED
        assert context.message
        guest.run_to_syscall(guest.context(), guest.space(asm.SYSCALL))

    def test_killed_while_stopped(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.run_to_syscall(guest.context(), space)
        self.kill(context)
        context.resume(space)
        assert guest.next_stop() is context
        assert context.stop in (STOP_KILLED, STOP_SYSCALL)
        if context.stop == STOP_SYSCALL:
            context.resume(space)
            assert guest.next_stop().stop == STOP_KILLED

    def test_killed_beside_a_stopped_one(self, guest: Guest) -> None:
        """The first context of a space runs alone, the second is stopped."""
        space = guest.space(asm.SYSCALL + asm.SPIN)
        first, second = (guest.run_to_syscall(guest.context(), space) for _ in range(2))
        first.resume(space)
        self.drain(guest)
        self.kill(first)
        assert guest.next_stop() is first
        assert first.stop == STOP_KILLED
        second.release()
        space.release()

    def test_killed_with_others_in_its_space(self, guest: Guest) -> None:
        """Whether the others go with it is the platform's affair; nothing hangs."""
        space = guest.space(asm.SPIN)
        contexts = [guest.context() for _ in range(4)]
        for context in contexts:
            context.resume(space)
        self.drain(guest)
        self.kill(contexts[0])
        for context in contexts[1:]:
            context.interrupt()
        stopped = [guest.next_stop() for _ in contexts]
        assert {id(context) for context in stopped} == {id(context) for context in contexts}
        assert contexts[0].stop == STOP_KILLED
        space.release()
        for context in contexts:
            context.release()
