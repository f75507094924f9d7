"""Nothing that a program writes reaches the host, wherever it writes, unless it was bound to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import side_by_side

NewWorkdir = Callable[[], Path]

WRITE_EVERYWHERE = """
set -u
mark=$1
for folder in /tmp /var/tmp /dev/shm "$HOME" .; do
    echo written > "$folder/$mark" && cat "$folder/$mark"
    mkdir "$folder/$mark.d" && echo inside > "$folder/$mark.d/file"
done
echo changed > kept && cat kept
rm removed; mv renamed elsewhere; chmod 700 mode; ln -s kept link; : > truncated
echo more >> appended; touch -d 2001-01-01 dated; rm -r folder
ls
"""

CONTENTS = {name: f"{name} as it was\n" for name in
            ("kept", "removed", "renamed", "mode", "truncated", "appended", "dated")}  # fmt: skip


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Path -> mode, time of change and contents of everything below `folder`."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }


def prepare(folder: Path) -> None:
    for name, text in CONTENTS.items():
        (folder / name).write_text(text)
    (folder / "folder" / "sub").mkdir(parents=True)
    (folder / "folder" / "sub" / "file").write_text("deep\n")


def test_writes_stay_inside(platform: str, new_workdir: NewWorkdir) -> None:
    folder, home = new_workdir(), new_workdir()
    prepare(folder)
    mark = f"pysandbox-test-{os.getpid()}-{platform}"
    before = snapshot(folder), snapshot(home)
    argv = ["sh", "-c", WRITE_EVERYWHERE, "sh", mark]
    got = side_by_side.sandboxed(platform, argv, folder, {"HOME": str(home)})
    assert got.status == 0, got
    assert got.stdout.count("written") == 5
    listed = [
        "appended",
        "dated",
        "elsewhere",
        "kept",
        "link",
        "mode",
        mark,
        f"{mark}.d",
        "truncated",
    ]
    assert got.stdout.splitlines()[5:] == ["changed", *listed]
    assert (snapshot(folder), snapshot(home)) == before
    for place in ("/tmp", "/var/tmp", "/dev/shm", home, folder):
        assert not Path(place, mark).exists()


def test_system_files_stay(platform: str, new_workdir: NewWorkdir) -> None:
    before = {path: Path(path).read_bytes() for path in ("/etc/passwd", "/etc/hosts")}
    script = "echo line >> /etc/hosts && tail -n 1 /etc/hosts; rm /etc/passwd && ls /etc/passwd"
    got = side_by_side.sandboxed(platform, ["sh", "-c", script], new_workdir())
    if os.geteuid() == 0:
        assert got.stdout == "line\n"
    else:
        assert got.stdout == ""
    assert got.status != 0
    assert before == {path: Path(path).read_bytes() for path in before}


def test_a_binding_is_the_hosts(platform: str, new_workdir: NewWorkdir) -> None:
    writable, readable, folder = new_workdir(), new_workdir(), new_workdir()
    prepare(writable)
    prepare(readable)
    script = f"""
    echo new > {writable}/new; mv {writable}/renamed {writable}/elsewhere; rm {writable}/removed
    echo no > {readable}/new; rm {readable}/removed; echo no >> {readable}/kept
    """
    options = ["--bind", f"{writable}:{writable}:rw", "--bind", f"{readable}:{readable}:ro"]
    before = snapshot(readable)
    side_by_side.sandboxed(platform, ["sh", "-c", script], folder, options=options)
    assert (writable / "new").read_text() == "new\n"
    assert (writable / "elsewhere").read_text() == CONTENTS["renamed"]
    assert not (writable / "removed").exists()
    assert snapshot(readable) == before


def test_runs_share_nothing(platform: str, new_workdir: NewWorkdir) -> None:
    folder = new_workdir()
    code = "import os; print(os.path.exists('mark')); open('mark', 'w')"
    for _ in range(2):
        got = side_by_side.sandboxed(platform, [sys.executable, "-S", "-c", code], folder)
        assert (got.status, got.stdout) == (0, "False\n"), got


def prepare_tree(folder: Path) -> None:
    """Files of every kind for `lower_tree.sh` to change, the same ones in every `folder`."""
    tree = folder / "tree"
    for name in ("a", "b/deep", "empty", "full/sub/empty", "cwd", "nested/one/two/three", "many"):
        (tree / name).mkdir(parents=True)
    names = ("file", "a/one", "a/two", "b/deep/file", "full/x", "full/sub/y", "truncated", "big",
             "patched", "first", "pair1", "pair2", "linked1", "open", "nested/one/two/three/f",
             *(f"many/f{number}" for number in range(1, 101)))  # fmt: skip
    for name in names:
        (tree / name).write_text(f"{name} line\n")
    (tree / "link").symlink_to("file")
    os.link(tree / "linked1", tree / "linked2")
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)


def test_changes_to_the_lower_tree(platform: str, new_workdir: NewWorkdir) -> None:
    native_dir, sandbox_dir = new_workdir(), new_workdir()
    prepare_tree(native_dir)
    prepare_tree(sandbox_dir)
    before = snapshot(sandbox_dir)
    argv = ["bash", str(Path(__file__).parent / "scripts" / "lower_tree.sh")]
    expected = side_by_side.native(argv, native_dir)
    got = side_by_side.sandboxed(platform, argv, sandbox_dir)
    differs = side_by_side.difference(expected, got)
    assert not differs, differs
    assert snapshot(sandbox_dir) == before
