"""What Python's os, shutil, tempfile, pathlib and glob do with files."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path


def attempt(label: str, call: Callable[[], object]) -> None:
    """Print what a call returns, or the errno it fails with."""
    try:
        print(f"{label}: {call()}")
    except OSError as error:
        print(f"{label}: {errno.errorcode.get(error.errno or 0, error.errno)}")


def tree() -> None:
    print("# a tree")
    for name in ("a/b/c", "a/d", "e"):
        os.makedirs(name)
    for name in ("a/one.txt", "a/b/two.txt", "a/b/c/three.bin", "e/four.txt"):
        Path(name).write_text(name)
    for folder, folders, files in sorted(os.walk(".")):
        print(folder, sorted(folders), sorted(files))
    print(sorted(glob.glob("**/*.txt", recursive=True)))
    with os.scandir("a") as entries:
        print(sorted((entry.name, entry.is_dir(), entry.is_file()) for entry in entries))
    shutil.copytree("a", "copy")
    print(sorted(str(path) for path in Path("copy").rglob("*")))
    shutil.move("copy", "e/moved")
    shutil.rmtree("e")
    print(sorted(os.listdir(".")))
    attempt("rmdir full", lambda: os.rmdir("a"))
    attempt("makedirs again", lambda: os.makedirs("a"))
    attempt("exist_ok", lambda: os.makedirs("a", exist_ok=True))


def metadata() -> None:
    print("# metadata")
    path = Path("meta")
    path.write_bytes(b"12345")
    os.utime(path, ns=(1_000_000_000, 2_000_000_001))
    found = path.stat()
    print(found.st_size, found.st_mtime_ns, found.st_atime_ns, stat.filemode(found.st_mode))
    os.chmod(path, 0o640)
    print(stat.filemode(path.stat().st_mode))
    os.symlink("meta", "link")
    print(os.readlink("link"), os.path.islink("link"), os.path.samefile("link", "meta"))
    print(os.path.realpath("link") == os.path.join(os.path.realpath("."), "meta"))
    os.truncate(path, 2)
    print(path.read_bytes())
    os.replace(path, "replaced")
    attempt("dangling", lambda: os.stat("link"))
    attempt("rename over a directory", lambda: os.rename("replaced", "a"))


def temporary() -> None:
    print("# temporary files")
    with tempfile.TemporaryFile(dir=".") as file:
        file.write(b"hidden" * 1000)
        file.seek(-6, os.SEEK_END)
        print(file.read(), os.fstat(file.fileno()).st_size)
    with tempfile.NamedTemporaryFile(dir=".") as named:
        print(os.path.exists(named.name))
    print(os.path.exists(named.name))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "file").write_text("x")
    print(os.path.exists(folder))
    with tempfile.SpooledTemporaryFile(max_size=10) as spooled:
        spooled.write(b"more than ten bytes")
        spooled.seek(0)
        print(spooled.read())


def descriptors() -> None:
    print("# descriptors")
    reader, writer = os.pipe()
    os.write(writer, b"through")
    print(os.read(reader, 100), os.get_inheritable(reader), os.get_blocking(reader))
    os.set_blocking(reader, False)
    attempt("empty", lambda: os.read(reader, 1))
    os.close(writer)
    print(os.read(reader, 1))
    fd = os.open("data", os.O_RDWR | os.O_CREAT, 0o600)
    print(os.writev(fd, [b"one", b"", b"two"]), os.pread(fd, 10, 2), os.lseek(fd, 0, os.SEEK_CUR))
    os.ftruncate(fd, 4)
    print(os.sendfile(fd, fd, 0, 0), os.fstat(fd).st_size)
    os.close(fd)
    attempt("closed", lambda: os.fstat(fd))


if __name__ == "__main__":
    tree()
    metadata()
    temporary()
    descriptors()
