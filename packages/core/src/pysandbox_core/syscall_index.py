"""Writes syscalls/index.py: which family declares which system call.

`python -m pysandbox_core.syscall_index` does it; a test says when it has to be done.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from pysandbox_core import syscalls
from pysandbox_core.declare import DECLARATIONS

HEADER = '''\
"""Which family declares which system call, so that one is imported when it is first called.

Written by `python -m pysandbox_core.syscall_index`.
"""

from __future__ import annotations

CALLS: dict[str, str] = {
'''


def index_text() -> str:
    """What syscalls/index.py has to be."""
    for path in sorted(Path(syscalls.__path__[0]).glob("*.py")):
        if path.stem not in ("__init__", "index"):
            syscalls.declare_family(path.stem)
    calls: dict[str, list[str]] = {}
    for declaration in DECLARATIONS.values():
        calls.setdefault(declaration.module.rpartition(".")[2], []).append(declaration.name)
    lines = []
    for family in sorted(calls):
        text = " ".join(sorted(calls[family]))
        line = f'    "{family}": "{text}",'
        if len(line) <= 100:
            lines.append(line)
            continue
        parts = [text] if len(text) <= 90 else textwrap.wrap(text, 88)  # as ruff formats it
        lines.append(f'    "{family}": (')
        lines += [f'        "{part} "' for part in parts[:-1]]
        lines += [f'        "{parts[-1]}"', "    ),"]
    return HEADER + "\n".join(lines) + "\n}\n"


def main() -> None:
    Path(syscalls.__path__[0], "index.py").write_text(index_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
