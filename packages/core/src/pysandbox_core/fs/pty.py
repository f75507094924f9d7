"""Pseudoterminals: two sides and what connects them. pty(7)

Interface: a `Pty` is one pair; it is the `Tty` of the slave side, and `MasterFile` is the master
side. When the master is closed the slave is hung up and its name is gone; when the last slave file
is closed the master reads EIO until it is opened again.

What the slave side writes waits in `output` for the master to read it; what the master writes goes
into the line discipline, or waits in `pending` while that has no room.

Linux: drivers/tty/pty.c.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EINVAL, EIO, ENOTTY
from typing import TYPE_CHECKING

from pysandbox_core.abi.signal import SIGINT, SIGQUIT, SIGTSTP
from pysandbox_core.abi.termios import (
    FIONREAD,
    ICANON,
    IXON,
    TCFLSH,
    TCIFLUSH,
    TCIOFLUSH,
    TCION,
    TCOFLUSH,
    TCOOFF,
    TCOON,
    TIOCGPKT,
    TIOCGPTLCK,
    TIOCGPTN,
    TIOCGPTPEER,
    TIOCNOTTY,
    TIOCPKT,
    TIOCPKT_DATA,
    TIOCPKT_DOSTOP,
    TIOCPKT_FLUSHREAD,
    TIOCPKT_FLUSHWRITE,
    TIOCPKT_NOSTOP,
    TIOCPKT_START,
    TIOCPKT_STOP,
    TIOCSIG,
    TIOCSPTLCK,
    TOSTOP,
    VSTART,
    VSTOP,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.line_discipline import LineDiscipline
from pysandbox_core.fs.termios import Termios
from pysandbox_core.fs.tty import INT, Tty, TtyFile, tty_ioctl
from pysandbox_core.waiting import (
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDNORM,
    POLLWRNORM,
    Turn,
)

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.devpts import DevPts, SlaveInode
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.task import Task

OUTPUT_LIMIT = 8192 + 4095
"""Bytes that wait for the master: what the driver and the master's own line discipline hold."""
PENDING_LIMIT = 8192
"""Bytes that wait for room in the slave's line discipline."""
CHUNK = 4096


