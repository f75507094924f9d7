"""What the front makes of signals and of what the sentry says, in whatever order they come."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from pysandbox import job_control
from pysandbox.job_control import Job

SENTRY = 1 << 22
"""No process has it."""
TSTP, CONT, STOP = signal.SIGTSTP, signal.SIGCONT, signal.SIGSTOP


class Front:
    """A job, the pipe that it reads, and the signals that it has sent."""

    def __init__(self, reader: int, writer: int) -> None:
        os.set_blocking(reader, False)
        self.writer = writer
        self.sent: list[tuple[int, int]] = []
        self.job = Job(SENTRY, reader)

    def says(self, words: bytes) -> None:
        os.write(self.writer, words)
        self.job.read_requests()


@pytest.fixture(params=[False, True], ids=["in a script", "leads a job"])
def front(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    reader, writer = os.pipe()
    monkeypatch.setattr(os, "getpgrp", os.getpid if request.param else lambda: 0)
    monkeypatch.setattr(job_control, "is_in_background", lambda: False)
    made = Front(reader, writer)
    monkeypatch.setattr(os, "kill", lambda pid, signo: made.sent.append((pid, signo)))
    yield made
    os.close(reader)
    os.close(writer)


def test_it_stops_when_it_was_told_to(front: Front) -> None:
    front.job.signalled(TSTP)
    assert front.sent == []
    front.says(b"s")
    assert front.sent == [(SENTRY, STOP)]
    front.job.sentry_stopped()
    assert front.sent[1:] == [(os.getpid(), STOP)]
    front.job.sentry_stopped()
    assert len(front.sent) == 2


@pytest.mark.parametrize("words", [[b"s", b"c"], [b"sc"]])
def test_it_goes_on_when_it_was_continued_before(front: Front, words: list[bytes]) -> None:
    front.job.signalled(TSTP)
    front.job.signalled(CONT)
    for word in words:
        front.says(word)
    assert front.sent == []
    front.job.signalled(TSTP)
    front.says(b"s")
    assert front.sent == [(SENTRY, STOP)]


def test_it_goes_on_when_it_was_continued_between(front: Front) -> None:
    front.job.signalled(TSTP)
    front.says(b"s")
    front.job.signalled(CONT)
    front.job.sentry_stopped()
    assert front.sent == [(SENTRY, STOP)]


def test_it_stops_again_after_it_was_continued(front: Front) -> None:
    for _ in range(3):
        front.job.signalled(TSTP)
        front.says(b"s")
        front.job.sentry_stopped()
        front.job.signalled(CONT)
        front.says(b"cc")
    assert len(front.sent) == 6


def test_many_words(front: Front) -> None:
    """The sentry would wait for room in the pipe, for ever, if some were left."""
    front.job.signalled(TSTP)
    front.says(b"sc" * 20_000 + b"s")
    assert front.sent == [(SENTRY, STOP)]
    with pytest.raises(BlockingIOError):
        os.read(front.job._requests, 1)


def test_nothing_was_said(front: Front) -> None:
    front.job.signalled(TSTP)
    front.job.read_requests()
    assert front.sent == []
