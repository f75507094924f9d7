"""The vDSO as programs meet it: the image, and its code run right here on a parameter page."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from pysandbox_core.time.vdso_page import BASE_TSC, MAX_DELTA, MAX_WINDOW_NS, SEQUENCE, VdsoPage
from pysandbox_core.vdso import build

PAGE = 4096
NAMES = ("clock_gettime", "gettimeofday", "time", "clock_getres", "getcpu")
BOUND_NS = 3 * MAX_WINDOW_NS
RDTSC = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3"
"""rdtsc; shl rdx, 32; or rax, rdx; ret"""
CLOCKS = (
    time.CLOCK_REALTIME,
    time.CLOCK_MONOTONIC,
    time.CLOCK_MONOTONIC_RAW,
    time.CLOCK_BOOTTIME,
    time.CLOCK_TAI,
)


def sections(path: str) -> dict[str, bytes]:
    with open(path, "rb") as file:
        elf = ELFFile(file)
        return {name: elf.get_section_by_name(name).data() for name in (".text", ".rodata")}


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("ld")), reason="no C toolchain")
def test_the_image_is_what_the_source_makes(tmp_path: Path) -> None:
    rebuilt = str(tmp_path / "vdso.so")
    build.build(rebuilt)
    assert sections(rebuilt) == sections(build.IMAGE_PATH)


def test_what_c_libraries_look_for() -> None:
    with open(build.IMAGE_PATH, "rb") as file:
        elf = ELFFile(file)
        loads = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
        assert [(load["p_offset"], load["p_vaddr"], load["p_flags"]) for load in loads] == [
            (0, 0, 5)
        ]
        assert elf.get_section_by_name(".hash") is not None
        assert elf.get_section_by_name(".gnu.hash") is not None
        symbols = elf.get_section_by_name(".dynsym")
        versions = elf.get_section_by_name(".gnu.version")
        found = {
            symbol.name: versions.get_symbol(index)["ndx"]
            for index, symbol in enumerate(symbols.iter_symbols())
        }
        for name in NAMES:
            assert found[f"__vdso_{name}"] == found[name] == 2
        [version] = [
            next(names).name
            for definition, names in elf.get_section_by_name(".gnu.version_d").iter_versions()
            if definition["vd_ndx"] == 2
        ]
        assert version == "LINUX_2.6"
        assert elf.get_section_by_name(".rela.dyn") is None


class Loaded:
    """The image in executable memory with its parameter page below, and its functions."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 4 * PAGE, prot=7)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        image = Path(build.IMAGE_PATH).read_bytes()
        self.memory[PAGE : PAGE + len(image)] = image
        self.memory[3 * PAGE : 3 * PAGE + len(RDTSC)] = RDTSC
        self.words = memoryview(self.memory)[:PAGE].cast("Q")
        self.read_tsc: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_uint64)(self.base + 3 * PAGE)
        with open(build.IMAGE_PATH, "rb") as file:
            symbols = ELFFile(file).get_section_by_name(".dynsym")
            self.addresses = {symbol.name: symbol["st_value"] for symbol in symbols.iter_symbols()}
        self.pair = (ctypes.c_int64 * 2)()

    def call(self, name: str, *arguments: object) -> int:
        kinds = [ctypes.c_long if isinstance(each, int) else ctypes.c_void_p for each in arguments]
        prototype = ctypes.CFUNCTYPE(ctypes.c_long, *kinds)
        address = self.base + PAGE + self.addresses[f"__vdso_{name}"]
        return prototype(address)(*arguments)

    def clock_ns(self, clock_id: int) -> int:
        assert self.call("clock_gettime", clock_id, ctypes.addressof(self.pair)) == 0
        return self.pair[0] * 10**9 + self.pair[1]

    def page(self) -> VdsoPage:
        def read_others() -> tuple[int, int, int, int]:
            raw, real, boot, tai = (time.clock_gettime_ns(clock) for clock in (4, 0, 7, 11))
            return raw, real, boot, tai

        return VdsoPage(self.words, self.read_tsc, time.monotonic_ns, read_others, 4_000_000)


@pytest.fixture
def vdso() -> Iterator[Loaded]:
    yield Loaded()


