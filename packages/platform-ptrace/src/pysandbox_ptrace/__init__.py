"""The ptrace platform: untrusted code in stub processes, trapped with PTRACE_SYSEMU.

Interface: `platform.PtracePlatform` is the class behind the entry point `ptrace`; nothing else here
is meant for callers.
"""
