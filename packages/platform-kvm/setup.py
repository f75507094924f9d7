"""Names the cffi build script, which pyproject.toml has no word for."""

from setuptools import setup

setup(cffi_modules=["build_native.py:ffibuilder"])
