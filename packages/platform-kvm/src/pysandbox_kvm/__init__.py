"""The KVM platform: untrusted code in ring 3 of a virtual machine without virtual hardware.

Interface: `platform.KvmPlatform` is the class behind the entry point `kvm`; nothing else here is
meant for callers.
"""
