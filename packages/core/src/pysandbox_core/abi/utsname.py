"""What uname(2) and /proc/sys/kernel say of this kernel; the host's version is nobody's
business."""

from __future__ import annotations

from typing import Final

SYSNAME: Final = b"Linux"
RELEASE: Final = b"6.12.0-pysandbox"
"""The Linux whose system calls are the model; glibc refuses what is too old for it."""
VERSION: Final = b"#1 SMP PREEMPT_DYNAMIC PySandbox"
MACHINE: Final = b"x86_64"
FIELD_LENGTH: Final = 65
"""Bytes of each field of struct new_utsname, the NUL included."""
