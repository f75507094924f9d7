"""tempfile, sqlite3, mmap, fcntl, zipfile, pathlib and os on files."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import sqlite3
import tempfile
import zipfile
from pathlib import Path


def database() -> None:
    with contextlib.closing(sqlite3.connect("base.db")) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table numbers (n integer primary key, square integer, name text)")
        with base:
            base.executemany(
                "insert into numbers values (?, ?, ?)", ((i, i * i, f"n{i}") for i in range(2000))
            )
        print(base.execute("select count(*), sum(square) from numbers").fetchone())
        with contextlib.suppress(ZeroDivisionError), base:
            base.execute("delete from numbers")
            raise ZeroDivisionError
        print(base.execute("select name from numbers where n = 7").fetchall())
        base.execute("pragma journal_mode=delete")
    with contextlib.closing(sqlite3.connect("base.db")) as again:
        print(again.execute("pragma integrity_check").fetchone())
        other = sqlite3.connect("base.db", timeout=0)
        again.execute("begin exclusive")
        try:
            other.execute("begin immediate")
        except sqlite3.OperationalError as error:
            print(error)
        again.rollback()
        other.close()
    print(sorted(path.name for path in Path().iterdir()))


def files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mapped")
        path.write_bytes(b"0123456789" * 1000)
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            mapping[0:3] = b"ABC"
            mapping.flush()
            print(mapping.find(b"9012"), len(mapping), path.read_bytes()[:5])
            mapping.resize(20000)
            print(path.stat().st_size)
        with zipfile.ZipFile(Path(folder, "z.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/b.txt", "zipped" * 100)
        with zipfile.ZipFile(Path(folder, "z.zip")) as archive:
            print(archive.namelist(), len(archive.read("a/b.txt")), archive.testzip())
        with path.open("rb") as one, path.open("rb") as two:
            fcntl.flock(one, fcntl.LOCK_EX)
            try:
                fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("locked")
        shutil.copy2(path, "copied")
        print(Path("copied").stat().st_mtime_ns == path.stat().st_mtime_ns)
        print(shutil.disk_usage(".").total > 0, shutil.which("sh") is not None)
    descriptor, name = tempfile.mkstemp(dir=".")
    os.write(descriptor, b"x")
    os.close(descriptor)
    print(oct(os.stat(name).st_mode), os.path.getsize(name))


if __name__ == "__main__":
    database()
    files()
