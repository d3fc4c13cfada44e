"""What memory a process takes, and took at most."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from bench.site import Site

_SAMPLE_SECONDS = 0.05


def service(site: Site, name: str) -> psutil.Process:
    """The supervisor or the front of a site's server."""
    children = psutil.Process(site.server.process.pid).children()
    (found,) = (child for child in children if _title(child) == f"jobworker: {name}")
    return found


def _title(process: psutil.Process) -> str:
    try:
        return str(process.cmdline()[0])
    except (psutil.NoSuchProcess, IndexError):
        # One that has ended, such as a job.
        return ""


def pss(process: psutil.Process) -> int:
    """The proportional set size (proc(5), smaps_rollup), in bytes."""
    return int(process.memory_full_info().pss)


@contextmanager
def highest_pss(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """Look at a process's memory again and again; gives what tells the highest after the block."""
    seen = [pss(process)]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            seen.append(pss(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: max(seen)
    finally:
        over.set()
        watcher.join()
