"""The compatibility table: complete, and as it stands in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from pysandbox_core import compat
from pysandbox_core.abi.numbers_amd64 import NUMBERS

ROOT = Path(__file__).parents[3]
IN_REPOSITORY = (ROOT / "docs").is_dir()


def test_every_call_has_an_answer() -> None:
    rows = compat.rows()
    assert {row.name for row in rows} == set(NUMBERS)
    assert [row.name for row in rows if row.answer == "unknown"] == []
    assert all(row.note for row in rows if row.answer.startswith("refused"))


@pytest.mark.skipif(not IN_REPOSITORY, reason="needs the repository's docs/")
def test_the_documentation_is_current() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    assert page == compat.markdown(), "run `nox -s docs`"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == compat.with_summary(readme), "run `nox -s docs`"
