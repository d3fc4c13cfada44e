"""Ten thousand jobs at once: what a start costs beside them, and a page of a thousand.

Without them first, then with all of them running, then without them again, in
every round. All must run at the same time, and each must end with its own code.
Where the hard limit of open files is too low, and may not be raised, there are as
many as it allows: the table says how many that is.
"""

import os
import resource
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.caller import Caller, callers, together
from bench.measure import Figure, p50, timed
from bench.parts.memory import pss, service
from bench.parts.start import start_p50, status_p50
from bench.report import Row, table
from bench.site import Site, running_site
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from jobworker.supervisor.host.descriptors import JOB_DESCRIPTORS, RESERVE

_JOBS = 10_000
_ROUNDS = 3
_AT_ONCE = 16
_PAGE = 1_000
_LISTS = 20
# Those that are started while all run.
_BESIDE = 256
_CODE = 7
_MIB = 2.0**-20
_SCRIPT = f"read line < $0; exit {_CODE}"


class Thousands(NamedTuple):
    """One round; seconds, but for the memory's bytes of supervisor and front."""

    start_alone: float
    start_beside: float
    status_beside: float
    page: float
    rate: float
    ended: float
    memory: int


def main() -> None:
    """Measure and print the table."""
    jobs = _allowed() // _AT_ONCE * _AT_ONCE
    with running_site() as site, callers(site.login, 4) as crew:
        gate = site.directory / "gate"
        os.mkfifo(gate)
        rounds = [_round(site, crew, gate, jobs) for _ in range(_ROUNDS)]
    print(table(f"{jobs:,} jobs at once, all with the right exit code", _rows(rounds)))


def _allowed() -> int:
    """How many jobs there can be, with the most descriptors that this process may have.

    What it starts has the same limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = RESERVE + (_JOBS + _BESIDE) * JOB_DESCRIPTORS
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_JOBS, (soft - RESERVE) // JOB_DESCRIPTORS - _BESIDE)


def _round(site: Site, crew: list[Caller], gate: Path, jobs: int) -> Thousands:
    first = crew[0]
    alone = [first.run(start_p50_beside)]
    holder = os.open(gate, os.O_RDWR)
    try:
        rate = together(crew, partial(start_waiting, gate=str(gate)), jobs, _AT_ONCE)
        if (running := first.run(count_running)) != jobs:
            raise AssertionError(f"{running} of {jobs} jobs run")
        one = first.run(newest)
        beside, status, page = (
            first.run(start_p50_beside),
            first.run(status_p50, one),
            first.run(page_p50),
        )
        memory = sum(pss(service(site, name)) for name in ("supervisor", "front"))
        ended = timed(lambda: _end(first, holder, jobs))
    finally:
        os.close(holder)
    alone.append(first.run(start_p50))
    return Thousands(min(alone), beside, status, page, rate, ended, memory)


def _end(caller: Caller, holder: int, jobs: int) -> None:
    left = memoryview(b"\n" * jobs)
    while left:
        left = left[os.write(holder, left) :]
    if (codes := caller.run(codes_at_the_end)) != {_CODE: jobs}:
        raise AssertionError(f"the jobs ended with {codes}")


def _rows(rounds: list[Thousands]) -> Iterator[Row]:
    def of(name: str) -> Figure:
        return Figure(tuple(getattr(one, name) for one in rounds))

    starts = {"beside the jobs": of("start_beside"), "without them": of("start_alone")}
    yield Row("Start p50, 1 caller", "ms", starts, scale=1e3)
    ratio = Figure(tuple(one.start_beside / one.start_alone for one in rounds))
    yield Row("Start beside them, to one without", "", {"ratio": ratio}, goal=1.3)
    yield Row("QueryStatus p50", "ms", {"beside the jobs": of("status_beside")}, scale=1e3)
    yield Row(f"List of {_PAGE:,}", "ms", {"beside the jobs": of("page")}, scale=1e3, goal=60)
    yield Row("Starts a second", "1/s", {"16 callers": of("rate")}, more=True)
    yield Row("Until all have ended, all told", "s", {"all": of("ended")})
    memory = {"beside the jobs": of("memory")}
    yield Row("Memory of supervisor and front", "MiB", memory, scale=_MIB)


# What follows runs in the callers' processes.


def start_waiting(stub: WorkerServiceStub, gate: str) -> None:
    """Start a job that waits at the gate."""
    stub.Start(pb.StartRequest(commandName="sh", Arguments=["-c", _SCRIPT, gate]))


def start_p50_beside(stub: WorkerServiceStub) -> float:
    """The seconds a start takes, whatever else runs."""
    return p50(lambda: stub.Start(pb.StartRequest(commandName="true")), 200)


def newest(stub: WorkerServiceStub) -> str:
    """The ID of a job that runs."""
    (job,) = stub.List(pb.ListRequest(running=True, pageSize=1)).jobs
    return str(job.jobID)


def page_p50(stub: WorkerServiceStub) -> float:
    """The seconds a page takes."""

    def page() -> None:
        jobs = stub.List(pb.ListRequest(running=True, pageSize=_PAGE)).jobs
        assert len(jobs) == _PAGE, len(jobs)

    return p50(page, _LISTS)


def count_running(stub: WorkerServiceStub) -> int:
    """How many jobs run that wait at the gate."""
    return sum(job.commandName == "sh" for job in _all(stub, running=True))


def codes_at_the_end(stub: WorkerServiceStub) -> dict[int, int]:
    """Wait until none runs; how often each exit code was, of the jobs at the gate. Removes all."""
    while stub.List(pb.ListRequest(running=True, pageSize=1)).jobs:
        pass
    codes = Counter(job.exitCode for job in _all(stub, running=False) if job.commandName == "sh")
    stub.Prune(pb.PruneRequest())
    return dict(codes)


def _all(stub: WorkerServiceStub, *, running: bool) -> Iterator[pb.QueryStatusResponse]:
    token = ""
    while True:
        answer = stub.List(pb.ListRequest(running=running, pageSize=_PAGE, pageToken=token))
        yield from answer.jobs
        token = answer.nextPageToken
        if not token:
            return
