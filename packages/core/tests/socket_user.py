"""A program's view of sockets: one task, and the calls as it makes them."""

from __future__ import annotations

from struct import Struct

from harness import BASE, Harness
from pysandbox_core.abi import socket as abi
from pysandbox_core.syscalls import sockets as calls
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP

ADDR, LENGTH = BASE + 0x100, BASE + 0x200
BUFFER, CONTROL, HEADER, IOV = BASE + 0x1000, BASE + 0x300, BASE + 0x400, BASE + 0x500
VALUE = BASE + 0x600
STREAM, DGRAM, SEQPACKET = abi.SOCK_STREAM, abi.SOCK_DGRAM, abi.SOCK_SEQPACKET
NONBLOCK, CLOEXEC = abi.SOCK_NONBLOCK, abi.SOCK_CLOEXEC
IOVEC = Struct("<QQ")


class User:
    """One task. Addresses are those of `FAMILY`, without it."""

    FAMILY = abi.AF_UNIX

    def __init__(self, harness: Harness, uid: int = 1000) -> None:
        self.harness = harness
        self.mm = harness.mm
        self.task = harness.task(uid=uid)

    def call(self, function: object, *arguments: int) -> int:
        return self.harness.call(lambda task: function(task, *arguments), self.task)

    def pair(self, type_: int) -> tuple[int, int]:
        assert self.call(calls.socketpair, abi.AF_UNIX, type_, 0, VALUE) == 0
        return calls.TWO_FDS.unpack(self.mm.read(VALUE, 8))

    def socket(self, type_: int) -> int:
        return self.call(calls.socket, self.FAMILY, type_, 0)

    def at(self, function: object, fd: int, name: bytes) -> int:
        """bind or connect"""
        self.mm.write(ADDR, self.FAMILY.to_bytes(2, "little") + name)
        return self.call(function, fd, ADDR, 2 + len(name))

    def bind(self, fd: int, name: bytes) -> int:
        return self.at(calls.bind, fd, name)

    def connect(self, fd: int, name: bytes) -> int:
        return self.at(calls.connect, fd, name)

    def accept(self, fd: int) -> int:
        return self.call(calls.accept, fd, 0, 0)

    def name(self, function: object, fd: int) -> bytes | int:
        self.mm.write_u32(LENGTH, 110)
        result = self.call(function, fd, ADDR, LENGTH)
        return self.mm.read(ADDR, self.mm.read_u32(LENGTH)) if result == 0 else result

    def send(self, fd: int, data: bytes, flags: int = abi.MSG_DONTWAIT) -> int:
        self.mm.write(BUFFER, data)
        return self.call(calls.sendto, fd, BUFFER, len(data), flags, 0, 0)

    def send_to(self, fd: int, data: bytes, name: bytes) -> int:
        self.mm.write(BUFFER, data)
        self.mm.write(ADDR, self.FAMILY.to_bytes(2, "little") + name)
        arguments = (fd, BUFFER, len(data), abi.MSG_DONTWAIT, ADDR, 2 + len(name))
        return self.call(calls.sendto, *arguments)

    def recv(self, fd: int, size: int = 4096, flags: int = abi.MSG_DONTWAIT) -> bytes | int:
        result = self.call(calls.recvfrom, fd, BUFFER, size, flags, 0, 0)
        return self.mm.read(BUFFER, min(result, size)) if result >= 0 else result

    def poll(self, fd: int) -> int:
        return self.task.files.get(fd).poll() & (POLLIN | POLLOUT | POLLHUP | POLLERR | POLLRDHUP)

    def close(self, fd: int) -> None:
        self.task.files.close(self.task, fd)

    def option(self, fd: int, name: int, size: int = 4) -> bytes | int:
        self.mm.write_u32(LENGTH, size)
        result = self.call(calls.getsockopt, fd, abi.SOL_SOCKET, name, VALUE, LENGTH)
        return self.mm.read(VALUE, self.mm.read_u32(LENGTH)) if result == 0 else result

    def number(self, fd: int, name: int) -> int:
        value = self.option(fd, name)
        return int.from_bytes(value, "little") if isinstance(value, bytes) else value

    def set(self, fd: int, name: int, value: int | bytes) -> int:
        data = value if isinstance(value, bytes) else value.to_bytes(4, "little")
        self.mm.write(VALUE, data)
        return self.call(calls.setsockopt, fd, abi.SOL_SOCKET, name, VALUE, len(data))

    def header(self, size: int, control: int) -> None:
        self.mm.pack(IOV, IOVEC, BUFFER, size)
        self.mm.pack(HEADER, abi.MSGHDR, 0, 0, IOV, 1, CONTROL if control else 0, control, 0)

    def sendmsg(self, fd: int, data: bytes, *controls: tuple[int, bytes]) -> int:
        self.mm.write(BUFFER, data)
        block = b""
        for type_, body in controls:
            header = abi.CMSGHDR.pack(abi.CMSGHDR.size + len(body), abi.SOL_SOCKET, type_)
            block += (header + body).ljust((16 + len(body) + 7) & -8, b"\0")
        self.mm.write(CONTROL, block)
        self.header(len(data), len(block))
        return self.call(calls.sendmsg, fd, HEADER, abi.MSG_DONTWAIT)

    def send_fds(self, fd: int, *fds: int) -> int:
        return self.sendmsg(fd, b"f", (abi.SCM_RIGHTS, Struct(f"<{len(fds)}i").pack(*fds)))

    def recvmsg(
        self, fd: int, control: int = 256, flags: int = 0, size: int = 4096
    ) -> tuple[bytes, list[tuple[int, bytes]], int] | int:
        """(data, control messages, msg_flags)"""
        self.header(size, control)
        result = self.call(calls.recvmsg, fd, HEADER, flags | abi.MSG_DONTWAIT)
        if result < 0:
            return result
        fields = self.mm.unpack(HEADER, abi.MSGHDR)
        block, found = self.mm.read(CONTROL, fields[5]), []
        while len(block) >= abi.CMSGHDR.size:
            length, _, type_ = abi.CMSGHDR.unpack_from(block)
            found.append((type_, block[16:length]))
            block = block[(length + 7) & -8 :]
        return self.mm.read(BUFFER, min(result, size)), found, fields[6]
