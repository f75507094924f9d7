"""What the tests of the whole share: the platforms to run on and fresh working directories."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import side_by_side


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `platform` runs once on each platform that can be used here."""
    if "platform" in metafunc.fixturenames:
        usable = [name for name, usable in side_by_side.usable_platforms().items() if usable]
        metafunc.parametrize("platform", usable, scope="session")


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
