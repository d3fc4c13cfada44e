"""Ports of jobs, and pauses, where each tenant's jobs have a user of their own."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.guest.site import Tenant, server_of_root, tenant
from tests.support.client import refused
from tests.support.server import PORT, Server

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/python3").exists(), reason="needs a Python that private jobs find"
)
# Sends back what it is sent, at a port that it says after `ready`.
ECHO = """
exec /usr/bin/python3 -SEc '
import socket
server = socket.create_server(("127.0.0.1", 0))
print("ready", server.getsockname()[1], flush=True)
while True:
    taken, _ = server.accept()
    while data := taken.recv(65536):
        taken.sendall(data)
    taken.close()
'
"""
# Connects to a socket as the front does.
CONNECT = """
exec /usr/bin/python3 -SEc '
import socket, sys
try:
    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(sys.argv[1])
except OSError as error:
    print(error.strerror)
else:
    print("connected")
' "$1"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_of_root() as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[Tenant]:
    with tenant(server, "alice") as person:
        yield person


@pytest.fixture
def bob(server: Server) -> Iterator[Tenant]:
    with tenant(server, "bob") as person:
        yield person


def echoing(person: Tenant, **fields: object) -> tuple[str, int]:
    """A job that serves, and its port."""
    job = person.started(ECHO, **fields)
    return job, int(person.output_so_far(job).split()[1])


def echoed(person: Tenant, job: str, port: int, sent: bytes = b"hello") -> bytes:
    """What comes back through a forward of what is sent."""
    requests = [pb.ForwardData(jobID=job, port=port), pb.ForwardData(data=sent)]
    answers = person.worker.Forward(iter([*requests, pb.ForwardData(end=True)]))
    return b"".join(answer.data for answer in answers)


@pytest.mark.parametrize("alone", [False, True], ids=["network", "no network"])
def test_a_forward_reaches_the_job(alice: Tenant, alone: bool) -> None:
    job, port = echoing(alice, noNetwork=alone)
    for sent in (b"hello", b"x" * 300_000):
        assert echoed(alice, job, port, sent) == sent
    alice.stop(job)


def test_a_forward_reaches_nobody_else(alice: Tenant, bob: Tenant) -> None:
    """Nor does a process of another tenant's that has the signs of the job."""
    own, port = echoing(alice)
    _, theirs = echoing(bob)
    for asked in (theirs, PORT):
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
            echoed(alice, own, asked)
        assert words[0] == f"no process of job {own} listens at the TCP port {asked}"
    with refused(grpc.StatusCode.NOT_FOUND):
        echoed(bob, own, port)
    script = f"export JOBWORKER_JOB_ID={own}; {ECHO}"
    disguised = bob.started(script)
    asked = int(bob.output_so_far(disguised).split()[1])
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        echoed(alice, own, asked)
    for person, job in ((alice, own), (bob, disguised)):
        person.stop(job)


def test_what_is_made_for_the_front_is_the_fronts_to_come_for(
    server: Server, alice: Tenant
) -> None:
    job, port = echoing(alice)
    assert echoed(alice, job, port) == b"hello"
    place = server.directory / "state" / "handover"
    assert place.is_socket()
    assert alice.run(CONNECT, str(place)) == "Permission denied\n"
    alice.stop(job)


def test_a_pause_is_the_cgroups(alice: Tenant) -> None:
    job = alice.started("(while :; do :; done) & echo ready; while :; do :; done")
    pid = alice.status(job).pid
    alice.worker.Pause(pb.PauseRequest(jobID=job))
    assert alice.status(job).state == pb.JOB_STATE_PAUSED
    tree = [psutil.Process(pid), *psutil.Process(pid).children()]
    before = [one.cpu_times()[:2] for one in tree]
    assert alice.run("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; echo done") == "done\n"
    assert [one.cpu_times()[:2] for one in tree] == before
    # It cannot thaw itself, nor be told to by a process of its user.
    refusal = alice.run(
        "for f in $(find /sys/fs/cgroup -name cgroup.freeze); do echo 0 > $f; done 2>&1"
    )
    assert "Permission denied" in refusal or "Read-only" in refusal or "cannot create" in refusal
    assert alice.status(job).state == pb.JOB_STATE_PAUSED
    alice.worker.Resume(pb.ResumeRequest(jobID=job))
    alice.stop(job)