def settled(vdso: Loaded) -> VdsoPage:
    """A page with an estimate on it."""
    page = vdso.page()
    end_ns = time.monotonic_ns() + 10_000_000_000
    while not vdso.words[MAX_DELTA]:
        page.synchronize()
        assert time.monotonic_ns() < end_ns, "the host's clock could not be read quickly enough"
    return page


@pytest.mark.parametrize("clock_id", CLOCKS)
def test_asks_the_kernel_without_an_estimate(vdso: Loaded, clock_id: int) -> None:
    before = time.clock_gettime_ns(clock_id)
    assert before <= vdso.clock_ns(clock_id) <= time.clock_gettime_ns(clock_id)


@pytest.mark.parametrize("clock_id", CLOCKS)
def test_tells_the_hosts_time_within_the_bound(vdso: Loaded, clock_id: int) -> None:
    settled(vdso)
    vdso.words[MAX_DELTA] = 1 << 62
    before = time.clock_gettime_ns(clock_id)
    told = vdso.clock_ns(clock_id)
    after = time.clock_gettime_ns(clock_id)
    assert before - BOUND_NS <= told <= after + BOUND_NS


def test_agrees_with_the_kernels_own_view(vdso: Loaded) -> None:
    page = settled(vdso)
    page._max_delta = vdso.words[MAX_DELTA] = 1 << 62
    before = page.now_ns()
    told = vdso.clock_ns(time.CLOCK_MONOTONIC)
    after = page.now_ns()
    assert before <= told <= after
    before_raw = page.raw_ns()
    assert before_raw <= vdso.clock_ns(time.CLOCK_MONOTONIC_RAW) <= page.raw_ns()


def test_never_steps_back_across_synchronizations(vdso: Loaded) -> None:
    page = settled(vdso)
    last = dict.fromkeys(CLOCKS, 0)
    for _ in range(200):
        told = {clock_id: vdso.clock_ns(clock_id) for clock_id in CLOCKS[1:4]}
        assert all(last[clock_id] <= now for clock_id, now in told.items())
        last.update(told)
        page.synchronize()


def test_gettimeofday_and_time(vdso: Loaded) -> None:
    settled(vdso)
    zone = (ctypes.c_int32 * 2)(7, 7)
    for max_delta in (1 << 62, 0):
        vdso.words[MAX_DELTA] = max_delta
        before = time.time_ns()
        addresses = ctypes.addressof(vdso.pair), ctypes.addressof(zone)
        assert vdso.call("gettimeofday", *addresses) == 0
        sec, usec = vdso.pair
        assert 0 <= usec < 10**6
        told = sec * 10**9 + usec * 1000
        assert before - BOUND_NS - 1000 <= told <= time.time_ns() + BOUND_NS
        assert list(zone) == [0, 0]
        assert abs(vdso.call("time", 0) - time.time()) < 2
        assert vdso.call("time", addresses[0]) == vdso.pair[0]
    assert vdso.call("gettimeofday", 0, 0) == 0


def test_clock_getres(vdso: Loaded) -> None:
    settled(vdso)
    address = ctypes.addressof(vdso.pair)
    for clock_id, expected in ((0, 1), (1, 1), (4, 1), (5, 4_000_000), (6, 4_000_000), (11, 1)):
        assert vdso.call("clock_getres", clock_id, address) == 0
        assert list(vdso.pair) == [0, expected]
    assert vdso.call("clock_getres", 0, 0) == 0
    assert vdso.call("clock_getres", 2, address) == 0
    assert vdso.call("clock_getres", 12, address) < 0
    assert vdso.call("clock_gettime", -1, address) < 0


def test_getcpu(vdso: Loaded) -> None:
    numbers = (ctypes.c_uint32 * 2)(-1, -1)
    address = ctypes.addressof(numbers)
    assert vdso.call("getcpu", address, address + 4, 0) == 0
    assert numbers[0] != 0xFFFFFFFF


def test_a_counter_before_the_base_asks_the_kernel(vdso: Loaded) -> None:
    settled(vdso)
    vdso.words[BASE_TSC] = 1 << 62
    before = time.monotonic_ns()
    assert before <= vdso.clock_ns(time.CLOCK_MONOTONIC) <= time.monotonic_ns()
    assert vdso.words[SEQUENCE] % 2 == 0
