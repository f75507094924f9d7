"""Host input and output: one epoll for every host descriptor the kernel waits for.

Interface: `watch` gives a WaitQueue that is woken on the kernel thread when the descriptor is
ready. Readiness is level-triggered and one-shot: after a wake-up the descriptor is quiet until
`watch` is asked for it again, so that news nobody reads does not spin the loop.

While contexts run, the kernel thread blocks in the platform's wait, which knows nothing of
descriptors. Then a helper thread waits on the epoll for it and kicks the platform; it touches no
kernel state, and exists only once a sandbox has both a running context and a watched descriptor.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from pysandbox_core.waiting import Waiter, WaitQueue


class Reactor:
    """The epoll of one kernel. `kick` is the platform's, callable from any thread."""

    FINE_TIMEOUT_NS = 20_000_000
    """Timeouts below this are kept to the microsecond."""
    LONGEST_TIMEOUT_NS = 86_400_000_000_000
    """A day: the host counts in 31 bits of milliseconds. Waking up early is no harm."""

    def __init__(self, kick: Callable[[], None]) -> None:
        self._kick = kick
        self._epoll = select.epoll()
        self._queues: dict[int, WaitQueue] = {}
        self._armed: dict[int, int] = {}
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Tells the helper thread of an earlier deadline, or of the end."""
        self._thread: threading.Thread | None = None
        self._go = threading.Semaphore(0)
        self._deadline_ns: int | None = None
        """When the helper thread kicks at the latest."""
        self._closing = False
        self.polling = False
        """The helper thread is on the watch."""
        self.news = False
        """The helper thread has found something; `poll` resets it."""

    def watch(self, host_fd: int, events: int) -> WaitQueue:
        """The queue of `host_fd`, to be woken once when any of `events` (EPOLL* bits) is there."""
        queue = self._queues.get(host_fd)
        armed = self._armed.get(host_fd, 0)
        if queue is None:
            queue = self._queues[host_fd] = WaitQueue()
            self._epoll.register(host_fd, events | select.EPOLLONESHOT)
        elif armed & events != events:
            self._epoll.modify(host_fd, armed | events | select.EPOLLONESHOT)
        self._armed[host_fd] = armed | events
        return queue

    def unwatch(self, host_fd: int, waiter: Waiter) -> None:
        """`waiter` no longer wants to know of `host_fd`. Not standing in its queue is no error."""
        queue = self._queues.get(host_fd)
        if queue is not None:
            queue.remove(waiter)

    def forget(self, host_fd: int) -> None:
        """Stop watching `host_fd`, before it is closed. Not being watched is no error."""
        if self._queues.pop(host_fd, None) is not None:
            self._armed.pop(host_fd, None)
            self._epoll.unregister(host_fd)

    @property
    def watching(self) -> bool:
        """Some descriptor may still bring news."""
        return bool(self._armed)

    def poll(self, timeout_ns: int | None) -> None:
        """Wait for news at most `timeout_ns` nanoseconds (None: for ever) and wake the queues."""
        self.news = False
        if timeout_ns is not None and 0 < timeout_ns < self.FINE_TIMEOUT_NS:
            # epoll_wait(2) counts in milliseconds, select(2) in microseconds
            select.select([self._epoll], [], [], timeout_ns / 1e9)
            timeout_ns = 0
        elif timeout_ns is not None:
            timeout_ns = min(timeout_ns, self.LONGEST_TIMEOUT_NS)
        for host_fd, events in self._epoll.poll(-1 if timeout_ns is None else timeout_ns / 1e9):
            self._armed.pop(host_fd, None)
            queue = self._queues.get(host_fd)
            if queue is not None:
                queue.wake(events)

    def poll_in_background(self, deadline_ns: int | None) -> None:
        """Have the platform kicked, and `news` set, when there is news or `deadline_ns` (monotonic)
        has passed. Called before the platform's wait while `polling` is false."""
        self.polling = True
        self._deadline_ns = deadline_ns
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reactor", daemon=True)
            self._thread.start()
        self._go.release()

    def advance_deadline(self, deadline_ns: int) -> None:
        """A timer was armed: if the helper thread is on the watch, it shall be up by then."""
        if self.polling and (self._deadline_ns is None or deadline_ns < self._deadline_ns):
            self._deadline_ns = deadline_ns
            os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Let go of everything; the helper thread ends by itself."""
        self._closing = True
        self._go.release()
        os.eventfd_write(self._wake_fd, 1)
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._wake_fd)

    def _run(self) -> None:
        """The helper thread: wait for the word, for news or the deadline, then kick."""
        poll = select.poll()
        poll.register(self._epoll.fileno(), select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        while True:
            self._go.acquire()
            while not self._closing:
                deadline_ns = self._deadline_ns
                timeout_ms = None
                if deadline_ns is not None:
                    timeout_ns = deadline_ns - time.monotonic_ns()
                    timeout_ms = min(max(0, timeout_ns), self.LONGEST_TIMEOUT_NS) / 1e6
                ready = poll.poll(timeout_ms)
                if any(fd == self._wake_fd for fd, _ in ready):
                    os.eventfd_read(self._wake_fd)
                    if len(ready) == 1:
                        continue
                break
            if self._closing:
                return
            self.news = True
            self.polling = False
            self._kick()
