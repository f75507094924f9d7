"""Messages and descriptors between the SDK and its sentry."""

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest
from pysandbox_core.control import MAX_LENGTH, Channel


@pytest.fixture
def pair() -> tuple[Channel, Channel]:
    one, other = socket.socketpair()
    return Channel(one), Channel(other)


def test_messages_and_descriptors_in_order(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    reader, writer = os.pipe()
    one.send({"first": os.fsdecode(b"\xff")}, (reader, writer))
    one.send({"second": [1, None, "x"]})
    os.close(reader)
    os.close(writer)
    message, fds = other.receive() or ({}, [])
    assert os.fsencode(message["first"]) == b"\xff"
    os.write(fds[1], b"through")
    assert os.read(fds[0], 10) == b"through"
    assert not os.get_inheritable(fds[0])
    for fd in fds:
        os.close(fd)
    assert other.receive() == ({"second": [1, None, "x"]}, [])
    one.close()
    assert other.receive() is None
    other.close()


def test_a_message_larger_than_the_sockets_buffer(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    text = "x" * (4 << 20)
    fd = os.open("/dev/null", os.O_RDONLY)
    thread = threading.Thread(target=one.send, args=({"text": text}, (fd,)))
    thread.start()
    message, fds = other.receive() or ({}, [])
    thread.join()
    assert message["text"] == text and len(fds) == 1
    for descriptor in (fd, *fds):
        os.close(descriptor)
    one.close()
    other.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x01",
        struct.pack("<I", 10) + b"{}",
        struct.pack("<I", MAX_LENGTH + 1),
        struct.pack("<I", 2) + b"[]",
        struct.pack("<I", 2) + b"{{",
        struct.pack("<I", 2) + b"\xff\xfe",
    ],
)
def test_a_peer_that_breaks_the_rules(pair: tuple[Channel, Channel], data: bytes) -> None:
    one, other = pair
    one.socket.sendall(data)
    one.close()
    with pytest.raises(ValueError):
        other.receive()
    other.close()
