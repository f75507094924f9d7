"""The compatibility table: every system call of x86-64 and what the kernel makes of it.

`python -m pysandbox_core.compat` prints it as Markdown; given the root of the repository it writes
docs/compatibility.md and the summary in README.md, and a test says so when they are out of date.
All of it comes from the declarations: nothing is written twice.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import NamedTuple

from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.declare import DECLARATIONS
from pysandbox_core.syscalls import declare_all

HEADER = """\
# System calls

Made from the declarations in `packages/core` by `nox -s docs`; not to be edited.

*implemented* calls behave as their Linux man pages say, but for what the note says. *refused* ones
always fail with the errno named, for the reason given; so do *unknown* ones, with ENOSYS.

{implemented} of {total} calls are implemented, {refused} are refused{unknown}.

| number | call | answer | note |
| ---: | --- | --- | --- |
"""

START_MARK = "<!-- compatibility: written by `nox -s docs` -->"
END_MARK = "<!-- end of compatibility -->"


class Row(NamedTuple):
    """One line of the table."""

    number: int
    name: str
    answer: str
    note: str


def rows() -> list[Row]:
    """Every call of the architecture, by number."""
    declare_all()
    table = []
    for name, number in sorted(NUMBERS.items(), key=lambda item: item[1]):
        declaration = DECLARATIONS.get(number)
        if declaration is None:
            table.append(Row(number, name, "unknown", ""))
        elif declaration.handler is None:
            answer = f"refused: {errno.errorcode[declaration.errno]}"
            table.append(Row(number, name, answer, declaration.note))
        else:
            table.append(Row(number, name, "implemented", declaration.note))
    return table


def markdown() -> str:
    """The page."""
    table = rows()
    implemented = sum(row.answer == "implemented" for row in table)
    unknown = sum(row.answer == "unknown" for row in table)
    header = HEADER.format(
        implemented=implemented,
        total=len(table),
        refused=len(table) - implemented - unknown,
        unknown=f", {unknown} are unknown" if unknown else "",
    )
    return header + "".join(
        f"| {row.number} | `{row.name}` | {row.answer} | {row.note.replace('|', '&#124;')} |\n"
        for row in table
    )


def summary() -> str:
    """The short form: how many, and which are refused."""
    table = rows()
    refused: dict[str, list[str]] = {}
    for row in table:
        if row.answer != "implemented":
            refused.setdefault(row.answer.removeprefix("refused: "), []).append(f"`{row.name}`")
    implemented = sum(row.answer == "implemented" for row in table)
    text = f"{implemented} of x86-64's {len(table)} system calls are implemented. "
    text += "The others have a documented answer:\n\n"
    return text + "".join(
        f"- {answer}: {', '.join(refused[answer])}\n" for answer in sorted(refused)
    )


def with_summary(page: str) -> str:
    """README.md with the summary of now between its two marks."""
    start = page.index(START_MARK) + len(START_MARK)
    return page[:start] + "\n" + summary() + page[page.index(END_MARK) :]


def main() -> None:
    if len(sys.argv) == 1:
        sys.stdout.write(markdown())
        return
    root = Path(sys.argv[1])
    (root / "docs" / "compatibility.md").write_text(markdown(), encoding="utf-8")
    readme = root / "README.md"
    readme.write_text(with_summary(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
