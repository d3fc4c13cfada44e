"""Python in a kernel of its own, user-mode Linux, where it is root and changes what it likes.

The guest sees the host's files (hostfs); what it mounts and whom it makes users
is gone with it. Debian's packages are user-mode-linux and, for processors with
AMX, gcc and libc6-dev.
"""

import contextlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

GUEST = Path(__file__).parents[1] / "guest"
KERNEL = "linux.uml"
MEMORY_MIB = 1024
# Fast, and where there is enough of it, the guest's memory.
SHARED_MEMORY = Path("/dev/shm")
# Of all directories for passing files the one that the guest hides nothing of.
SCRATCH = "/var/tmp"
# The first that is written by the guest's first program, and not by its kernel.
BOOTED = "guest: booted\n"
# The last, of its kernel again.
OFF = "reboot: System halted"
# The user of the front must be able to read the code, of ours and of others.
READ_BY_ALL = (GUEST.parents[1] / "grpc_api/front.py", Path(grpc.__file__))


class NoGuest(Exception):
    """There can be no guest on this host; the text says why."""


def run_in_guest(
    words: Sequence[str], files: Path, seconds: float, *, first: str = "boot.py"
) -> str:
    """Run `python WORDS` as root of a new guest, in this repository; returns what it wrote.

    `first` is the guest's first program: boot.py, or boot_systemd.py to run below systemd.
    The guest has the directory `files` as /run/files. Raises NoGuest where
    there is no user-mode Linux, and AssertionError when the guest did not get as
    far as the program, or was not off after so many seconds.
    """
    kernel = shutil.which(KERNEL)
    if kernel is None or os.geteuid() != 0:
        raise NoGuest("needs root and user-mode Linux: apt install user-mode-linux gcc libc6-dev")
    if not all(path.stat().st_mode & stat.S_IROTH for path in READ_BY_ALL):
        raise NoGuest("needs a clone and an environment that all users can read: see umask(1p)")
    with TemporaryDirectory(prefix="guest-", dir=SCRATCH) as name:
        text = _boot(kernel, Path(name), [str(GUEST / first), str(files), *words], seconds)
    _, booted, output = text.partition(BOOTED)
    if booted:
        return output.rstrip().removesuffix(OFF)
    if "ptrace set fp regs failed" in text and shutil.which("gcc") is None:
        raise NoGuest("user-mode Linux needs gcc on this processor: apt install gcc libc6-dev")
    if "Kernel panic" not in text:
        # Its looking at the host comes first, and ends it where a sandbox forbids ptrace(2), say.
        raise NoGuest(f"user-mode Linux does not run on this host: {text.strip()[-300:]}")
    raise AssertionError(text)


def _boot(kernel: str, directory: Path, words: Sequence[str], seconds: float) -> str:
    """Run a guest until it is off; what it wrote, its kernel's messages first."""
    log = directory / "log"
    options = ["rootfstype=hostfs", "rootflags=/", "rw", "con=null", "con0=null,fd:1", "quiet"]
    own = [f"mem={MEMORY_MIB}M", f"uml_dir={directory}/", f"init={_init(directory, words)}"]
    with log.open("wb") as output:
        guest = subprocess.Popen(
            [kernel, *options, *own],
            env={**os.environ, **_registers(directory), "TMPDIR": str(_memory(directory))},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        guest.wait(seconds)
    except subprocess.TimeoutExpired:
        told = log.read_text(errors="replace")
        raise AssertionError(f"the guest was not off after {seconds:g} s: {told}") from None
    finally:
        # Its processes are this host's, too, all of one session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()
    return log.read_text(errors="replace").replace("\r\n", "\n")


def _init(directory: Path, words: Sequence[str]) -> Path:
    """The guest's first program: a shell, as the kernel gives it no environment to speak of."""
    script = directory / "init"
    script.write_text(
        "#!/bin/sh\nexport PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        "export HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1\n"
        f"exec {shlex.join([sys.executable, *words])}\n"
    )
    script.chmod(0o755)
    return script


def _memory(directory: Path) -> Path:
    """Where the file that is the guest's memory goes; the kernel executes what is in it."""
    if not SHARED_MEMORY.is_dir():
        return directory
    found = os.statvfs(SHARED_MEMORY)
    enough = found.f_bavail * found.f_frsize > MEMORY_MIB * 2**20
    return SHARED_MEMORY if enough and not found.f_flag & os.ST_NOEXEC else directory


def _registers(directory: Path) -> dict[str, str]:
    """The environment in which the kernel runs on processors with large register files."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return {}
    library = directory / "xstate.so"
    source = str(GUEST / "xstate.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}
