"""Many followers and many writers at once: who waits for whom, and what memory does it take?

The writer tells in each line when it wrote it, by the clock that all processes
of a host share; the follower looks at that clock when the line is there.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.caller import Caller, Login, callers
from bench.measure import Figure, p50, percentile, repeated, timed
from bench.parts.followers import Followed, finish, follow
from bench.parts.memory import highest_pss, pss, service
from bench.parts.start import start
from bench.report import Row, table
from bench.site import Site, running_site
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub

_FOLLOWERS = 1000
_CROWD_PROCESSES = 4
_IDLE_JOBS = 10
_LINES = 200
# The first ones may be there before the follower is.
_WARM_UP = 20
_LINE_SECONDS = 0.01
_WRITER = """
import sys, time
for _ in range(int(sys.argv[1])):
    sys.stdout.write(f"{time.monotonic_ns()}\\n")
    sys.stdout.flush()
    time.sleep(float(sys.argv[2]))
"""
_FLOODS = 20
_STARTS = 100
_KEPT = pb.OutputLimit(bytes=64 * 2**20, overflow=pb.OUTPUT_OVERFLOW_ROTATE)
_LONG_BYTES = 10 * 10**9
_SHARED_BYTES = 2 * 2**20
_ROUNDS = 3
_FEW = 10
_MILLISECOND = 1e3
_MIB = 2.0**-20
_MEGABYTE = 1e-6


class Latency(NamedTuple):
    """Of one round, in seconds."""

    p50: float
    p99: float


class Shared(NamedTuple):
    """One output to many followers: bytes a second in all, and the front's highest memory."""

    rate: float
    memory: float


class Wrong(Exception):
    """A follower was not given what the job wrote."""


def main() -> None:
    """Measure and print the tables."""
    with (
        running_site() as site,
        callers(site.login, 1) as (caller,),
        callers(site.login, _CROWD_PROCESSES) as crowd,
    ):
        print(table("From a write to its follower", _latencies(site, caller, crowd)), flush=True)
        print(table(f"{_FLOODS} jobs that flood", _floods(caller)), flush=True)
        print(table("A long output", _long_output(site, caller)), flush=True)
        title = f"One job's {_SHARED_BYTES // 2**20} MiB to many followers, each byte checked"
        print(table(title, _shared(site, caller, crowd)))


# -- latency ---------------------------------------------------------------------------


def _latencies(site: Site, caller: Caller, crowd: list[Caller]) -> list[Row]:
    def crowded(jobs: int) -> Latency:
        with _idle_followers(site.login, caller, crowd, jobs):
            return caller.run(latency)

    rounds = repeated(
        {
            f"job-worker: {_FOLLOWERS} idle followers of {_IDLE_JOBS} jobs": partial(
                crowded, _IDLE_JOBS
            ),
            f"job-worker: {_FOLLOWERS} idle followers of 1 job": partial(crowded, 1),
            "job-worker: no other follower": partial(caller.run, latency),
            "ssh, a held connection": partial(_ssh_latency, site),
        }
    )

    def of_all(value: Callable[[Latency], float]) -> dict[str, Figure]:
        return {way: Figure(tuple(map(value, taken))) for way, taken in rounds.items()}

    return [
        Row("p50", "ms", of_all(lambda taken: taken.p50), _MILLISECOND, goal=2),
        Row("p99", "ms", of_all(lambda taken: taken.p99), _MILLISECOND, goal=10),
    ]


