"""Python's signal, os.fork, subprocess and select modules on each other."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time


def children() -> None:
    print("# children")
    for status in (0, 3, 255):
        if (pid := os.fork()) == 0:
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if (pid := os.fork()) == 0:
        signal.pause()
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit $N"], {"N": "5"})
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def subprocesses() -> None:
    print("# subprocesses")
    run = subprocess.run(["cat"], input=b"fed\n" * 30000, capture_output=True, check=True)
    print(len(run.stdout))
    run = subprocess.run(
        ["sh", "-c", "echo out; echo err >&2; kill -9 $$"], capture_output=True, check=False
    )
    print(run)
    try:
        subprocess.run(["sleep", "60"], timeout=0.05, check=False)
    except subprocess.TimeoutExpired as error:
        print(type(error).__name__)
    try:
        subprocess.run(["/absent/program"], check=False)
    except FileNotFoundError as error:
        print(error.errno, error.filename)
    first = subprocess.Popen(["echo", "one two three"], stdout=subprocess.PIPE)
    second = subprocess.Popen(["wc", "-w"], stdin=first.stdout, stdout=subprocess.PIPE)
    print(second.communicate()[0], first.wait())
    print(subprocess.check_output("echo $((6 * 7))", shell=True, text=True).strip())
    code = "import sys; print(sys.argv[1:]); sys.exit(4)"
    argv = [sys.executable, "-S", "-c", code, "a b", ""]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=False)
    print(done.stdout, done.returncode)


def handlers() -> None:
    print("# handlers")
    seen: list[str] = []
    signal.signal(signal.SIGUSR1, lambda signo, frame: seen.append(signal.Signals(signo).name))
    os.kill(os.getpid(), signal.SIGUSR1)
    print(seen)
    signal.signal(signal.SIGALRM, lambda signo, frame: seen.append("alarm"))
    # Again and again: the first may come before pause does.
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    signal.pause()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(sorted(set(seen)))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    os.kill(os.getpid(), signal.SIGUSR1)
    print(sorted(signal.sigpending()), signal.sigwait([signal.SIGUSR1]))
    try:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")


def waiting() -> None:
    print("# waiting")
    reader, writer = os.pipe()
    threading.Thread(target=lambda: os.write(writer, b"x")).start()
    print(select.select([reader], [], [])[0] == [reader])
    with select.epoll() as epoll:
        epoll.register(reader, select.EPOLLIN)
        print(epoll.poll() == [(reader, select.EPOLLIN)])
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    print(poll.poll(0) == [(reader, select.POLLIN)], os.read(reader, 1), poll.poll(0))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    children()
    subprocesses()
    handlers()
    waiting()
