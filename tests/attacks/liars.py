"""Sentries that a program has taken over, as the SDK sees them: what comes through the connection
and the pipes, and how the process ends.

Interface: test_channel.py starts this file in the place of the real one, with the name of a lie in
the environment (LIAR). `OPENING` are lies about being ready, `ENDING` about a program that was
started; the latter are told by one that was ready as it should be.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from pysandbox_core.control import Channel

Opening = Callable[[Channel], object]
Ending = Callable[[Channel, list[int]], object]
OPENING: dict[str, Opening] = {}
ENDING: dict[str, Ending] = {}

READY = {"ready": "liar", "off": {}}
DEEP = b"[" * 200_000
USAGE = {"cpu_time": 0.5, "max_memory": 4096}


def frame(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


def opening(lie: Opening) -> Opening:
    OPENING[lie.__name__] = lie
    return lie


def ending(lie: Ending) -> Ending:
    ENDING[lie.__name__] = lie
    return lie


def never() -> None:
    while True:
        signal.pause()


def says(name: str, data: bytes) -> None:
    """Two lies: `data` about being ready, and the same when it is asked why it ends."""

    def at_first(channel: Channel) -> None:
        channel.socket.sendall(data)
        never()

    def at_last(channel: Channel, fds: list[int]) -> None:
        os.close(fds[3])
        at_first(channel)

    OPENING[name] = at_first
    ENDING[f"failure_{name}"] = at_last


says("no_json", frame(b"\xff\xfe nothing"))
says("no_object", frame(b"[1, 2]"))
says("too_deep", frame(DEEP))
says("a_huge_length", b"\xff\xff\xff\xff" + bytes(100))
says("a_large_message", frame(b'{"failed": "' + b"x" * (2 << 20) + b'"}'))
says("half_a_length", b"\x01")
says("half_a_message", struct.pack("<I", 100) + b"{")
says("nothing_at_all", b"")
says("another_message", frame(b'{"exited": 0}'))


@opening
def wrong_types(channel: Channel) -> None:
    channel.send({"ready": ["ptrace"], "off": "none"})


@opening
def ends_at_once(channel: Channel) -> None:
    os._exit(0)


@opening
def a_byte_now_and_then(channel: Channel) -> None:
    for byte in frame(json.dumps(READY).encode()) * 1000:
        channel.socket.sendall(bytes([byte]))
        time.sleep(0.1)


@opening
def descriptors_nobody_wants(channel: Channel) -> None:
    channel.send(READY, (0, 1, 0, 1))
    socket.send_fds(channel.socket, [frame(b'{"failed": "x"}')], [0] * 100)
    never()


# How programs end.


def ends_with(name: str, answer: object) -> None:
    def lie(channel: Channel, fds: list[int]) -> None:
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        os.write(fds[3], text + b"\n")
        never()

    ENDING[name] = lie


ends_with("line_no_json", b"\xff\xfe")
ends_with("line_no_object", [0])
ends_with("line_of_nothing", {})
ends_with("line_too_deep", DEEP[:60_000])
ends_with("two_lines", b'{"exited": 0}\n{"exited": 1}')
ends_with("status_as_text", {"exited": "0", "usage": USAGE, "limit": None})
ends_with("status_as_truth", {"exited": True, "usage": USAGE, "limit": None})
ends_with("status_below_0", {"exited": -1, "usage": USAGE, "limit": None})
ends_with("status_too_large", {"exited": 1 << 40, "usage": USAGE, "limit": None})
ends_with("status_of_a_stop", {"exited": 0x137F, "usage": USAGE, "limit": None})
ends_with("usage_missing", {"exited": 0})
ends_with("usage_no_object", {"exited": 0, "usage": [1, 2], "limit": None})
ends_with("usage_with_more", {"exited": 0, "usage": {**USAGE, "self": 1}, "limit": None})
ends_with(
    "usage_without_end",
    {"exited": 0, "usage": {"cpu_time": float("inf"), "max_memory": 0}, "limit": None},
)
ends_with(
    "usage_no_number",
    {"exited": 0, "usage": {"cpu_time": float("nan"), "max_memory": 0}, "limit": None},
)
ends_with(
    "usage_as_text", {"exited": 0, "usage": {"cpu_time": "1", "max_memory": "1"}, "limit": None}
)
ends_with("limit_unknown", {"exited": 0, "usage": USAGE, "limit": ["memory"]})


@ending
def endless_line(channel: Channel, fds: list[int]) -> None:
    while True:
        os.write(fds[3], b"x" * 65536)


@ending
def closes_the_connection(channel: Channel, fds: list[int]) -> None:
    os.close(fds[3])
    channel.socket.shutdown(socket.SHUT_RDWR)
    never()


# What is no lie about a program's end, and is called by its name.

OTHERS: dict[str, Ending] = {}


def other(lie: Ending) -> Ending:
    OTHERS[lie.__name__] = lie
    return lie


@other
def honest(channel: Channel, fds: list[int]) -> None:
    os.write(fds[1], b"output")
    os.write(fds[3], json.dumps({"exited": 0, "usage": USAGE, "limit": None}).encode() + b"\n")


@other
def not_executed(channel: Channel, fds: list[int]) -> None:
    """The text is for a terminal, and long."""
    answer = {"failed": "linux_errors", "message": "\33]0;owned\7\u202e\r" + "x" * 300_000}
    os.write(fds[3], json.dumps(answer).encode() + b"\n")


@other
def endless_output(channel: Channel, fds: list[int]) -> None:
    honest(channel, fds)
    while True:
        os.write(fds[1], b"y" * 65536)


@other
def takes_the_line_back(channel: Channel, fds: list[int]) -> None:
    """The other end of a pipe can be opened by who has one of them."""
    reader = os.open(f"/proc/self/fd/{fds[3]}", os.O_RDONLY | os.O_NONBLOCK)
    while True:
        os.write(fds[3], b" ")
        with suppress(BlockingIOError):
            os.read(reader, 4096)


@other
def takes_the_output_back(channel: Channel, fds: list[int]) -> None:
    reader = os.open(f"/proc/self/fd/{fds[1]}", os.O_RDONLY | os.O_NONBLOCK)
    for _ in range(100_000):
        os.write(fds[1], b" ")
        with suppress(BlockingIOError):
            os.read(reader, 4096)
    honest(channel, fds)


@other
def does_not_answer(channel: Channel, fds: list[int]) -> None:
    never()


@other
def is_killed_by_its_filter(channel: Channel, fds: list[int]) -> None:
    os.kill(os.getpid(), signal.SIGSYS)


@other
def is_killed_by_the_clock(channel: Channel, fds: list[int]) -> None:
    os.kill(os.getpid(), signal.SIGALRM)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = Channel(socket.socket(fileno=int(sys.argv[-2])))
    name = os.environ["LIAR"]
    channel.receive()
    if name in OPENING:
        OPENING[name](channel)
        return
    channel.send(READY)
    while received := channel.receive():
        _, fds = received
        if fds:
            (ENDING | OTHERS)[name](channel, fds)
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)


if __name__ == "__main__":
    main()
