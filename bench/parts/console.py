"""Pages in a browser: how long the first takes, how late a line is, what open ones cost."""

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from bench.measure import p50, timed
from tests.support.server import Server, running_server
from tests.support.web.browser import CONSOLE, Browser, browser

USERS = 20
PAGES_OF_EACH = 25
LINES = 50
FIRST_PAGES = 200
_IDLE_SECONDS = 10.0
_POLICY = 'rules:\n  - {allow: "*", to: "cn:*", jobs: "{ou}/{cn}"}\n'


def main() -> None:
    """Measure, and print it beside the goals."""
    users = [(f"user{number}", "bench") for number in range(USERS)]
    with TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        with running_server(directory, users, _POLICY, CONSOLE) as server:
            _measure(directory, server)


def _measure(directory: Path, server: Server) -> None:
    user = browser(server, "user0")
    for _ in range(60):
        server.ask("user0", "start", "--", "true")
    user.get("/jobs")
    first = p50(lambda: user.get("/jobs"), FIRST_PAGES)
    print(f"first page, 50 jobs, new connection: p50 {first * 1e3:.1f} ms (goal: 100)")
    late = _lines(directory, server, user)
    print(
        f"a line, from write(2) to the browser: p50 {statistics.median(late) * 1e3:.1f} ms, "
        f"worst {max(late) * 1e3:.1f} ms (goal: 50)"
    )
    _open_pages(server, "lists", "/live/jobs", "jobs")
    jobs = [server.ask(f"user{number}", "start", "--", "sleep", "1000") for number in range(USERS)]
    _open_pages(server, "pages of running jobs", "/live/jobs/{job}?from=0", "usage", jobs)


def _open_pages(
    server: Server, what: str, path: str, first: str, jobs: Sequence[str] = ("",) * USERS
) -> None:
    """Have many open at once; what they cost while nothing happens."""
    with ExitStack() as open_pages:
        for number, job in enumerate(jobs):
            other = browser(server, f"user{number}")
            for _ in range(PAGES_OF_EACH):
                events = other.events(path.format(job=job))
                open_pages.enter_context(events).until(first)
        user, front = browser(server, "user0"), _front(server)
        before = front.cpu_times()
        time.sleep(_IDLE_SECONDS)
        after = front.cpu_times()
        used = after.user + after.system - before.user - before.system
        memory = front.memory_info().rss / 2**20
        page = timed(lambda: user.get("/jobs"))
    print(
        f"{USERS * PAGES_OF_EACH} open {what}: the front has {memory:.0f} MiB (goal: 300) and "
        f"takes {used / _IDLE_SECONDS:.1%} of a processor; one more page {page * 1e3:.1f} ms"
    )


def _lines(directory: Path, server: Server, user: Browser) -> list[float]:
    """How late each of some lines is, one at a time."""
    fifo = directory / "lines"
    os.mkfifo(fifo)
    job = server.ask("user0", "start", "--", "cat", str(fifo))
    late = []
    with user.events(f"/live/jobs/{job}?from=0") as events, fifo.open("w") as lines:
        events.until("status")
        for number in range(LINES):
            # Longer than two events are apart at the least.
            time.sleep(0.2)
            begin = time.perf_counter()
            print(number, file=lines, flush=True)
            events.until("output")
            late.append(time.perf_counter() - begin)
    return late


def _front(server: Server) -> psutil.Process:
    (front,) = (
        child
        for child in psutil.Process(server.process.pid).children()
        if child.cmdline()[:1] == ["jobworker: front"]
    )
    return front
