"""The first process of a guest: makes a host of it, runs Python, and turns it off.

    boot.py DIRECTORY WORD...

DIRECTORY, of the host's files, is /run/files; each WORD is an argument of Python.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# Unix users of the guest: those who run jobs, and the front's. Groups have the same names and IDs.
USERS = {"alice": 2001, "bob": 2002, "jobfront": 2003}
# Directories, with the options of what is mounted over them: a test would write there.
EMPTIED = {"/home": "mode=755", "/root": "mode=711", "/srv": "mode=755", "/tmp": "mode=1777"}
# All of the host's files, also those that something was mounted over. Not there for the tests.
HOST = Path("/run/host")

MNT_DETACH, MS_BIND = 2, 4096
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
    mount("hostfs", "hostfs", str(HOST))
    mount("", f"{HOST}{directory}", "/run/files", flags=MS_BIND)
    needed = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), *_links(Path(sys.executable))}
    _empty(needed)
    _libc.umount2(str(HOST).encode(), MNT_DETACH)


def _links(path: Path) -> Iterator[Path]:
    """The directories that a symbolic link leads through."""
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield path.parent


def _empty(needed: set[Path]) -> None:
    """Mount empty directories over the host's; of what was there, only the needed comes back.

    All users can then reach it, even in what is root's alone: pyenv's Python in
    root's home, or a clone in a directory that mktemp(1) made.
    """
    paths = {part for path in needed for part in (path, *path.parents)}
    closed = {path for path in paths if not path.stat().st_mode & stat.S_IXOTH}
    over = {**{str(path): "mode=755" for path in closed}, **EMPTIED}
    for directory, options in sorted(over.items()):
        mount("tmpfs", "tmpfs", directory, options)
    hidden = {*map(Path, over), Path("/run"), Path("/dev/shm")}
    for path in sorted(path for path in needed if hidden & {path, *path.parents}):
        _bring_back(_in_host(path) if path in closed else [path])


def _in_host(directory: Path) -> list[Path]:
    return [directory / name for name in os.listdir(f"{HOST}{directory}")]


def _bring_back(paths: Iterable[Path]) -> None:
    for path in paths:
        source = Path(f"{HOST}{path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            if not path.is_symlink():
                path.symlink_to(source.readlink())
            continue
        if not source.is_dir():
            path.touch()
        mount("", str(source), str(path), flags=MS_BIND)


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
    directory, *words = sys.argv[1:]
    print("guest: booted", flush=True)
    try:
        mount_all(Path(directory))
        make_users()
        raise_loopback()
        subprocess.run([sys.executable, *words], cwd=REPOSITORY, check=False)
    finally:
        sys.stdout.flush()
        os.sync()
        _libc.reboot(POWER_OFF)


if __name__ == "__main__":
    main()
