"""A tool for an LLM agent: run the Python code that the model wrote, in a sandbox that lasts as
long as the conversation, and give the model back what it needs to go on.

Usage: python agent_tool.py < code.py
"""

from __future__ import annotations

import sys

from pysandbox import RunTimeoutError, Sandbox

MAX_CHARACTERS = 10_000
"""What a model gets to read of an output."""


class PythonTool:
    """Runs code for one conversation. Files that a run writes are there for the next one."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(memory="1G", pids=64, tmpfs=["/work"], workdir="/work")

    def __enter__(self) -> PythonTool:
        self.sandbox.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.sandbox.close()

    def __call__(self, code: str) -> str:
        """The text that goes back to the model: never an exception, whatever the code does."""
        try:
            result = self.sandbox.run(
                ["python3", "-"], input=code, timeout=30, max_output=MAX_CHARACTERS
            )
        except RunTimeoutError as error:
            return f"{_text(error.stdout)}\n[killed after 30 seconds]"
        parts = [_text(result.stdout), _text(result.stderr)]
        if result.stdout_truncated or result.stderr_truncated:
            parts.append("[output cut off]")
        if result.returncode:
            parts.append(f"[exit status {result.returncode}]")
        return "\n".join(filter(None, parts))


def _text(output: bytes) -> str:
    return output.decode(errors="backslashreplace").strip()


if __name__ == "__main__":
    with PythonTool() as tool:
        print(tool(sys.stdin.read()))
