"""The sentry's own parts: looking programs up, statuses, reports, and its lifeline."""

from __future__ import annotations

import errno
import os
import signal

import pytest
from pysandbox_core import errors, sentry
from pysandbox_core.config import ProcessSpec
from pysandbox_platform import PlatformError


def test_where_a_program_is_looked_for() -> None:
    assert sentry.candidates(ProcessSpec([b"./x/y"])) == [b"./x/y"]
    spec = ProcessSpec([b"ls"], env=[b"PATH=/bin::/usr/bin"])
    assert sentry.candidates(spec) == [b"/bin/ls", b"./ls", b"/usr/bin/ls"]
    assert sentry.candidates(ProcessSpec([b"ls"]))[0] == b"/usr/local/sbin/ls"


def test_exit_statuses() -> None:
    assert sentry.exit_status(0) == 0
    assert sentry.exit_status(3 << 8) == 3
    assert sentry.exit_status(signal.SIGKILL) == 137
    assert sentry.exit_status(signal.SIGSEGV | 0x80) == 139


def test_statuses_of_errors() -> None:
    assert sentry.status_of_error(errors.CommandNotFoundError("x")) == 127
    assert sentry.status_of_error(errors.CommandNotExecutableError("x")) == 126
    assert sentry.status_of_error(errors.InvalidOptionError("x")) == 125


def test_the_report_of_a_bug_has_the_call_and_the_traceback() -> None:
    try:
        raise KeyError("lost")
    except KeyError as error:
        error.add_note("in system call read(0x3) of <Task 2 cat>")
        text = sentry.describe_failure(error)
    first = text.splitlines()[0]
    assert "in system call read(0x3) of <Task 2 cat>" in first and "KeyError" in first
    assert "Traceback" in text and "test_sentry.py" in text


def test_a_failed_platform_is_no_bug_of_the_kernel() -> None:
    error = PlatformError("stub 7 was lost", errno.ESRCH)
    assert sentry.describe_failure(error) == "the platform failed: stub 7 was lost"


def test_too_few_descriptors_are_no_bug_of_the_kernel() -> None:
    error = OSError(errno.EMFILE, "Too many open files")
    assert sentry.describe_failure(error).startswith("limit reached: files: ")


def test_descriptions_of_builtin_exceptions_are_the_sdks() -> None:
    assert issubclass(errors.CommandNotFoundError, FileNotFoundError)
    assert issubclass(errors.SandboxTimeoutError, TimeoutError)
    assert issubclass(errors.InvalidOptionError, ValueError)


@pytest.mark.parametrize("gone_before", [False, True])
def test_the_lifeline_ends_a_process_that_does_nothing_for_it(gone_before: bool) -> None:
    lifeline, held = os.pipe()
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(held)
        if gone_before:
            os.close(ready)
            os.read(lifeline, 1)  # until the other end is closed
        sentry.tie_to_lifeline(lifeline)
        os.write(tell, b"x")
        while True:  # neither reads nor looks up
            pass
    if not gone_before:
        os.read(ready, 1)
    os.close(held)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    for fd in (lifeline, ready, tell):
        os.close(fd)
