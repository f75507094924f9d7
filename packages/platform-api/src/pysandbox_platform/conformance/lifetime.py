"""What is made is given back: descriptors, processes, memory; closing, and closing again."""

from __future__ import annotations

import gc
import os
import select
from pathlib import Path

import pytest

from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, Guest, PlatformTests
from pysandbox_platform.interface import Platform
from pysandbox_platform.types import PAGE_SIZE, PlatformError

SPACES = 300
SLACK_KIB = 2048
"""What the process may grow by over SPACES spaces: allocators keep some."""
SLACK_DESCRIPTORS = 16
"""What a platform may open when it is first needed, and keep."""


def open_descriptors() -> int:
    """How many descriptors this process has, the one that lists them not counted."""
    return len(os.listdir("/proc/self/fd")) - 1


def resident_kib() -> int:
    """This process's memory that is its own."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


class LifetimeTests(PlatformTests):
    """Objects end when they are released, whatever else goes on."""

    def use_space(self, guest: Guest, code: int) -> None:
        """One space: mapped, run in, released."""
        space = guest.platform.new_address_space()
        space.map(CODE, PAGE_SIZE, 5, guest.fd, code)
        context = guest.context()
        guest.run_to_syscall(context, space)
        context.release()
        space.release()

    def test_probe_leaves_nothing(self) -> None:
        before = open_descriptors(), self.host_tasks()
        for _ in range(3):
            probe = self.platform_class.probe()
            assert probe.reason
        assert (open_descriptors(), self.host_tasks()) == before

    def test_hundreds_of_spaces_one_after_another(self, guest: Guest) -> None:
        code = guest.pages(asm.SYSCALL)
        for _ in range(20):
            self.use_space(guest, code)
        gc.collect()
        before = open_descriptors(), self.host_tasks()
        memory = resident_kib()
        for _ in range(SPACES):
            self.use_space(guest, code)
        gc.collect()
        assert (open_descriptors(), self.host_tasks()) == before
        assert resident_kib() - memory < SLACK_KIB

    def test_nothing_was_killed(self, guest: Guest) -> None:
        """Contexts and spaces that come and go are no loss to tell of."""
        platform = guest.platform
        for _ in range(3):
            self.use_space(guest, guest.pages(asm.SYSCALL))
        platform.check()
        if platform.lost_fd >= 0:
            assert select.select([platform.lost_fd], [], [], 0) == ([], [], [])

    def test_hundreds_of_spaces_at_once(self, guest: Guest) -> None:
        code = guest.pages(asm.SYSCALL)
        before = open_descriptors(), self.host_tasks()
        made = []
        for number in range(200):
            space = guest.platform.new_address_space()
            space.map(CODE, PAGE_SIZE, 5, guest.fd, code)
            context = guest.context(rdi=number)
            guest.run_to_syscall(context, space)
            made.append((space, context))
        for number, (space, context) in enumerate(made):
            context.regs[reg.RIP] = CODE
            guest.run_to_syscall(context, space)
            assert context.regs[reg.RDI] == number
        for space, context in made:
            context.release()
            space.release()
        assert open_descriptors() <= before[0] + SLACK_DESCRIPTORS
        assert self.host_tasks() <= before[1] + 1

    def test_hundreds_of_contexts_in_one_space(self, guest: Guest) -> None:
        space = guest.space(asm.SYSCALL)
        guest.run_to_syscall(guest.context(), space)
        before = open_descriptors(), self.host_tasks()
        for _ in range(SPACES):
            context = guest.run_to_syscall(guest.context(), space)
            context.release()
        assert open_descriptors() <= before[0] + SLACK_DESCRIPTORS
        assert self.host_tasks() == before[1]

    def test_unused_objects(self, platform: Platform) -> None:
        before = open_descriptors()
        for _ in range(SPACES):
            platform.new_address_space().release()
            platform.new_context().release()
        assert open_descriptors() == before

    def test_release_twice(self, guest: Guest) -> None:
        space = guest.space(asm.SYSCALL)
        context = guest.run_to_syscall(guest.context(), space)
        for _ in range(2):
            context.release()
            space.release()

    def test_release_while_others_run(self, guest: Guest) -> None:
        spinning = guest.space(asm.forever(asm.increment(asm.RDI)))
        offset = guest.map_data(spinning)
        spinner = guest.context(rdi=DATA)
        spinner.resume(spinning)
        code = guest.pages(asm.SYSCALL)
        for _ in range(20):
            self.use_space(guest, code)
        before = guest.word(offset)
        while guest.word(offset) == before:
            assert guest.platform.wait(1_000_000) is None

    def test_context_outlives_its_space(self, guest: Guest) -> None:
        space = guest.space(asm.SYSCALL)
        context = guest.run_to_syscall(guest.context(rbx=5), space)
        space.release()
        context.regs[reg.RIP] = CODE
        guest.run_to_syscall(context, guest.space(asm.SYSCALL))
        assert context.regs[reg.RBX] == 5

    def test_processor_time(self, guest: Guest) -> None:
        """Grows while a context runs, is its own, and moves with it."""
        space = guest.space(asm.forever(asm.increment(asm.RDI)))
        guest.map_data(space)
        context = guest.context(rdi=DATA)
        assert context.cpu_time_ns() == 0
        used = 0
        for turn in range(3):
            context.resume(space)
            # It may read 0 for ever where the host keeps no account; then there is nothing to test.
            for _ in range(20):
                guest.platform.wait(1_000_000)
            context.interrupt()
            assert guest.next_stop() is context
            assert context.cpu_time_ns() >= used
            used = context.cpu_time_ns()
            if turn == 1:
                space = guest.space(asm.forever(asm.increment(asm.RDI)))
                guest.map_data(space)
                context.regs[reg.RIP] = CODE
        context.release()
        fresh = guest.context(rdi=DATA)
        assert fresh.cpu_time_ns() == 0
        fresh.resume(space)
        fresh.interrupt()
        assert guest.next_stop() is fresh
        assert fresh.cpu_time_ns() <= used

    def test_context_moves_back_and_forth(self, guest: Guest) -> None:
        spaces = [guest.space(asm.forever(asm.SYSCALL)) for _ in range(3)]
        context = guest.context(rbx=5)
        for turn in range(60):
            guest.run_to_syscall(context, spaces[turn % 3])
            assert context.regs[reg.RBX] == 5 + turn
            context.regs[reg.RBX] += 1
            context.regs[reg.RAX] = 0

    def test_registers_of_a_released_context_do_no_harm(self, platform: Platform) -> None:
        context = platform.new_context()
        regs = context.regs
        context.release()
        regs[reg.RAX] = 1
        assert regs[reg.RAX] == 1

    def test_close(self) -> None:
        if not self.platform_class.probe().usable:
            pytest.skip(f"{self.platform_class.name} can't be used here")
        self.platform_class().close()
        before = open_descriptors(), self.host_tasks()
        platform = self.platform_class()
        guest = Guest(platform)
        idle, spinning = guest.space(asm.SYSCALL), guest.space(asm.SPIN)
        guest.run_to_syscall(guest.context(), idle)
        for _ in range(3):
            guest.context().resume(spinning)
        platform.wait(0)
        platform.close()
        platform.close()
        guest.close()
        assert (open_descriptors(), self.host_tasks()) == before

    def test_closed_platform(self) -> None:
        if not self.platform_class.probe().usable:
            pytest.skip(f"{self.platform_class.name} can't be used here")
        platform = self.platform_class()
        context, space = platform.new_context(), platform.new_address_space()
        platform.close()
        platform.kick()
        context.release()
        space.release()
        with pytest.raises(PlatformError):
            platform.new_context()
        with pytest.raises(PlatformError):
            platform.new_address_space()

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_closed_before_a_stop_was_waited_for(
        self, platform: Platform, interrupted: bool
    ) -> None:
        """The stop is gone with what stopped, or was about to start."""
        guest = Guest(platform)
        context = guest.context()
        context.resume(guest.space(asm.SPIN))
        if interrupted:
            context.interrupt()
        platform.close()
        with pytest.raises(PlatformError):
            platform.wait(0)
        guest.close()

    def test_two_platforms_side_by_side(self, guest: Guest) -> None:
        other = Guest(self.platform_class())
        try:
            for _ in range(3):
                for each in (guest, other):
                    each.run_to_syscall(each.context(), each.space(asm.SYSCALL))
        finally:
            other.platform.close()
            other.close()
