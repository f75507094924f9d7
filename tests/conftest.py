"""What the tests of the whole share: the platforms to run on and fresh working directories."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import side_by_side


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `platform` runs once on each; it is skipped on those that can't be used
    here, with the reason. One that asks for `best_platform` is about the kernel alone and takes
    long: it runs on the fastest, or on all with PYSANDBOX_ALL_PLATFORMS=1."""
    if "best_platform" in metafunc.fixturenames:
        metafunc.parametrize("best_platform", _best(), scope="session")
    if "platform" in metafunc.fixturenames:
        metafunc.parametrize(
            "platform",
            [pytest.param(name, marks=_skip(name)) for name in side_by_side.probes()],
            scope="session",
        )


def _best() -> list[str]:
    usable = [name for name, probe in side_by_side.probes().items() if probe.usable]
    if os.environ.get("PYSANDBOX_ALL_PLATFORMS") == "1":
        return usable
    return sorted(usable, key=lambda name: side_by_side.probes()[name].rank)[-1:]


def _skip(platform: str) -> list[pytest.MarkDecorator]:
    probe = side_by_side.probes()[platform]
    reason = f"{platform} can't be used here: {probe.reason}"
    return [] if probe.usable else [pytest.mark.skip(reason=reason)]


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory that every user may search: some programs go on as an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="pysandbox-test-", ignore_cleanup_errors=True) as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


@pytest.fixture
def new_workdir(scratch: Path) -> Callable[[], Path]:
    """Makes empty working directories."""

    def make() -> Path:
        path = Path(tempfile.mkdtemp(dir=scratch))
        path.chmod(0o755)
        return path

    return make
