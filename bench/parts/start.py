"""How long a start takes, how many there are in a second, and what asking for a status takes.

ssh starts a client process for each command, which is part of its figures as
Python is of ours; `ssh HOST true` returns when `true` has ended, as does Start
followed by Wait. supervisord serves one call at a time, so only one caller asks.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.caller import Caller, callers, together
from bench.measure import Measure, interleaved, p50, timed
from bench.peers.openssh import run
from bench.report import Row, table
from bench.site import Site, running_site
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub

_AT_ONCE = 16
# Calls in a round.
_CALLS = 200
_SSH_CALLS = 40
_SSH_CONNECTIONS = 10
_CALLS_AT_ONCE = 480
_SSH_CALLS_AT_ONCE = 160
_TRUE = pb.StartRequest(commandName="true")


def main() -> None:
    """Measure and print the table."""
    with running_site() as site, callers(site.login, 4) as crew:
        rows = [
            _start(site, crew[0]),
            _start_and_wait(site, crew[0]),
            _starts_at_once(site, crew),
            _status(site, crew[0]),
        ]
    print(table("Start and status (connections held open, unless it says new)", rows))


def _start(site: Site, caller: Caller) -> Row:
    ways: dict[str, Measure] = {
        "job-worker: Start": lambda: caller.run(start_p50),
        "ssh HOST true": lambda: p50(lambda: run(site.ssh.held("true")), _SSH_CALLS),
        "ssh HOST true, new connection": lambda: p50(
            lambda: run(site.ssh.cold("true")), _SSH_CONNECTIONS
        ),
    }
    if (peer := site.supervisord) is not None:
        ways["supervisord: startProcess"] = lambda: p50(peer.start, _CALLS)
    return Row("Start p50, 1 caller", "ms", interleaved(ways), scale=1e3, goal=1.5)


def _start_and_wait(site: Site, caller: Caller) -> Row:
    ways: dict[str, Measure] = {
        "job-worker: Start, then Wait": lambda: caller.run(start_and_wait_p50),
        "ssh HOST true": lambda: p50(lambda: run(site.ssh.held("true")), _SSH_CALLS),
    }
    return Row("Start and wait for the end p50, 1 caller", "ms", interleaved(ways), scale=1e3)


def _starts_at_once(site: Site, crew: list[Caller]) -> Row:
    ways: dict[str, Measure] = {
        "job-worker: Start, 4 processes x 4": lambda: _ours_at_once(crew),
        "job-worker: Start, 1 process x 16": lambda: _ours_at_once(crew[:1]),
        "ssh HOST true": lambda: _at_once(
            functools.partial(run, site.ssh.held("true")), _SSH_CALLS_AT_ONCE
        ),
    }
    return Row("Starts a second, 16 callers", "1/s", interleaved(ways), more=True, goal=700)


def _status(site: Site, caller: Caller) -> Row:
    job = caller.run(start_sleeper)
    pid = str(site.server.process.pid)
    ways: dict[str, Measure] = {
        "job-worker: QueryStatus": lambda: caller.run(status_p50, job),
        "ssh HOST kill -0 PID": lambda: p50(
            lambda: run(site.ssh.held("kill", "-0", pid)), _SSH_CALLS
        ),
    }
    if (peer := site.supervisord) is not None:
        ways["supervisord: getProcessInfo"] = lambda: p50(peer.status, _CALLS)
    figures = interleaved(ways)
    caller.run(stop, job)
    return Row("Status p50, 1 caller", "ms", figures, scale=1e3)


def _ours_at_once(crew: list[Caller]) -> float:
    """Starts a second."""
    rate = together(crew, start, _CALLS_AT_ONCE, _AT_ONCE)
    crew[0].run(await_idle)
    return rate


def _at_once(action: Callable[[], object], calls: int) -> float:
    """Times a second that threads of this process do something."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return calls / timed(lambda: list(pool.map(lambda _: action(), range(calls))))


# What follows runs in the callers' processes.


def start(stub: WorkerServiceStub) -> str:
    """Start a job that ends at once; returns its ID."""
    return str(stub.Start(_TRUE).jobID)


def start_p50(stub: WorkerServiceStub) -> float:
    """The seconds a start takes."""
    seconds = p50(lambda: start(stub), _CALLS)
    await_idle(stub)
    return seconds


def start_and_wait_p50(stub: WorkerServiceStub) -> float:
    """The seconds from a start to the end of the job being known."""
    return p50(lambda: stub.Wait(pb.WaitRequest(jobID=start(stub))), _CALLS)


def start_sleeper(stub: WorkerServiceStub) -> str:
    """Start a job that ends only when it is stopped; returns its ID."""
    return str(stub.Start(pb.StartRequest(commandName="sleep", Arguments=["infinity"])).jobID)


def status_p50(stub: WorkerServiceStub, job: str) -> float:
    """The seconds it takes to ask for a job's status."""
    return p50(lambda: stub.QueryStatus(pb.QueryStatusRequest(jobID=job)), _CALLS)


def stop(stub: WorkerServiceStub, job: str) -> None:
    """Stop a job."""
    stub.Stop(pb.StopRequest(jobID=job))


def await_idle(stub: WorkerServiceStub) -> None:
    """Return when no job runs, so that the next measurement finds nothing left to do."""
    while stub.List(pb.ListRequest(running=True, pageSize=1)).jobs:
        pass
