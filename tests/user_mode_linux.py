"""Tests in a kernel of their own: user-mode Linux, where they are root and change what they like.

The guest sees the host's files (hostfs); what it mounts and whom it makes users
is gone with it. Debian's packages are user-mode-linux and, for processors with
AMX, gcc.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

GUEST = Path(__file__).with_name("guest")
KERNEL = "linux.uml"
MEMORY = "2G"
# A run takes 20 s on an idle machine.
DEADLINE_SECONDS = 300.0
REPORT = "report.xml"
# What the kernel says, for a failure to be understood.
LOG = "guest.log"


def run_in_guest(directory: Path, files: list[Path]) -> dict[str, str]:
    """Run pytest on the files in a new guest; "" or what went wrong by FILE::TEST.

    `directory` is for the run's own files. Skips the calling test where there
    is no user-mode Linux.
    """
    kernel = shutil.which(KERNEL)
    if kernel is None or os.geteuid() != 0:
        pytest.skip("needs root and user-mode Linux: apt install user-mode-linux gcc")
    log = directory / LOG
    words = ["rootfstype=hostfs", "rootflags=/", "rw", "con=null", "con0=null,fd:1", "quiet"]
    init = _init_script(directory, files)
    with log.open("wb") as output:
        guest = subprocess.Popen(
            [kernel, f"mem={MEMORY}", *words, f"init={init}"],
            env={**os.environ, **_registers(directory)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        guest.wait(DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the guest did not end: {log.read_text(errors='replace')}")
    finally:
        # Its processes are this host's, too, all of one session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()
    report = directory / REPORT
    text = log.read_text(errors="replace")
    if not report.exists() and "ptrace set fp regs failed" in text:
        pytest.skip("user-mode Linux needs gcc to run on this processor: apt install gcc libc6-dev")
    assert report.exists(), text
    return _outcomes(report)


def _init_script(directory: Path, files: list[Path]) -> Path:
    """The guest's first program: a shell, as the kernel gives it no environment to speak of."""
    script = directory / "init"
    words = [sys.executable, str(GUEST / "boot.py"), str(directory), *map(str, files)]
    script.write_text(
        "#!/bin/sh\nexport PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        f"export HOME=/root LANG=C.UTF-8\nexec {' '.join(words)}\n"
    )
    script.chmod(0o755)
    return script


def _registers(directory: Path) -> dict[str, str]:
    """The environment in which the kernel runs on processors with large register files."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return {}
    library = directory / "xstate.so"
    source = str(GUEST / "xstate.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}


def _outcomes(report: Path) -> dict[str, str]:
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        wrong = [part for part in case if part.tag in {"failure", "error", "skipped"}]
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        outcomes[name] = "\n".join(f"{part.get('message')}\n{part.text}" for part in wrong)
    return outcomes
