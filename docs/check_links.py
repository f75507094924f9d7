"""Check that links between Markdown pages of the repository lead somewhere.

Usage: python docs/check_links.py PAGE…; prints each link that does not, and fails if there is one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def dead_links(page: Path) -> list[str]:
    """Targets of relative links in `page` that do not exist."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    return [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]


def main() -> int:
    failed = 0
    for name in sys.argv[1:]:
        for target in dead_links(Path(name)):
            print(f"{name}: {target} does not exist")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
