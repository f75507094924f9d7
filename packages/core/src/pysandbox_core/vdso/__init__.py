"""The vDSO: code that every program has mapped, to read the time without a system call.

`vdso_amd64.S` is the source, `vdso.so` what `build` makes of it, checked in so that installing
needs no assembler. The code lies right above its parameter page, [vvar]; see time/vdso_page.py for
what is in that, and loader/vdso.py for the mapping.
"""
