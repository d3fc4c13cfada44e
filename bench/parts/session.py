"""Input and terminals: how fast stdin passes through a job, and how soon a key is echoed.

A key is typed on a terminal on which `cat` runs, and waited for. Ours goes through the
held connection of a gRPC client, ssh's through a held connection, too.
"""

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from bench.caller import Caller, callers
from bench.measure import Figure, Measure, interleaved, percentile, repeated
from bench.report import Row, table
from bench.site import USER, Site, running_site
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.server import JOBWORKER

_BYTES = 200_000_000
_KEYS = 300
_WARM_UP = 20
_CAT_READY = len(b"ready\n")
_FOLLOWERS = 1000
_TERMINALS = 200
_AT_ONCE = 16
_MILLISECOND = 1e3
_MEGABYTE = 1e-6
_CAT = ("sh", "-c", "stty raw -echo; echo ready; exec cat")


class Wrong(Exception):
    """What came back is not what was sent."""


class Echo(NamedTuple):
    """Of one round, in seconds."""

    p50: float
    p99: float


def main() -> None:
    """Measure and print the tables."""
    with running_site() as site, callers(site.login, 2) as (typist, crowd):
        print(table("Input through `cat`, there and back", [_through(site)]))
        print(table("From key to echo", _echoes(site, typist, crowd)))
        took = typist.run(_many)
    print(f"{_TERMINALS} terminals at once: each has echoed its own line, in {took:.1f} s in all")


# -- there and back ------------------------------------------------------------------------


def _through(site: Site) -> Row:
    data = site.directory / "data"
    data.write_bytes(os.urandom(_BYTES))
    wanted = hashlib.sha256(data.read_bytes()).hexdigest()
    ours = [str(JOBWORKER), "run", "-i", "--", "cat"]
    environment = site.server.environment(USER)
    ways: dict[str, Measure] = {
        "jobworker run -i cat": partial(_rate, ours, environment, data),
        "ssh HOST cat, new connection": partial(_rate, site.ssh.cold("cat"), None, data),
    }
    for command, env in ((ours, environment), (site.ssh.cold("cat"), None)):
        with data.open("rb") as file:
            came = subprocess.run(command, env=env, stdin=file, capture_output=True, check=True)
        if hashlib.sha256(came.stdout).hexdigest() != wanted:
            raise Wrong(command)
    figures = interleaved(ways)
    goal = 0.8 * figures["ssh HOST cat, new connection"].median * _MEGABYTE
    return Row("Whole command, MB/s", "MB/s", figures, scale=_MEGABYTE, more=True, goal=round(goal))


def _rate(command: list[str], environment: dict[str, str] | None, data: Path) -> float:
    begin = time.perf_counter()
    with data.open("rb") as file:
        subprocess.run(command, env=environment, stdin=file, stdout=subprocess.DEVNULL, check=True)
    return _BYTES / (time.perf_counter() - begin)


# -- keys ------------------------------------------------------------------------------------


def _echoes(site: Site, typist: Caller, crowd: Caller) -> Iterator[Row]:
    alone: dict[str, Callable[[], Echo]] = {
        "job-worker: Input and GetOutput": lambda: typist.run(_ours),
        "ssh -tt HOST cat": partial(_ssh, site),
    }
    yield from _rows("nobody else", repeated(alone))
    followed = crowd.run(_follow_quiet_job, _FOLLOWERS)
    try:
        yield from _rows(f"{_FOLLOWERS} idle followers", repeated(alone), (3, 10))
    finally:
        crowd.run(_end, followed)


def _rows(
    beside: str, rounds: dict[str, list[Echo]], goals: tuple[float, float] | None = None
) -> Iterator[Row]:
    for number, part in enumerate(Echo._fields):
        figures = {
            name: Figure(tuple(getattr(echo, part) for echo in echoes))
            for name, echoes in rounds.items()
        }
        goal = goals[number] if goals else None
        yield Row(f"Echo {part}, {beside}", "ms", figures, scale=_MILLISECOND, goal=goal)


