"""A server as root runs it for others, and jobs on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.guest.boot import USERS
from tests.support.client import calling, output, start, wait
from tests.support.server import Server, configure, leaving_no_process, own_address, serving
from tests.support.waiting import until

# Certificate's CN and OU; eve has no Unix user, ruth's is root.
PEOPLE = (("alice", "team-a"), ("bob", "team-b"), ("eve", "team-e"), ("ruth", "team-r"))
POLICY = 'rules:\n  - {allow: "*", to: "cn:*", jobs: "{ou}/{cn}"}\n'
SETTINGS = """\
front_user: jobfront
jobs:
  users:
    names: {bob: bob, ruth: root}
    tenants: {team-a: alice}
"""
# Attaches to each process (ptrace(2), PTRACE_ATTACH); perl(1) is part of every Debian system.
TRACE = r"""
exec perl -e 'for (@ARGV) { print syscall(101, 16, $_ + 0, 0, 0) == 0 ? "traced" : $!, "\n" }' "$@"
"""


@contextmanager
def server_of_root(jobs: str = "", settings: str = SETTINGS) -> Iterator[Server]:
    """Run a server with the users mapped, until the block ends; `jobs` are more lines of `jobs`."""
    directory = Path(mkdtemp(dir="/srv", prefix="site-"))
    # For the front to pass through.
    directory.chmod(0o755)
    host = own_address()
    authority = configure(directory, host, POLICY, settings + jobs)
    for file in directory.rglob("*"):
        if file.is_dir():
            file.chmod(0o755)
        elif file.stat().st_mode & 0o077 == 0:
            file.chmod(0o640)
            os.chown(file, 0, USERS["jobfront"])
    issued = {name: authority.client(name, [tenant]) for name, tenant in PEOPLE}
    with leaving_no_process(), serving(directory / "server.yaml") as (process, log):
        yield Server(directory, host, authority, issued, process, log)


class Tenant:
    """Someone who calls the server."""

    def __init__(self, worker: WorkerServiceStub) -> None:
        self.worker = worker

    def start(self, script: str, *arguments: str, **fields: object) -> str:
        """Start a shell script as a job; its ID."""
        return start(self.worker, "sh", "-c", script, "sh", *arguments, **fields)

    def status(self, job_id: str) -> pb.QueryStatusResponse:
        """What the server says of a job."""
        return self.worker.QueryStatus(pb.QueryStatusRequest(jobID=job_id))

    def wait(self, job_id: str) -> pb.QueryStatusResponse:
        """The job once it has ended with its output complete."""
        return wait(self.worker, job_id)

    def stop(self, job_id: str) -> None:
        """End a job."""
        self.worker.Stop(pb.StopRequest(jobID=job_id, graceSeconds=0))

    def output(self, job_id: str) -> str:
        """All that a job writes."""
        return output(self.worker, job_id).decode()

    def output_so_far(self, job_id: str) -> str:
        """What a job has written."""
        return output(self.worker, job_id, noFollow=True).decode()

    def wait_for_main(self, job_id: str) -> pb.QueryStatusResponse:
        """The job once its main process has ended."""
        return self.worker.Wait(pb.WaitRequest(jobID=job_id))

    def run(self, script: str, *arguments: str, **fields: object) -> str:
        """Run a shell script to its end; what it wrote."""
        job_id = self.start(script, *arguments, **fields)
        self.wait(job_id)
        return self.output(job_id)

    def started(self, script: str, *arguments: str, **fields: object) -> str:
        """Start a shell script that writes `ready` as its first line, and wait for that."""
        job_id = self.start(script, *arguments, **fields)
        until(lambda: "ready" in self.output_so_far(job_id))
        return job_id


@contextmanager
def tenant(server: Server, name: str) -> Iterator[Tenant]:
    """Call the server as someone, until the block ends."""
    with calling(server, name) as worker:
        yield Tenant(worker)
