"""Boots a machine that has KVM as hardware has it, and runs a command in it.

QEMU without acceleration emulates an AMD processor with nested paging, so a stock kernel in it has
a real /dev/kvm, wherever this runs. The machine sees the host's root; what is written to it stays
in the machine's memory. Nothing is installed in it and no disk image is made.

Interface: `boot.py --kernel DIRECTORY COMMAND...`. DIRECTORY is what a Debian package
linux-image-VERSION-amd64 unpacks to (`apt-get download`, `dpkg -x`), or `/` where it is installed.
The command runs as root in `/bin/sh` with the working directory and PATH of this process and an
empty standard input; its output comes out here line by line, and its status is this program's.
Needs qemu-system-x86_64 and a static busybox.

virtme-ng (1.42) boots the same kernel, but needs udev and kmod in the host's root: its channels for
a script's output and status are found by names that udev makes. In a container, where continuous
integration runs, there is none, and both are lost.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_rng", "kvm-amd")
"""What the stock kernel needs for the host's root and for /dev/kvm; with what they depend on."""

DIRECTORIES = ("bin", "proc", "sys", "dev", "host", "memory", "root", "modules")

CPU = "max,la57=off"
"""With five levels of page tables programs have other addresses than nearly everywhere else."""

STATUS = "MACHINE STATUS "

# Contexts that spin for each other share one processor: short slices of time, by a timer of their
# own, instead of one or two ticks of 4 ms for every word that they pass.
# What lies on / is moved there first: in a mere chroot there would be no user namespaces.
# The command's output goes through a pipe: to a terminal, programs write otherwise. What it leaves
# running may hold that pipe, so its end is not waited for for ever.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module || echo "can't load $module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host
mount -t tmpfs memory /memory; mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root
mount -t proc proc /root/proc; mount -t sysfs sys /root/sys; mount -t devtmpfs dev /root/dev
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts; mount -t tmpfs shm /root/dev/shm
mount -t tmpfs run /root/run; mkdir /root/run/tmp; chmod 1777 /root/run/tmp
ip link set lo up
mount -t debugfs debug /sys/kernel/debug
echo HRTICK >/sys/kernel/debug/sched/features
for slice in latency min_granularity base_slice; do
[ ! -e /sys/kernel/debug/sched/${slice}_ns ] || echo 500000 >/sys/kernel/debug/sched/${slice}_ns
done
cp /command /root/run/command
for link in fd fd/0:stdin fd/1:stdout fd/2:stderr; do
ln -s /proc/self/${link%:*} /root/dev/${link#*:}
done
mkfifo /output; cat /output & reader=$!
exec 3>/output
cd /root; mount --move . /
chroot . /bin/sh /run/command </dev/null >&3 2>&1 3>&-
status=$?; exec 3>&-
(sleep 5; kill $reader) & wait $reader
echo "MACHINE STATUS $status"
poweroff -f
"""


def content(module: Path) -> bytes:
    """A module as the kernel takes it; Debian compresses them since version 13."""
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def modinfo(module: Path) -> dict[str, str]:
    """What a module says of itself: its .modinfo strings, found without an ELF library."""
    data = content(module)
    found = {}
    for key in (b"depends", b"name"):
        at = data.find(b"\0" + key + b"=")
        if at >= 0:
            value = data[at + len(key) + 2 : data.index(b"\0", at + 1)]
            found[key.decode()] = value.decode()
    return found


def in_order(files: dict[str, Path], name: str, seen: set[str]) -> Iterator[Path]:
    """A module and what it depends on, that first. What is built in has no file."""
    name = name.replace("-", "_")
    if name in seen or name not in files:
        return
    seen.add(name)
    for other in filter(None, modinfo(files[name]).get("depends", "").split(",")):
        yield from in_order(files, other, seen)
    yield files[name]


def modules(root: Path) -> list[Path]:
    """The module files to load, in order."""
    # Debian 13 has them below usr.
    files = {
        path.name.partition(".ko")[0].replace("-", "_"): path
        for pattern in ("lib/modules/*/**/*.ko", "lib/modules/*/**/*.ko.xz")
        for base in (root, root / "usr")
        for path in base.glob(pattern)
    }
    seen: set[str] = set()
    return [path for name in MODULES for path in in_order(files, name, seen)]


def archive(entries: dict[str, tuple[int, bytes]]) -> bytes:
    """An initramfs: cpio's "newc" format; Documentation/driver-api/early-userspace/."""
    out = bytearray()
    for inode, (name, (mode, content)) in enumerate({**entries, "TRAILER!!!": (0, b"")}.items(), 1):
        encoded = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4)
        out += content
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(root: Path, busybox: Path, command: str) -> bytes:
    """Busybox, the modules, and the command."""
    directory, executable = 0o40755, 0o100755
    entries = dict.fromkeys(DIRECTORIES, (directory, b""))
    entries["bin/busybox"] = (executable, busybox.read_bytes())
    entries["init"] = (executable, INIT.encode())
    entries["command"] = (executable, command.encode())
    for number, path in enumerate(modules(root)):
        name = path.name.removesuffix(".xz")
        entries[f"modules/{number:02}-{name}"] = (0o100644, content(path))
    return gzip.compress(archive(entries), 1)


def script(command: list[str]) -> str:
    """The command as a shell script, in this process's surroundings."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "PYSANDBOX_PATIENCE")
    lines = [f"export {key}={shlex.quote(os.environ[key])}" for key in kept if key in os.environ]
    lines += ["export TMPDIR=/run/tmp PYTHONDONTWRITEBYTECODE=1", f"cd {shlex.quote(os.getcwd())}"]
    return "\n".join([*lines, shlex.join(command)]) + "\n"


def run(kernel: Path, initrd: Path, timeout_s: int) -> int:
    """Boots; the status of the command, or 124 when it took too long, 125 when there is none."""
    # One processor: with several, each a thread of QEMU's, nested guests make the machine stall.
    qemu = [
        *("qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", CPU, "-smp", "1"),
        *("-m", "2048", "-display", "none", "-vga", "none", "-monitor", "none", "-serial", "stdio"),
        *("-no-reboot", "-nic", "none"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 quiet panic=-1"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-rng-pci"),
    ]
    status = 125
    with subprocess.Popen(
        ["timeout", str(timeout_s), *qemu], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode(errors="replace").replace("\r", "")
            if text.startswith(STATUS):
                status = int(text.removeprefix(STATUS))
            else:
                sys.stdout.write(text)
                sys.stdout.flush()
    return 124 if process.returncode == 124 else status


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernel", type=Path, required=True, metavar="DIRECTORY")
    parser.add_argument("--busybox", type=Path, default=shutil.which("busybox"))
    parser.add_argument("--timeout", type=int, default=900, metavar="SECONDS")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if shutil.which("qemu-system-x86_64") is None:
        parser.error("qemu-system-x86_64 is not installed (Debian: qemu-system-x86)")
    if arguments.busybox is None:
        parser.error("busybox is not installed (Debian: busybox-static)")
    kernels = sorted(arguments.kernel.glob("boot/vmlinuz-*"))
    if not kernels:
        parser.error(f"no boot/vmlinuz-* in {arguments.kernel}")
    with tempfile.TemporaryDirectory() as directory:
        initrd = Path(directory) / "initrd"
        initrd.write_bytes(
            initramfs(arguments.kernel, arguments.busybox, script(arguments.command))
        )
        return run(kernels[-1], initrd, arguments.timeout)


if __name__ == "__main__":
    sys.exit(main())
