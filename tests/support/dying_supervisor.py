"""Supervisors that die, or in which a system call fails, at a chosen point of their program.

The keeper runs them in place of jobworker.supervisor.core.process. The environment
variable DIES_AT has the point of a death as from SIGKILL, `MODULE:CLASS.METHOD
before` or `... after`, and DIES_COUNT a file with a letter for each death still
to come.

FAILS_AT names a file: `NAME;NUMBER;ERRNO` has call NUMBER (the first is 0) of that
function fail, counted from when that was written; it is emptied then.

CLOCK_STEP names a file with the seconds by which the wall clock is set wrong.
"""

import fcntl
import functools
import importlib
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from jobworker.supervisor.core import process
from jobworker.supervisor.keeper.packets import Line

TARGET = "tests.support.dying_supervisor:main"
NEVER_UP = "tests.support.dying_supervisor:never_up"
FAILING = "tests.support.dying_supervisor:failing"
STEPPED = "tests.support.dying_supervisor:stepped"
# What a supervisor asks of the system for jobs, by the names it uses.
CALLS: dict[str, tuple[ModuleType, str]] = {
    "fdatasync": (os, "fdatasync"),
    "fcntl": (fcntl, "fcntl"),
    "listdir": (os, "listdir"),
    "memfd_create": (os, "memfd_create"),
    "mkdir": (os, "mkdir"),
    "open": (os, "open"),
    "open a file": (io, "open"),
    "pidfd_open": (os, "pidfd_open"),
    "pipe2": (os, "pipe2"),
    "posix_fallocate": (os, "posix_fallocate"),
    "pwrite": (os, "pwrite"),
    "read": (os, "read"),
    "rename": (os, "rename"),
    "scandir": (os, "scandir"),
    "socketpair": (socket, "socketpair"),
    "splice": (os, "splice"),
    "write": (os, "write"),
}


def main(config: str, line: Line) -> None:
    """The supervisor, which dies when it comes to the point."""
    place, _, when = os.environ["DIES_AT"].partition(" ")
    module, _, names = place.partition(":")
    class_name, _, method = names.partition(".")
    owner = getattr(importlib.import_module(module), class_name)
    setattr(owner, method, _deadly(getattr(owner, method), when))
    process.main(config, line)


def _deadly(method: Callable[..., object], when: str) -> Callable[..., object]:
    @functools.wraps(method)
    def wrapped(*arguments: object, **named: object) -> object:
        if when == "before":
            _die()
        result = method(*arguments, **named)
        if when == "after":
            _die()
        return result

    return wrapped


def _die() -> None:
    deaths = Path(os.environ["DIES_COUNT"])
    left = deaths.read_text()
    if left:
        deaths.write_text(left[1:])
        os.kill(os.getpid(), signal.SIGKILL)


def never_up(config: str, line: Line) -> None:
    """A supervisor that fails as long as DIES_COUNT has a letter, whatever it is asked."""
    if Path(os.environ["DIES_COUNT"]).read_text():
        sys.exit("it fails")
    process.main(config, line)


class _Fault:
    """The one call that is to fail, if there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._busy = False
        self._seen = 0

    def due(self, name: str) -> int:
        """The errno that this call is to fail with, or 0."""
        if self._busy:
            return 0
        self._busy = True
        try:
            words = self._path.read_text().split(";")
            if len(words) < 3 or words[0] != name:
                return 0
            self._seen += 1
            if self._seen <= int(words[1]):
                return 0
            self._seen = 0
            self._path.write_text("")
            return int(words[2])
        finally:
            self._busy = False


def failing(config: str, line: Line) -> None:
    """The supervisor, with every one of these calls prepared to fail."""
    fault = _Fault(Path(os.environ["FAILS_AT"]))
    for name, (owner, attribute) in CALLS.items():
        setattr(owner, attribute, _refused(getattr(owner, attribute), name, fault))
    process.main(config, line)


def _refused(call: Callable[..., Any], name: str, fault: _Fault) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        number = fault.due(name)
        if number:
            raise OSError(number, os.strerror(number))
        return call(*arguments, **named)

    return wrapped


def stepped(config: str, line: Line) -> None:
    """A supervisor on a host whose clock is set while it runs."""
    step, real = Path(os.environ["CLOCK_STEP"]), time.time_ns

    def time_ns() -> int:
        return real() + int(step.read_text()) * 10**9

    for module in list(sys.modules.values()):
        if getattr(module, "time_ns", None) is real:
            module.__dict__["time_ns"] = time_ns
    process.main(config, line)
