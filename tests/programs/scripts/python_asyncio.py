"""asyncio without the network: tasks, timeouts, subprocesses, signals, executors, UNIX sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import sys


async def tasks() -> None:
    async def work(name: str, delay: float) -> str:
        await asyncio.sleep(delay)
        return name

    print(await asyncio.gather(work("slow", 0.03), work("fast", 0.01), work("now", 0)))
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.01)
    except TimeoutError:
        print("timeout")
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    task = asyncio.create_task(drain(queue))
    for number in range(10):
        await queue.put(number)
    await queue.put(-1)
    print(await task)
    forever = asyncio.create_task(asyncio.sleep(60))
    forever.cancel()
    print((await asyncio.gather(forever, return_exceptions=True))[0].__class__.__name__)
    print(await asyncio.get_running_loop().run_in_executor(None, sum, range(1000)))


async def drain(queue: asyncio.Queue[int]) -> int:
    total = 0
    while (number := await queue.get()) >= 0:
        total += number
    return total


async def subprocesses() -> None:
    process = await asyncio.create_subprocess_exec(
        "tr", "a-z", "A-Z", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(b"shouted\n" * 1000)
    print(len(out), out[:8], process.returncode)
    process = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2; exit 3", stdout=-1, stderr=-1
    )
    print(await process.communicate(), process.returncode)
    many = [await asyncio.create_subprocess_exec("sh", "-c", f"exit {n}") for n in range(5)]
    print([await process.wait() for process in many])
    process = await asyncio.create_subprocess_exec("sleep", "60")
    process.terminate()
    print(await process.wait())


async def signals() -> None:
    caught = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, caught.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await caught.wait()
    print("signal")


async def unix_sockets() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, "server.sock")
    async with server:
        for text in (b"one\n", b"two\n"):
            reader, writer = await asyncio.open_unix_connection("server.sock")
            writer.write(text)
            print(await reader.readline())
            writer.close()
            await writer.wait_closed()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for part in (tasks, subprocesses, signals, unix_sockets):
        asyncio.run(part())
