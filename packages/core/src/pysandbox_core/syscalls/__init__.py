"""The system calls, a module for each man-page family. Importing this package declares them all."""

from importlib import import_module
from os import listdir

FAMILIES = sorted(
    name[:-3] for name in listdir(__path__[0]) if name.endswith(".py") and name[0] != "_"
)
"""Names of the modules here."""

for _family in FAMILIES:
    import_module(f"{__name__}.{_family}")
