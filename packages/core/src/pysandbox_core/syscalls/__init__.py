"""The system calls, a module for each man-page family. Importing this package declares them all."""

from importlib import import_module

FAMILIES = (
)
"""Module names, in alphabetical order."""

for _family in FAMILIES:
    import_module(f"{__name__}.{_family}")
