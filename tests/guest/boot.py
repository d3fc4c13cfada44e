"""The first process of a guest: makes a host of it, runs pytest, and turns it off.

    boot.py DIRECTORY FILE...

DIRECTORY, of the host's files, is where the report goes; each FILE holds tests.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# Unix users of the guest: those who run jobs, and the front's. Groups have the same names and IDs.
USERS = {"alice": 2001, "bob": 2002, "jobfront": 2003}
REPORT = "report.xml"
# Directories, with the options of what is mounted over them.
EMPTIED = {"/tmp": "mode=1777", "/home": "mode=755", "/srv": "mode=755", "/root": "mode=711"}

MS_BIND = 4096
POWER_OFF = 0x4321FEDC
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, source: str, target: str, options: str = "", flags: int = 0) -> None:
    """Make a directory, unless there is something, and mount there. Raises OSError."""
    if not Path(target).exists():
        Path(target).mkdir(parents=True)
    words = (source, target, kind, flags, options)
    if _libc.mount(*(word.encode() if isinstance(word, str) else word for word in words)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def mount_all(directory: Path) -> None:
    """What a host has mounted; and nothing of the host's that a test would write to."""
    mount("proc", "proc", "/proc")
    mount("sysfs", "sysfs", "/sys")
    mount("cgroup2", "cgroup2", "/sys/fs/cgroup")
    mount("tmpfs", "tmpfs", "/dev/shm", "mode=1777")
    mount("tmpfs", "tmpfs", "/run", "mode=755")
    mount("", str(directory), "/run/report", flags=MS_BIND)
    _empty(EMPTIED, {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)})


def _empty(directories: dict[str, str], needed: set[Path]) -> None:
    """Mount empty directories over the host's; of what was there, only the needed comes back.

    Users can then reach it, even where it lies in root's home, as pyenv's Python does.
    """
    covered = [path for path in sorted(needed) if set(map(str, path.parents)) & set(directories)]
    for number, path in enumerate(covered):
        mount("", str(path), f"/run/aside/{number}", flags=MS_BIND)
    for directory, options in directories.items():
        mount("tmpfs", "tmpfs", directory, options)
    for number, path in enumerate(covered):
        mount("", f"/run/aside/{number}", str(path), flags=MS_BIND)


def make_users() -> None:
    """Add the users to the host's, for the guest alone, each with a home of its own."""
    lines = {"passwd": "{0}:x:{1}:{1}::/home/{0}:/bin/sh\n", "group": "{0}:x:{1}:\n"}
    for name, line in lines.items():
        own = Path("/run", name)
        shutil.copy(f"/etc/{name}", own)
        with own.open("a") as file:
            file.writelines(line.format(user, number) for user, number in USERS.items())
        mount("", str(own), f"/etc/{name}", flags=MS_BIND)
    for user, number in USERS.items():
        home = Path("/home", user)
        home.mkdir(mode=0o700)
        os.chown(home, number, number)


def raise_loopback() -> None:
    """Give the guest its loopback network (netdevice(7))."""
    with socket.socket() as sock:
        request = bytearray(fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0)))
        (flags,) = struct.unpack_from("h", request, 16)
        struct.pack_into("h", request, 16, flags | IFF_UP)
        fcntl.ioctl(sock, SIOCSIFFLAGS, bytes(request))


def main() -> None:
    """Do it all; whatever goes wrong is to be read in the kernel's output."""
    directory, *files = sys.argv[1:]
    try:
        mount_all(Path(directory))
        make_users()
        raise_loopback()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=12"]
        subprocess.run(
            [*command, f"--junitxml=/run/report/{REPORT}", *files],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
    finally:
        sys.stdout.flush()
        os.sync()
        _libc.reboot(POWER_OFF)


if __name__ == "__main__":
    main()