def _echo(press: Callable[[], None], seen: Callable[[], None]) -> Echo:
    taken: list[float] = []
    for number in range(_WARM_UP + _KEYS):
        begin = time.perf_counter()
        press()
        seen()
        if number >= _WARM_UP:
            taken.append(time.perf_counter() - begin)
    return Echo(percentile(taken, 0.5), percentile(taken, 0.99))


def _ours(worker: WorkerServiceStub) -> Echo:
    with _terminal(worker) as (keys, shown):

        def press() -> None:
            keys.put(pb.InputRequest(data=b"k"))

        return _echo(press, lambda: _expect(shown, 1))


@contextmanager
def _terminal(
    worker: WorkerServiceStub,
) -> "Iterator[tuple[SimpleQueue[pb.InputRequest | None], Iterator[pb.GetOutputResponse]]]":
    """A terminal with `cat` on it: what to type into, and what is shown."""
    request = pb.StartRequest(
        commandName=_CAT[0], Arguments=_CAT[1:], terminal=pb.Terminal(rows=24, columns=80)
    )
    job = worker.Start(request).jobID
    shown = worker.GetOutput(pb.GetOutputRequest(jobID=job, raw=True))
    _expect(shown, _CAT_READY)
    keys: SimpleQueue[pb.InputRequest | None] = SimpleQueue()
    keys.put(pb.InputRequest(jobID=job))
    call = worker.Input(iter(keys.get, None))
    next(call)
    try:
        yield keys, shown
    finally:
        keys.put(None)
        call.cancel()
        shown.cancel()
        worker.Stop(pb.StopRequest(jobID=job, graceSeconds=0.01))


def _expect(shown: Iterator[pb.GetOutputResponse], count: int) -> None:
    while count > 0:
        count -= len(next(shown).data)


def _ssh(site: Site) -> Echo:
    with subprocess.Popen(
        site.ssh.held("-tt", "stty raw -echo; echo ready; exec cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        out, keys = process.stdout.fileno(), process.stdin.fileno()
        ready = b""
        while not ready.endswith(b"ready\n"):
            ready += os.read(out, 4096)
        try:
            return _echo(lambda: _write(keys), lambda: _read(out))
        finally:
            process.kill()


def _write(keys: int) -> None:
    os.write(keys, b"k")


def _read(out: int) -> None:
    os.read(out, 1)


# -- many ---------------------------------------------------------------------------------------


_quiet: list[object] = []


def _follow_quiet_job(worker: WorkerServiceStub, count: int) -> str:
    """Follow a job that says nothing more, so many times."""
    job = str(worker.Start(pb.StartRequest(commandName="sleep", Arguments=["10000"])).jobID)
    _quiet.extend(worker.GetOutput(pb.GetOutputRequest(jobID=job, raw=True)) for _ in range(count))
    return job


def _end(worker: WorkerServiceStub, job: str) -> None:
    for call in _quiet:
        with contextlib.suppress(AttributeError):
            call.cancel()  # type: ignore[attr-defined]
    _quiet.clear()
    worker.Stop(pb.StopRequest(jobID=job, graceSeconds=0.01))


def _many(worker: WorkerServiceStub) -> float:
    """So many terminals at once: each shows what was typed on it, and nothing else."""
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            ends = list(
                pool.map(lambda _: stack.enter_context(_terminal(worker)), range(_TERMINALS))
            )
        for number, (keys, _) in enumerate(ends):
            keys.put(pb.InputRequest(data=b"line %05d" % number))
        for number, (_, shown) in enumerate(ends):
            data = b""
            while len(data.lstrip()) < len(b"line 00000"):
                data += next(shown).data
            if data.lstrip() != b"line %05d" % number:
                raise Wrong(data)
        return time.perf_counter() - begin
