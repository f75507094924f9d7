"""threading, queue, concurrent.futures and ctypes."""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
import queue
import threading
import time


def threads() -> None:
    lock, total = threading.Lock(), 0

    def add() -> None:
        nonlocal total
        for _ in range(1000):
            with lock:
                total += 1

    workers = [threading.Thread(target=add) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(total)
    pipe: queue.Queue[int | None] = queue.Queue(maxsize=4)
    seen: list[int] = []

    def consume() -> None:
        while (item := pipe.get()) is not None:
            seen.append(item * item)

    consumer = threading.Thread(target=consume)
    consumer.start()
    for number in [*range(100), None]:
        pipe.put(number)
    consumer.join()
    print(sum(seen), len(seen))
    event, barrier = threading.Event(), threading.Barrier(4)
    waiting = [threading.Thread(target=lambda: (barrier.wait(), event.wait())) for _ in range(3)]
    for worker in waiting:
        worker.start()
    barrier.wait()
    event.set()
    for worker in waiting:
        worker.join()
    print(event.wait(0.001), threading.Event().wait(0.001), threading.active_count())
    local = threading.local()
    local.value = 1
    thread = threading.Thread(target=lambda: print(hasattr(local, "value")))
    thread.start()
    thread.join()
    fired: list[str] = []
    timer = threading.Timer(0.01, fired.append, ["timer"])
    timer.start()
    timer.join()
    print(fired, threading.get_native_id() == os.getpid())


def futures() -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        print(list(pool.map(lambda n: n**3, range(8))))
        slow = pool.submit(time.sleep, 0.05)
        try:
            slow.result(timeout=0.001)
        except concurrent.futures.TimeoutError:
            print("not yet")
        print(slow.result())


def foreign() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    print(libc.abs(-5), libc.getpid() == os.getpid())
    print(libc.open(b"/absent", 0), ctypes.get_errno())
    buffer = ctypes.create_string_buffer(32)
    libc.snprintf(buffer, ctypes.c_size_t(32), b"%d %s", ctypes.c_int(7), b"text")
    print(buffer.value)
    compare = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )
    numbers = (ctypes.c_int * 5)(5, 3, 9, 1, 7)
    libc.qsort(numbers, 5, ctypes.sizeof(ctypes.c_int), compare(lambda a, b: a[0] - b[0]))
    print(list(numbers))


if __name__ == "__main__":
    threads()
    futures()
    foreign()
