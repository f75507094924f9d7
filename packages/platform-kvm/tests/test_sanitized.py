"""The whole suite once more, with the C part built by AddressSanitizer and UBSan."""

from __future__ import annotations

from pathlib import Path

from pysandbox_platform.conformance.sanitized import SanitizedTests


class TestSanitized(SanitizedTests):
    package = Path(__file__).resolve().parent.parent
    native_module = "pysandbox_kvm._native"
