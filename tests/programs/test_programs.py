"""Programs that must run as they do natively: same standard output, same exit status.

Each script of `scripts/` runs on the host first and then in the sandbox, whose lower layer is the
host's own root; afterwards nothing of what it wrote may be on the host.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import side_by_side

SCRIPTS = Path(__file__).parent / "scripts"

PROGRAMS: dict[str, tuple[str, ...]] = {
    "true": ("/bin/true",),
    "false": ("/bin/false",),
    "busybox": ("busybox", "sh", "busybox.sh"),
    "dash": ("dash", "dash.sh"),
    "bash": ("bash", "bash.bash"),
    "coreutils": ("bash", "coreutils.sh"),
    "findutils": ("bash", "findutils.sh"),
    "grep_sed_awk": ("bash", "text.sh"),
    "tar_gzip": ("bash", "archives.sh"),
    "perl": ("perl", "perl.pl"),
    "git": ("bash", "git.sh"),
    "gcc": ("bash", "gcc.sh"),
}
"""Name -> the command; a word that names a script stands for its path."""

PYTHON_SCRIPTS = sorted(path.stem for path in SCRIPTS.glob("python_*.py"))
PYTHONS = {"debian": "/usr/bin/python3", "own": sys.executable}

NewWorkdir = Callable[[], Path]


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(platform: str, program: str, new_workdir: NewWorkdir) -> None:
    compare(platform, PROGRAMS[program], new_workdir)


@pytest.mark.parametrize("script", PYTHON_SCRIPTS)
@pytest.mark.parametrize("python", PYTHONS)
def test_python(platform: str, python: str, script: str, new_workdir: NewWorkdir) -> None:
    compare(platform, (PYTHONS[python], f"{script}.py"), new_workdir)


def compare(platform: str, command: tuple[str, ...], new_workdir: NewWorkdir) -> None:
    """Run `command` both ways in fresh directories and fail with what differs."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed; see tests/debian-packages.txt")
    argv = [str(SCRIPTS / word) if (SCRIPTS / word).is_file() else word for word in command]
    native_dir, sandbox_dir = new_workdir(), new_workdir()
    expected = side_by_side.native(argv, native_dir, {"HOME": str(native_dir)})
    got = side_by_side.sandboxed(platform, argv, sandbox_dir, {"HOME": str(sandbox_dir)})
    differs = side_by_side.difference(expected, got)
    assert not differs, f"{' '.join(command)} on {platform}:\n{differs}"
    left = sorted(path.name for path in sandbox_dir.iterdir())
    assert not left, f"written to the host: {left}"
