"""#! lines, cut and split as Linux does it."""

from __future__ import annotations

from errno import ENOEXEC

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysandbox_core.errors import LinuxError
from pysandbox_core.loader.script import BINPRM_BUF_SIZE, parse


@pytest.mark.parametrize(
    ("head", "interpreter", "argument"),
    [
        (b"#!/bin/sh\n", b"/bin/sh", None),
        (b"#! /bin/sh\n", b"/bin/sh", None),
        (b"#!\t /bin/sh \t\n", b"/bin/sh", None),
        (b"#!/bin/sh -e\n", b"/bin/sh", b"-e"),
        (b"#!/bin/sh  -e  -x \necho", b"/bin/sh", b"-e  -x"),
        (b"#!/usr/bin/env\tpython3\n", b"/usr/bin/env", b"python3"),
        (b"#!/bin/sh", b"/bin/sh", None),
        (b"#!/bin/sh -e", b"/bin/sh", b"-e"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r", None),
        (b"#!/bin/sh\0-e\n", b"/bin/sh", None),
        (b"#!/bin/sh -e\0x\n", b"/bin/sh", b"-e"),
        (b"#!" + b"/" * 200 + b" " + b"a" * 100 + b"\n", b"/" * 200, b"a" * 52),
        (b"#!" + b"/" * 253 + b"\n", b"/" * 253, None),
    ],
)
def test_interpreter_and_argument(head, interpreter, argument):
    assert parse(head) == (interpreter, argument)


@pytest.mark.parametrize(
    "head",
    [b"#!\n", b"#! \t\n", b"#!" + b" " * 300, b"#!" + b"/" * 254 + b"\n", b"#!" + b"/" * 300],
)
def test_no_interpreter(head):
    with pytest.raises(LinuxError) as caught:
        parse(head)
    assert caught.value.errno == ENOEXEC


@pytest.mark.parametrize("head", [b"", b"#", b"\x7fELF", b" #!/bin/sh\n"])
def test_no_script(head):
    assert parse(head) is None


@given(st.binary(max_size=400))
def test_any_bytes(rest):
    try:
        found = parse(b"#!" + rest)
    except LinuxError as error:
        assert error.errno == ENOEXEC
        return
    assert found is not None
    assert len(found.interpreter) < BINPRM_BUF_SIZE
    for text in (found.interpreter, found.argument or b""):
        assert b"\n" not in text
        assert b"\0" not in text
