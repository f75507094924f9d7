"""How capabilities follow user ids: include/uapi/linux/securebits.h, capabilities(7)."""

from __future__ import annotations

from typing import Final

SECBIT_NOROOT: Final = 1 << 0
SECBIT_NO_SETUID_FIXUP: Final = 1 << 2
SECBIT_KEEP_CAPS: Final = 1 << 4
SECBIT_KEEP_CAPS_LOCKED: Final = 1 << 5
SECBIT_NO_CAP_AMBIENT_RAISE: Final = 1 << 6
SECURE_ALL_BITS: Final = 0x55
SECURE_ALL_LOCKS: Final = 0xAA
"""Each one bit above what it locks."""
