"""Puts this folder on the path, for what tests share (harness, fakes)."""
