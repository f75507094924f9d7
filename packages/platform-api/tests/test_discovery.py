"""Discovery: what is published is found, what is broken is named, and nothing harms the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path

import pysandbox_platform
import pytest
import stevedore
from pysandbox_platform.entry_points import _parse, resolve, scan

PLATFORM = """
from pysandbox_platform import AddressSpace, Context, Platform, Probe

class Example(Platform):
    name = "{name}"
    @classmethod
    def probe(cls):
        {probe}
    def new_address_space(self): raise NotImplementedError
    def new_context(self): raise NotImplementedError
    def wait(self, timeout_ns=None): raise NotImplementedError
    def kick(self): raise NotImplementedError
    def read_tsc(self): return 0
    def close(self): pass
"""

USABLE = 'return Probe(True, "fine", {rank})'
UNUSABLE = 'return Probe(False, "no /dev/example")'


PRELUDE = """
import sys
sys.path[:0] = sys.argv[1:]
from pysandbox_platform import PlatformUnavailableError, discovery

def attempt(call):
    try:
        print(call())
    except PlatformUnavailableError as error:
        print(error)
"""


class Site:
    """A directory of installed distributions, and a Python that sees no others."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "site"
        self.directory.mkdir()
        self.modules = root / "modules"
        self.modules.mkdir()
        for package in (pysandbox_platform, stevedore):
            source = Path(str(package.__file__)).parent
            (self.modules / package.__name__).symlink_to(source)

    def publish(self, name: str, module: str, attribute: str = "Example") -> None:
        """Installs a distribution with one module and one entry point for it."""
        module_name = f"{name}_platform"
        (self.directory / f"{module_name}.py").write_text(module)
        info = self.directory / f"{name}_package-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(
            f"[console_scripts]\n{name} = nothing:main\n\n"
            f"[pysandbox.platforms]\n# a comment\n{name} = {module_name}:{attribute} [extra]\n"
        )

    def platform(self, name: str, probe: str) -> None:
        """Publishes a class that derives from Platform."""
        self.publish(name, PLATFORM.format(name=name, probe=probe))

    def run(self, code: str) -> list[str]:
        """Lines that `code` prints; it sees `discovery` and `attempt`."""
        program = PRELUDE + textwrap.dedent(code)
        arguments = [str(self.directory), str(self.modules)]
        result = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "error", "-c", program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(self.directory)},
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_nothing_installed(site: Site) -> None:
    lines = site.run("""
        print(discovery.platforms(), discovery.names())
        attempt(lambda: discovery.load("kvm"))
        attempt(lambda: discovery.best())
    """)
    assert lines[0] == "[] []"
    assert lines[1].startswith("no platform 'kvm': none is installed; try 'pip install")
    assert lines[2].startswith("no platform is installed; try 'pip install")


def test_everything_is_listed_the_best_first(site: Site) -> None:
    site.platform("slow", USABLE.format(rank=10))
    site.platform("fast", USABLE.format(rank=90))
    site.platform("absent", UNUSABLE)
    lines = site.run("""
        for f in discovery.platforms():
            print(f.name, f.package, f.version, f.platform.__name__, f.error, f.probe.reason)
        print(discovery.names(), discovery.best().name)
    """)
    assert lines == [
        "fast fast-package 1.2 Example  fine",
        "slow slow-package 1.2 Example  fine",
        "absent absent-package 1.2 Example  no /dev/example",
        "['absent', 'fast', 'slow'] fast",
    ]


