"""What the SDK and its sentry say to each other: JSON messages over a socket, with descriptors.

Interface: a `Channel` wraps one end of a connected AF_UNIX stream socket. `send` and `receive`
carry whole messages, dicts of JSON values, and the descriptors that go with them. Bytes (paths,
arguments) travel as text decoded with os.fsdecode. One thread at a time may send, one may receive;
with a `deadline` (time.monotonic) one may do either.

Frame: length of the JSON text (u32, little-endian), the text. Descriptors ride on the first byte.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]

_HEADER = struct.Struct("<I")
MAX_LENGTH = 64 << 20
"""Bytes of a message: more is a broken peer, not a long command line."""
MAX_ANSWER = 1 << 20
"""Bytes of what a sentry says: names, numbers, a traceback."""
MAX_FDS = 4


class Channel:
    """One end of the conversation; owns its socket."""

    def __init__(self, connection: socket.socket, max_length: int = MAX_LENGTH) -> None:
        """`max_length`: bytes of a message that is received."""
        self.socket = connection
        self.max_length = max_length

    def send(
        self, message: Message, fds: tuple[int, ...] = (), deadline: float | None = None
    ) -> None:
        """Send a message and copies of `fds`. BrokenPipeError or ConnectionResetError if the other
        end is gone; TimeoutError if it has not taken all at `deadline`, and nothing may follow;
        ValueError, and nothing is sent, if it is longer than any that is received."""
        text = json.dumps(message).encode()
        if len(text) > MAX_LENGTH:
            raise ValueError(f"a message of {len(text)} bytes")
        frame = memoryview(_HEADER.pack(len(text)) + text)
        self._wait_until(deadline)
        sent = socket.send_fds(self.socket, [frame], list(fds)) if fds else 0
        if sent < len(frame):
            self._wait_until(deadline)
            self.socket.sendall(frame[sent:])

    def receive(self, deadline: float | None = None) -> tuple[Message, list[int]] | None:
        """The next message and its descriptors, close-on-exec and the caller's; None at the end.
        ValueError if the other end does not keep to the rules, TimeoutError at `deadline`."""
        # not socket.recv_fds, which forgets its flags
        self._wait_until(deadline)
        header, ancillary, _, _ = self.socket.recvmsg(
            _HEADER.size, socket.CMSG_SPACE(4 * MAX_FDS), socket.MSG_CMSG_CLOEXEC
        )
        fds = [fd for _, _, data in ancillary for fd in memoryview(data).cast("i")]
        try:
            if not header:
                return None
            header += self._receive_exactly(_HEADER.size - len(header), deadline)
            (length,) = _HEADER.unpack(header)
            if length > self.max_length:
                raise ValueError(f"a message of {length} bytes")
            message = parse(self._receive_exactly(length, deadline))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return message, fds

    def close(self) -> None:
        self.socket.close()

    def _receive_exactly(self, length: int, deadline: float | None) -> bytes:
        chunks = []
        while length:
            self._wait_until(deadline)
            chunk = self.socket.recv(min(length, 1 << 20))
            if not chunk:
                raise ValueError("the conversation ended within a message")
            chunks.append(chunk)
            length -= len(chunk)
        return b"".join(chunks)

    def _wait_until(self, deadline: float | None) -> None:
        """Let the next call wait as long. A timeout of 0 would mean something else."""
        if deadline is not None:
            self.socket.settimeout(max(1e-3, deadline - time.monotonic()))


def parse(text: bytes) -> Message:
    """The object that `text` is in JSON. ValueError for anything else."""
    try:
        message = json.loads(text)
    except RecursionError:
        raise ValueError("a message that is nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message
