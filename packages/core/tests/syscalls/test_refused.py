"""Every system call of the ABI has an entry: a handler, or a documented errno."""

from __future__ import annotations

import errno

from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.declare import DECLARATIONS
from pysandbox_core.syscalls import declare_all

declare_all()


def test_every_number_is_declared() -> None:
    missing = [name for name, number in NUMBERS.items() if number not in DECLARATIONS]
    assert missing == []


def test_a_refused_call_says_why() -> None:
    for declaration in DECLARATIONS.values():
        if declaration.handler is None:
            assert declaration.errno in errno.errorcode, declaration.name
            assert declaration.note, declaration.name


def test_a_handler_has_a_docstring_from_its_man_page() -> None:
    without = [
        declaration.name
        for declaration in DECLARATIONS.values()
        if declaration.handler is not None and not declaration.handler.__doc__
    ]
    assert without == []