BROKEN = {
    "raises": ("raise OSError('libexample.so is missing')", "OSError: libexample.so is missing"),
    "imports": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax": ("def", "SyntaxError: "),
    "exits": ("raise SystemExit('no')", "SystemExit: no"),
    "asserts": ("assert 1 == 2, 'sums'", "AssertionError: sums"),
    "empty": ("", "AttributeError: "),
    "function": ("def Example(): pass", "TypeError: <function Example"),
    "stranger": ("class Example: pass", "TypeError: <class 'stranger_platform.Example'> is not a"),
    "partial": (
        "from pysandbox_platform import Platform\nclass Example(Platform): name = 'partial'",
        "TypeError: Example lacks close, kick,",
    ),
    "misnamed": (PLATFORM.format(name="other", probe=UNUSABLE), "TypeError: Example.name is"),
    "probing": (PLATFORM.format(name="probing", probe="1 / 0"), "ZeroDivisionError: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_one_is_named_and_harms_nothing(site: Site, name: str) -> None:
    module, error = BROKEN[name]
    site.publish(name, module)
    site.platform("good", USABLE.format(rank=1))
    lines = site.run("""
        for f in discovery.platforms():
            print(f.name, f.package, f.platform is None, f.probe.usable, f.error)
        print(discovery.best().name, discovery.load("good").name)
    """)
    assert lines[0] == "good good-package False True "
    assert lines[1].startswith(f"{name} {name}-package True False {error}")
    assert lines[2] == "good good"


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "probing"])
def test_load_of_a_broken_one(site: Site, name: str) -> None:
    module, error = BROKEN[name]
    site.publish(name, module)
    (line,) = site.run(f"attempt(lambda: discovery.load({name!r}))")
    assert line.startswith(f"platform {name!r} ({name}_platform:Example) is broken: {error}")


def test_unknown_name(site: Site) -> None:
    site.platform("b", UNUSABLE)
    site.platform("a", UNUSABLE)
    lines = site.run("""attempt(lambda: discovery.load("c"))""")
    assert lines == ["no platform 'c'; installed are: a, b"]


def test_unusable(site: Site) -> None:
    site.platform("absent", UNUSABLE)
    lines = site.run("""
        print(discovery.load("absent").name)
        attempt(lambda: discovery.require("absent"))
        attempt(lambda: discovery.best())
    """)
    assert lines == [
        "absent",
        "platform 'absent' can't be used here: no /dev/example",
        "no platform can be used here (absent: no /dev/example)",
    ]


def test_load_imports_only_what_it_needs(site: Site) -> None:
    """Start-up time: see `entry_points`."""
    site.platform("wanted", USABLE.format(rank=1))
    site.publish("other", "raise SystemExit('only best imports it')")
    lines = site.run("""
        print(discovery.load("wanted").name, discovery.best().name)
        print([m for m in ("stevedore", "importlib.metadata", "email", "dataclasses", "logging")
               if m in sys.modules])
    """)
    assert lines == ["wanted wanted", "[]"]


def test_the_first_on_the_path_is_loaded(site: Site, tmp_path: Path) -> None:
    site.platform("twice", UNUSABLE)
    (tmp_path / "second").mkdir()
    second = Site(tmp_path / "second")
    second.publish("twice", "raise OSError")
    lines = site.run(f"""
        sys.path.append({str(second.directory)!r})
        print(discovery.load("twice").name)
    """)
    assert lines == ["twice"]


def test_scan_reads_the_format() -> None:
    text = """
    [other]
    a = wrong:W
    [pysandbox.platforms]
    # a = commented:C
    ab = other:O
    no equals sign

    a=right.module:Class.Inner [extra1, extra2]
    [third]
    a = wrong:W
    """
    found = list(_parse(text, "pysandbox.platforms"))
    assert found == [("ab", "other:O"), ("a", "right.module:Class.Inner")]
    assert not list(_parse("", "pysandbox.platforms"))


def test_scan_passes_over_what_it_can_t_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "odd-1.dist-info").mkdir()
    (tmp_path / "directory" / "binary-1.dist-info").mkdir()
    (tmp_path / "directory" / "binary-1.dist-info" / "entry_points.txt").write_bytes(
        b"[pysandbox.platforms]\n\xff = \xfe\n"
    )
    paths = [str(tmp_path / name) for name in ("nothing", "file.txt", "directory")]
    monkeypatch.setattr(sys, "path", paths)
    assert "ptrace" not in scan("pysandbox.platforms")


def test_resolve() -> None:
    assert resolve("os.path:join") is os.path.join
    assert resolve("collections:OrderedDict.fromkeys") == OrderedDict.fromkeys
    assert resolve("sys") is sys
