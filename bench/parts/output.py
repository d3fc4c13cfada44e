"""How fast one follower gets a job's output.

Each way moves the same file, which is in memory, from `cat` to a reader that
counts it or throws it away. ssh decrypts for /dev/null, the cheapest it can.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from bench.caller import Caller, Login, callers
from bench.measure import Measure, interleaved, timed
from bench.peers.openssh import run
from bench.report import Row, table
from bench.site import USER, Site, running_site
from jobworker.client.endpoint import Endpoint
from jobworker.client.output_connection import OutputConnection
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.server import JOBWORKER

_BYTES = 512 * 1024 * 1024
_MEGABYTE = 1e-6
# One transfer takes half a second, and any other program on the machine shows in it.
_ROUNDS = 11

# Reads the whole output of a job.
Receive = Callable[[WorkerServiceStub, str], None]


def main() -> None:
    """Measure and print the table."""
    with running_site() as site, callers(site.login, 1) as (caller,):
        file = str(site.directory / "output")
        _fill(Path(file))
        replaying = functools.partial(caller.run, replay, caller.run(whole_job, file))
        following = functools.partial(caller.run, live, file)
        rows = [
            _follower(site, file, "after its job has ended", replaying, 1.5),
            _follower(site, file, "while its job writes", following, 1.0),
            _command(site, caller, file),
        ]
    print(table(f"Output: one follower of {_BYTES // 2**20} MiB", rows))


def _follower(
    site: Site,
    file: str,
    when: str,
    rate: Callable[[Receive], float],
    times_ssh: float,
) -> Row:
    receive_alone = functools.partial(receive_without_grpc, site.login)
    ways: dict[str, Measure] = {
        "job-worker: output connection": lambda: rate(receive_alone),
        "job-worker: GetOutput, Python's gRPC": lambda: rate(receive),
        "ssh HOST cat FILE": lambda: _BYTES / timed(lambda: run(site.ssh.held("cat", file))),
    }
    figures = interleaved(ways, _ROUNDS)
    goal = round(times_ssh * figures["ssh HOST cat FILE"].median * _MEGABYTE)
    return Row(f"One follower, {when}", "MB/s", figures, _MEGABYTE, more=True, goal=goal)


def _command(site: Site, caller: Caller, file: str) -> Row:
    ways: dict[str, Measure] = {
        "jobworker run cat FILE": lambda: _ours(site, caller, file),
        "ssh HOST cat FILE, new connection": lambda: (
            _BYTES / timed(lambda: run(site.ssh.cold("cat", file)))
        ),
    }
    figures = interleaved(ways)
    return Row("Whole command > /dev/null", "MB/s", figures, _MEGABYTE, more=True)


def _ours(site: Site, caller: Caller, file: str) -> float:
    command = [str(JOBWORKER), "run", "cat", file]
    seconds = timed(functools.partial(run, command, site.server.environment(USER)))
    caller.run(remove_all)
    return _BYTES / seconds


def _fill(file: Path) -> None:
    block = os.urandom(1024 * 1024)
    with file.open("wb") as out:
        for _ in range(_BYTES // len(block)):
            out.write(block)


# What follows runs in the caller's process.


def live(stub: WorkerServiceStub, file: str, take: Receive) -> float:
    """Bytes a second from the start of `cat` to the end of its output."""
    job = ""

    def follow() -> None:
        nonlocal job
        job = _start(stub, file)
        take(stub, job)

    rate = _BYTES / timed(follow)
    stub.Remove(pb.RemoveRequest(jobID=job))
    return rate


def whole_job(stub: WorkerServiceStub, file: str) -> str:
    """The ID of a job that has written the file and ended."""
    job = _start(stub, file)
    stub.Wait(pb.WaitRequest(jobID=job, output=True))
    return job


def replay(stub: WorkerServiceStub, job: str, take: Receive) -> float:
    """Bytes a second of a job that has ended."""
    return _BYTES / timed(lambda: take(stub, job))


def remove_all(stub: WorkerServiceStub) -> None:
    """Remove every job that has ended, so that the disk does not fill."""
    stub.Prune(pb.PruneRequest())


def _start(stub: WorkerServiceStub, file: str) -> str:
    return str(stub.Start(pb.StartRequest(commandName="cat", Arguments=[file])).jobID)


def receive(stub: WorkerServiceStub, job: str) -> None:
    """Read a whole output; raises RuntimeError unless all of it comes."""
    request = pb.GetOutputRequest(jobID=job, raw=True)
    _check(sum(len(message.data) for message in stub.GetOutput(request)))


def receive_without_grpc(login: Login, stub: WorkerServiceStub, job: str) -> None:
    """The same as `jobworker logs` does it; the connection's beginning is part of it."""
    del stub
    settings = Endpoint(login.address, login.ca, login.certificate, login.key)
    with OutputConnection(settings) as connection:
        pieces = connection.output(pb.GetOutputRequest(jobID=job))
        _check(sum(piece.end - piece.offset for piece in pieces))


def _check(received: int) -> None:
    if received != _BYTES:
        raise RuntimeError(f"{received} bytes came in place of {_BYTES}")
