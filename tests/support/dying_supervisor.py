"""A supervisor that dies at a chosen point of its program, as from SIGKILL, as often as it is told.

The keeper runs it in place of jobworker.supervisor.core.process. The environment
variable DIES_AT has the point, `MODULE:CLASS.METHOD before` or `... after`, and
DIES_COUNT a file with a letter for each death still to come.
"""

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from jobworker.supervisor.core import process
from jobworker.supervisor.keeper.packets import Line

TARGET = "tests.support.dying_supervisor:main"
NEVER_UP = "tests.support.dying_supervisor:never_up"


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
