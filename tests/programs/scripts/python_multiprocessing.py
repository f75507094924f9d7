"""multiprocessing: fork and spawn, Pool, Queue, Pipe, Lock, Value, shared memory, managers."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.shared_memory
import os
import signal
import sys
from typing import Any


def square(number: int) -> int:
    return number * number


def produce(queue: multiprocessing.Queue[int], count: int) -> None:
    for number in range(count):
        queue.put(number)


def add(value: Any, lock: Any, times: int) -> None:
    for _ in range(times):
        with lock:
            value.value += 1


def answer(connection: Any) -> None:
    connection.send(connection.recv()[::-1])
    connection.close()


def write_shared(name: str) -> None:
    memory: Any = multiprocessing.shared_memory.SharedMemory(name=name)
    memory.buf[:5] = b"child"
    memory.close()


def leave(status: int) -> None:
    sys.exit(status)


def wait_for_ever() -> None:
    signal.pause()


def run(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    print(method)
    with context.Pool(2) as pool:
        print(pool.map(square, range(10)), pool.apply(square, (12,)))
        print(sorted(pool.imap_unordered(square, range(5), chunksize=2)))
    queue = context.Queue()
    process = context.Process(target=produce, args=(queue, 5))
    process.start()
    print([queue.get() for _ in range(5)])
    process.join()
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(theirs,))
    process.start()
    ours.send(["a", "b", {"c": 1}])
    print(ours.recv())
    process.join()
    value, lock = context.Value("i", 0), context.Lock()
    workers = [context.Process(target=add, args=(value, lock, 100)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(value.value, [worker.exitcode for worker in workers])
    process = context.Process(target=leave, args=(7,))
    process.start()
    process.join()
    print(process.exitcode)
    process = context.Process(target=wait_for_ever)
    process.start()
    process.terminate()
    process.join()
    print(process.exitcode)


def more() -> None:
    memory: Any = multiprocessing.shared_memory.SharedMemory(create=True, size=100)
    process = multiprocessing.get_context("fork").Process(target=write_shared, args=(memory.name,))
    process.start()
    process.join()
    print(bytes(memory.buf[:5]))
    memory.close()
    memory.unlink()
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        print(list(pool.map(square, range(6))))
    print(os.path.exists("/dev/shm"))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    run("fork")
    run("spawn")
    more()
