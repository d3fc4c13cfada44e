"""Waiting for what only looking can tell."""

import threading
from collections.abc import Callable

DEADLINE_SECONDS = 60.0


def until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Return when the condition holds; fail after so many seconds."""
    deadline = threading.Event()
    timer = threading.Timer(seconds, deadline.set)
    timer.start()
    try:
        while not condition():
            assert not deadline.wait(0.02), "it did not come to be in time"
    finally:
        timer.cancel()
