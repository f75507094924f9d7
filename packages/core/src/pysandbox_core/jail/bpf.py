"""Compiles a list of allowed system calls to a filter in classic BPF. seccomp(2),
Documentation/userspace-api/seccomp_filter.rst

Interface: `compile_filter(calls)` gives the program, 8 bytes an instruction, for x86-64 alone:
calls of other ABIs (i386, x32) are not in it. What is not allowed kills the process. `refused`
names calls that are answered with an errno instead, for libraries that try them and have another
way.

A filter's answer for a call that is allowed whatever its arguments is remembered by the host's
kernel, so these cost nothing; those with conditions come first, in the order of `calls`.
"""

from __future__ import annotations

import struct
from itertools import product
from typing import TYPE_CHECKING

from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.errors import KernelBug

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pysandbox_platform.host_calls import Condition, HostCall

_ARCH_X86_64 = 0xC000003E
"""AUDIT_ARCH_X86_64"""

# linux/bpf_common.h
_LOAD = 0x20
"""BPF_LD | BPF_W | BPF_ABS"""
_AND = 0x54
"""BPF_ALU | BPF_AND | BPF_K"""
_JUMP_EQUAL = 0x15
"""BPF_JMP | BPF_JEQ | BPF_K"""
_JUMP = 0x05
"""BPF_JMP | BPF_JA: any distance"""
_RETURN = 0x06
"""BPF_RET | BPF_K"""

# offsets in struct seccomp_data
_NUMBER = 0
_ARCH = 4
_ARGUMENTS = 16

# linux/seccomp.h
KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
ERRNO = 0x00050000

_INSTRUCTION = struct.Struct("=HBBI")
_FARTHEST = 255
"""Instructions that a conditional jump can skip."""

Instruction = tuple[int, int, int, int]


def compile_filter(calls: Iterable[HostCall], refused: Mapping[str, int]) -> bytes:
    """The program that allows `calls` and answers `refused` (errno by name)."""
    conditional: dict[int, list[Sequence[Condition]]] = {}
    answers: dict[int, int] = {NUMBERS[name]: ERRNO | errno for name, errno in refused.items()}
    for call in calls:
        number = NUMBERS[call.name]
        if call.conditions:
            conditional.setdefault(number, []).append(call.conditions)
        else:
            answers[number] = ALLOW
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _ARCH_X86_64),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for number, alternatives in conditional.items():
        if number in answers:
            continue  # allowed without conditions as well
        block = [
            step
            for conditions in alternatives
            for separate in product(*map(_whole_values, conditions))
            for step in _alternative(separate)
        ]
        block.append((_RETURN, 0, 0, KILL_PROCESS))
        code += [(_JUMP_EQUAL, 1, 0, number), (_JUMP, 0, 0, len(block)), *block]
    for number, answer in answers.items():
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    code.append((_RETURN, 0, 0, KILL_PROCESS))
    return b"".join(_INSTRUCTION.pack(*step) for step in code)


def _whole_values(condition: Condition) -> list[Condition]:
    """Conditions of which one has to hold, and whose halves can be looked at one by one."""
    if condition.mask <= 0xFFFFFFFF:
        return [condition]
    return [condition._replace(values=(value,)) for value in condition.values]


def _alternative(conditions: Sequence[Condition]) -> list[Instruction]:
    """Allow if all conditions hold, fall through to what follows otherwise."""
    tests: list[list[Instruction]] = []
    for condition in conditions:
        for shift in (0, 32):
            mask = condition.mask >> shift & 0xFFFFFFFF
            if mask:
                values = {value >> shift & mask for value in condition.values}
                tests.append(_test(condition.argument, shift, mask, sorted(values)))
    code: list[Instruction] = [(_RETURN, 0, 0, ALLOW)]
    for test in reversed(tests):
        # the last comparison of a test is the one that gives up: it skips all that is left
        operation, _, _, value = test[-1]
        code = [*test[:-1], (operation, 0, _reach(len(code)), value), *code]
    return code


def _test(argument: int, shift: int, mask: int, values: Sequence[int]) -> list[Instruction]:
    """Go on after the last instruction if half of an argument is one of `values`."""
    code: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument + shift // 8)]
    if mask != 0xFFFFFFFF:
        code.append((_AND, 0, 0, mask))
    last = len(values) - 1
    code += [(_JUMP_EQUAL, last - i, 0, value) for i, value in enumerate(values)]
    return code


def _reach(distance: int) -> int:
    if distance > _FARTHEST:
        raise KernelBug("a system call's conditions are too long for one jump")
    return distance
