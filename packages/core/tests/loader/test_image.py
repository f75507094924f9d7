"""From a file to the program that it means."""

from __future__ import annotations

from errno import ENOENT, ENOEXEC
from pathlib import Path

import pytest
from booted_kernel import World
from pysandbox_core.errors import LinuxError
from pysandbox_core.loader.image import open_program


@pytest.mark.parametrize(
    ("text", "error"),
    [("#!/nowhere\n", ENOENT), ("#!/plain\n", ENOEXEC), ("no program\n", ENOEXEC)],
    ids=["no interpreter", "no program as interpreter", "no program"],
)
def test_what_is_no_program_is_let_go_of_once(tmp_path: Path, text: str, error: int) -> None:
    for name, content in (("script", text), ("plain", "no program either\n")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    with World(tmp_path) as world:
        process = world.process()
        file = process.open(b"/script")
        with pytest.raises(LinuxError) as caught:
            open_program(process.task, file, b"/script", [b"script"], [])
        assert caught.value.errno == error
        assert file.refs == 0
