"""Make vdso.so from vdso_amd64.S: `python -m pysandbox_core.vdso.build [OUTPUT]`.

Needs a C preprocessor and binutils; programs that are installed from a package need neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(__file__)
IMAGE_PATH = os.path.join(HERE, "vdso.so")
LINK = (
    "ld", "-shared", "-Bsymbolic", "--hash-style=both", "--build-id=none", "--eh-frame-hdr",
    "--no-undefined", "-soname", "linux-vdso.so.1", "-z", "max-page-size=4096",
    "-z", "noseparate-code", "-z", "norelro", "-s",
)  # fmt: skip


def build(output: str) -> None:
    """Assemble and link into `output`. CalledProcessError, FileNotFoundError"""
    with tempfile.TemporaryDirectory() as scratch:
        assembly = os.path.join(scratch, "vdso_amd64.o")
        source = os.path.join(HERE, "vdso_amd64.S")
        subprocess.run(("cc", "-c", "-o", assembly, source), check=True)
        script = os.path.join(HERE, "vdso.lds")
        subprocess.run((*LINK, "-T", script, "-o", output, assembly), check=True)
    os.chmod(output, 0o644)


if __name__ == "__main__":
    build(sys.argv[1] if len(sys.argv) > 1 else IMAGE_PATH)