@contextmanager
def _idle_followers(login: Login, caller: Caller, crowd: list[Caller], jobs: int) -> Iterator[None]:
    """Followers of jobs that write nothing more, for the block."""
    ids = [caller.run(start_waiting, "sleep", "infinity") for _ in range(jobs)]
    follow(login, crowd, ids * (_FOLLOWERS // jobs))
    yield
    for job in ids:
        caller.run(stop_and_remove, job)
    finish(crowd)


def _ssh_latency(site: Site) -> Latency:
    command = site.ssh.held(shlex.join(_writer()))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        return _latency(iter(partial(os.read, client.stdout.fileno(), 65536), b""))


def _writer() -> list[str]:
    return [sys.executable, "-c", _WRITER, str(_LINES), str(_LINE_SECONDS)]


def _latency(pieces: Iterator[bytes]) -> Latency:
    """How long after they were written whole lines are there."""
    seconds: list[float] = []
    rest = b""
    for piece in pieces:
        now = time.monotonic_ns()
        *lines, rest = (rest + piece).split(b"\n")
        seconds += [(now - int(line)) / 1e9 for line in lines]
    if len(seconds) != _LINES:
        raise Wrong(f"{len(seconds)} lines in place of {_LINES}")
    return Latency(percentile(seconds[_WARM_UP:], 0.5), percentile(seconds[_WARM_UP:], 0.99))


# -- floods ----------------------------------------------------------------------------


def _floods(caller: Caller) -> list[Row]:
    def flooded() -> float:
        jobs = [caller.run(start_flood) for _ in range(_FLOODS)]
        seconds = caller.run(start_p50)
        for job in jobs:
            caller.run(stop_and_remove, job)
        return seconds

    ways = {"while they flood": flooded, "while nothing else runs": partial(caller.run, start_p50)}
    flood, quiet = repeated(ways).values()
    figures = dict(zip(ways, (Figure(tuple(flood)), Figure(tuple(quiet))), strict=True))
    times = Figure(tuple(busy / idle for busy, idle in zip(flood, quiet, strict=True)))
    return [
        Row("Start p50", "ms", figures, _MILLISECOND),
        Row("Start p50, in relation", "times", {"while they flood": times}, goal=2),
    ]


# -- memory ----------------------------------------------------------------------------


def _long_output(site: Site, caller: Caller) -> list[Row]:
    supervisor = service(site, "supervisor")
    before, during, after, rates = [], [], [], []
    for _ in range(_ROUNDS):
        before.append(pss(supervisor))
        with highest_pss(supervisor) as highest:
            seconds = timed(partial(caller.run, write_long))
        during.append(highest())
        after.append(pss(supervisor))
        rates.append(_LONG_BYTES / seconds)
    figures = {
        "highest while it is written": Figure(tuple(during)),
        "before": Figure(tuple(before)),
        "after": Figure(tuple(after)),
    }
    goal = figures["before"].median * _MIB * 1.1 + 2
    what = f"The supervisor's memory, {_LONG_BYTES // 10**9} GB of which 64 MiB are kept"
    return [
        Row(what, "MiB", figures, _MIB, goal=round(goal, 1)),
        Row("Written", "MB/s", {"job-worker": Figure(tuple(rates))}, _MEGABYTE, more=True),
    ]


# -- one output, many followers --------------------------------------------------------


def _shared(site: Site, caller: Caller, crowd: list[Caller]) -> list[Row]:
    file, gate = site.directory / "shared", site.directory / "gate"
    file.write_bytes(os.urandom(_SHARED_BYTES))
    os.mkfifo(gate)
    before = pss(service(site, "front"))
    rounds = repeated(
        {
            f"{followers} followers": partial(
                _share, site, caller, crowd, file, gate, followers=followers
            )
            for followers in (_FOLLOWERS, _FEW)
        },
        _ROUNDS,
    )

    def of_all(value: Callable[[Shared], float]) -> dict[str, Figure]:
        return {way: Figure(tuple(map(value, taken))) for way, taken in rounds.items()}

    memory = {**of_all(lambda shared: shared.memory), "before": Figure((before,))}
    rate = of_all(lambda shared: shared.rate)
    return [
        Row("To all of them together", "MB/s", rate, _MEGABYTE, more=True),
        Row("The front's memory, highest", "MiB", memory, _MIB),
    ]


def _share(
    site: Site, caller: Caller, crowd: list[Caller], file: Path, gate: Path, *, followers: int
) -> Shared:
    script = 'read line < "$1"; exec cat "$2"'
    job = caller.run(start_waiting, "sh", "-c", script, "sh", str(gate), str(file))
    follow(site.login, crowd, [job] * followers)
    with highest_pss(service(site, "front")) as highest:
        begin = time.monotonic()
        gate.write_text("\n")
        given = finish(crowd)
        seconds = time.monotonic() - begin
    expected = Followed(
        len(_READY) + _SHARED_BYTES, hashlib.sha256(_READY + file.read_bytes()).hexdigest()
    )
    if given != [expected] * followers:
        raise Wrong(f"{sum(g != expected for g in given)} of {len(given)} followers")
    caller.run(stop_and_remove, job)
    return Shared(followers * expected.bytes / seconds, highest())


# What follows runs in the callers' processes.

_READY = b"ready\n"


def latency(stub: WorkerServiceStub) -> Latency:
    """Follow a job that tells the time."""
    program, *arguments = _writer()
    job = str(stub.Start(pb.StartRequest(commandName=program, Arguments=arguments)).jobID)
    messages = stub.GetOutput(pb.GetOutputRequest(jobID=job, raw=True))
    taken = _latency(message.data for message in messages)
    stop_and_remove(stub, job)
    return taken


def start_waiting(stub: WorkerServiceStub, *command: str) -> str:
    """Start a job that first writes one line, so that its followers know they follow."""
    script = ["-c", 'echo ready; exec "$@"', "sh", *command]
    return str(stub.Start(pb.StartRequest(commandName="sh", Arguments=script)).jobID)


def start_flood(stub: WorkerServiceStub) -> str:
    """Start a job that writes as fast as it can."""
    request = pb.StartRequest(commandName="cat", Arguments=["/dev/zero"], outputLimit=_KEPT)
    return str(stub.Start(request).jobID)


def start_p50(stub: WorkerServiceStub) -> float:
    """The seconds a start takes."""
    return p50(lambda: start(stub), _STARTS)


def write_long(stub: WorkerServiceStub) -> None:
    """Run a job that writes for long to its end; raises Wrong unless it could."""
    arguments = ["-c", str(_LONG_BYTES), "/dev/zero"]
    request = pb.StartRequest(commandName="head", Arguments=arguments, outputLimit=_KEPT)
    job = str(stub.Start(request).jobID)
    ended = stub.Wait(pb.WaitRequest(jobID=job, output=True))
    if ended.exitCode or ended.outputBytes != _LONG_BYTES:
        raise Wrong(f"{ended.outputBytes} bytes, exit code {ended.exitCode}")
    stub.Remove(pb.RemoveRequest(jobID=job))


def stop_and_remove(stub: WorkerServiceStub, job: str) -> None:
    """End a job, and forget it with its output."""
    stub.Stop(pb.StopRequest(jobID=job))
    stub.Wait(pb.WaitRequest(jobID=job, output=True))
    stub.Remove(pb.RemoveRequest(jobID=job))
