"""Every test that docs/security.md names exists."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(\w+)::(\w+)`")


def test_its_claims_are_held_by_tests_that_exist() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(NAMED.findall(page))
    assert len(named) > 30
    sources: dict[str, str] = defaultdict(str)
    for folder in (*ROOT.glob("packages/*/tests"), ROOT / "tests"):
        for path in folder.rglob("test_*.py"):
            sources[path.stem.removeprefix("test_")] += path.read_text(encoding="utf-8")
    missing = [
        f"{module}::{name}"
        for module, name in sorted(named)
        if f"def test_{name}(" not in sources[module]
    ]
    assert not missing
