"""A step of continuous integration on code from a pull request: build and test it with the
machine's own tools, but without its network, its secrets or a way to change anything.

Usage: python ci_step.py CHECKOUT COMMAND…

The checkout is there read-only, with a layer in memory above for what the build writes. The exit
status is the command's.
"""

from __future__ import annotations

import os
import sys

from pysandbox import Sandbox, SandboxError


def main() -> int:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    checkout, *command = sys.argv[1:]
    try:
        # the root is the host's, read-only, with memory above: the checkout is part of it
        with Sandbox(workdir=os.path.abspath(checkout), memory="4G", timeout=1800) as sandbox:
            result = sandbox.run(command, env={"CI": "true"}, capture=False)
    except SandboxError as error:
        print(f"ci_step: {error}", file=sys.stderr)
        return 125
    print(f"ci_step: {result.duration:.1f} s", file=sys.stderr)
    return result.returncode if result.returncode >= 0 else 128 - result.returncode


if __name__ == "__main__":
    sys.exit(main())
