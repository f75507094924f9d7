"""PySandbox's kernel: answers the system calls of unmodified Linux programs, in Python."""