class Pty(Tty):
    """A pair of sides; as a `Tty`, the slave side. Gone with its master."""

    def __init__(self, devpts: DevPts, index: int, node: SlaveInode) -> None:
        super().__init__(devpts.kernel, node.rdev, b"/dev/pts/%d" % index)
        self.devpts = devpts
        self.index = index
        self.node = node
        self.locked = True
        """TIOCSPTLCK; unlockpt(3)"""
        self.stopped = False
        """Output is held up by ^S or tcflow(3)."""
        self.output = bytearray()
        self.pending = bytearray()
        self.discipline = LineDiscipline(Termios(), self)
        self.master: MasterFile | None = None
        self.slave_closed = False
        """It was open and is not any more: the master reads EIO."""
        self.packet = False
        """TIOCPKT: the master is told of more than data."""
        self.packet_status = 0

    # The wire, for the line discipline.

    def send(self, data: bytes) -> None:
        if self.master is not None:
            self.output += data
            self.master.queue.wake(POLLIN)

    def room(self) -> int:
        return 0 if self.stopped else max(0, OUTPUT_LIMIT - len(self.output))

    def flushed(self) -> None:
        self.output.clear()
        self.report(TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE)

    def set_stopped(self, stopped: bool) -> None:
        if stopped == self.stopped:
            return
        self.stopped = stopped
        clear, bit = (TIOCPKT_START, TIOCPKT_STOP) if stopped else (TIOCPKT_STOP, TIOCPKT_START)
        self.packet_status &= ~clear
        self.report(bit)
        if not stopped:
            self.wake(POLLOUT)

    def report(self, status: int) -> None:
        """Tell the master, if it wants to hear of such things."""
        if self.packet and self.master is not None:
            self.packet_status |= status
            self.master.queue.wake(POLLIN | POLLPRI)

    # The slave side.

    def open(self, task: Task, path: Path, inode: Inode, flags: int) -> TtyFile:
        file = super().open(task, path, inode, flags)
        self.slave_closed = False
        return file

    def closed(self, file: TtyFile) -> None:
        if not self.files and self.master is not None:
            self.slave_closed = True
            self.packet = False
            self.master.queue.wake(POLLHUP | POLLIN)

    def take(self, file: TtyFile, limit: int) -> bytes | None:
        if not self.discipline.available():
            return None
        data = self.discipline.take(limit)
        self.refill()
        return data

    def write(self, task: Task, file: TtyFile, source: Source) -> int:
        """n_tty_write()"""
        discipline = self.discipline
        if discipline.termios.c_lflag & TOSTOP:
            self.check_change(task)
        discipline.flush_echoes()
        total = 0
        while source.remaining:
            if self.hung_up or self.master is None:
                if total:
                    return total
                raise LinuxError(EIO)
            room = self.room()
            if room >= 8:
                data = source.read(min(source.remaining, CHUNK))
                out, used = discipline.process(data, room)
                source.undo(len(data) - used)
                if out:
                    self.send(out)
                total += used
                if len(data) == 0:
                    break
                continue
            try:
                file.wait(task, POLLOUT)
            except LinuxError:
                if total:
                    return total
                raise
        return total

    def poll(self, file: TtyFile) -> int:
        events = 0
        if self.discipline.available(poll=True):
            events |= POLLIN | POLLRDNORM
        if self.room() >= 8:
            events |= POLLOUT | POLLWRNORM
        return events

    def refill(self) -> None:
        """The line discipline has room again."""
        if self.pending:
            done = self.discipline.receive(bytes(self.pending))
            del self.pending[:done]
            if done and self.master is not None:
                self.master.queue.wake(POLLOUT)

    def get_termios(self) -> Termios:
        return self.discipline.termios

    def set_termios(self, new: Termios, when: int) -> None:
        new.fit_pty()
        if when == 2:
            self.flush(TCIFLUSH)
        old = self.discipline.termios
        self.discipline.set_termios(new)
        if self.packet:
            self._report_flow(old, new)
        self.wake()

    def _report_flow(self, old: Termios, new: Termios) -> None:
        """Does ^S ^Q stop and start the output? pty_set_termios()"""

        def usual(t: Termios) -> bool:
            return bool(t.c_iflag & IXON) and t.c_cc[VSTOP] == 19 and t.c_cc[VSTART] == 17

        if usual(old) != usual(new):
            clear, bit = (
                (TIOCPKT_NOSTOP, TIOCPKT_DOSTOP) if usual(new) else (TIOCPKT_DOSTOP, TIOCPKT_NOSTOP)
            )
            self.packet_status &= ~clear
            self.report(bit)

    def flush(self, which: int) -> None:
        if which in (TCIFLUSH, TCIOFLUSH):
            self.discipline.flush()
            self.pending.clear()
            self.report(TIOCPKT_FLUSHREAD)
        if which in (TCOFLUSH, TCIOFLUSH):
            self.output.clear()
            self.report(TIOCPKT_FLUSHWRITE)
            self.wake(POLLOUT)
        if self.master is not None:
            self.master.queue.wake(POLLOUT)

    def flow(self, action: int) -> None:
        if action in (TCOOFF, TCOON):
            self.set_stopped(action == TCOOFF)
            self.discipline.flush_echoes()
            return
        character = self.discipline.termios.c_cc[VSTART if action == TCION else VSTOP]
        if character:
            self.send(bytes((character,)))

    def queued(self) -> int:
        return self.discipline.queued()

    # The master side.

    def master_write(self, data: bytes) -> int:
        """Type `data`; how many bytes there was room for."""
        taken = data[: max(0, PENDING_LIMIT - len(self.pending))]
        if self.pending:
            self.pending += taken
        else:
            done = self.discipline.receive(taken)
            self.pending += taken[done:]
        if self.discipline.available() or not self.discipline.termios.c_lflag & ICANON:
            self.wake(POLLIN)
        return len(taken)

    def master_closed(self) -> None:
        self.master = None
        self.devpts.ptys.pop(self.index, None)
        self.hang_up()
        if self.session is not None and self.session.leader is None:
            self.release_session()


class MasterFile(FileDescription):
    """The master side of a pty."""

    __slots__ = ("pty",)

    def __init__(self, flags: int, inode: Inode, path: Path | None, pty: Pty) -> None:
        super().__init__(flags, inode, path)
        self.pty = pty
        pty.master = self

    def release(self) -> None:
        self.pty.master_closed()

    def describe(self) -> bytes:
        return b"/dev/ptmx"

    def fdinfo(self) -> bytes:
        return b"tty-index:\t%d\n" % self.pty.index

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        pty = self.pty
        while sink.remaining:
            if pty.packet and pty.packet_status:
                status, pty.packet_status = pty.packet_status, 0
                return sink.write(bytes((status,)))
            if pty.output:
                head = 0
                if pty.packet:
                    head = sink.write(bytes((TIOCPKT_DATA,)))
                count = sink.write(bytes(pty.output[: sink.remaining]))
                del pty.output[:count]
                pty.discipline.flush_echoes()
                pty.wake(POLLOUT)
                return head + count
            if pty.slave_closed:
                raise LinuxError(EIO)
            self._wait(task)
        return 0

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        total = 0
        turn = Turn(task)
        while source.remaining:
            data = source.read(min(source.remaining, CHUNK))
            used = self.pty.master_write(data)
            source.undo(len(data) - used)
            total += used
            if used:
                if source.remaining and not turn.goes_on():
                    break
                continue
            try:
                self._wait(task)
            except LinuxError:
                if total:
                    return total
                raise
        return total

    def _wait(self, task: Task) -> None:
        if self.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        task.block(self.queue)

    def poll(self) -> int:
        pty = self.pty
        events = 0
        if pty.output:
            events |= POLLIN | POLLRDNORM
        if pty.packet and pty.packet_status:
            events |= POLLPRI | POLLIN | POLLRDNORM
        if pty.slave_closed:
            events |= POLLHUP
        if len(pty.pending) < PENDING_LIMIT:
            events |= POLLOUT | POLLWRNORM
        return events

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        """ioctl_tty(2); most requests are about the slave side."""
        pty, mm = self.pty, task.mm
        if request == TIOCGPTN:
            mm.write(argument, INT.pack(pty.index))
        elif request == TIOCSPTLCK:
            pty.locked = mm.read_s32(argument) != 0
        elif request == TIOCGPTLCK:
            mm.write(argument, INT.pack(pty.locked))
        elif request == TIOCGPTPEER:
            return self._open_peer(task, argument)
        elif request == TIOCPKT:
            wanted = mm.read_s32(argument) != 0
            if wanted and not pty.packet:
                pty.packet_status = 0
            pty.packet = wanted
        elif request == TIOCGPKT:
            mm.write(argument, INT.pack(pty.packet))
        elif request == TIOCSIG:
            if argument not in (SIGINT, SIGQUIT, SIGTSTP):
                raise LinuxError(EINVAL)
            pty.signal(argument)
        elif request == FIONREAD:
            mm.write(argument, INT.pack(len(pty.output)))
        elif request == TCFLSH:
            self._flush(argument)
        elif request == TIOCNOTTY:
            raise LinuxError(ENOTTY)  # the master side controls nobody
        else:
            return tty_ioctl(task, self, pty, request, argument)
        return 0

    def _flush(self, which: int) -> None:
        """The master's input is the slave's output."""
        if which not in (TCIFLUSH, TCOFLUSH, TCIOFLUSH):
            raise LinuxError(EINVAL)
        if which != TCOFLUSH:
            self.pty.output.clear()
            self.pty.wake(POLLOUT)
        if which != TCIFLUSH:
            self.pty.pending.clear()

    def _open_peer(self, task: Task, flags: int) -> int:
        """TIOCGPTPEER: the slave side, without a path that leads to it."""
        pty = self.pty
        path = task.kernel.proc.nameless_path(pty.name, pty.node)
        kept = flags & (os.O_ACCMODE | os.O_NOCTTY | os.O_NONBLOCK)
        file = pty.open(task, path, pty.node, kept)
        return task.files.install(task, file, cloexec=bool(flags & os.O_CLOEXEC))
