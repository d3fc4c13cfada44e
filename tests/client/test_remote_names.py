"""jobworker.client and jobs by name: what is begun by a name is gone on with by ID."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from jobworker.client.errors import CallFailed
from jobworker.client.follow import read_output, wait_for_end
from jobworker.client.pieces import Chunk, Piece
from jobworker.proto import workerservice_pb2 as pb
from tests.client.test_remote_jobs import client_of, open_input
from tests.support.relay import relay_to
from tests.support.server import PORT, Server


def written(piece: Piece) -> bytes:
    assert isinstance(piece, Chunk)
    return bytes(piece.data)


def test_a_job_by_its_name(server: Server) -> None:
    with client_of(server) as client:
        job = client.start("sleep", "1000", name="by-name")
        assert client.job("by-name").id == job.id
        assert client.status(job.id[-8:]).request.name == "by-name"
        job.stop(grace=0)


def test_jobs_by_what_they_are_and_after_each_other(server: Server) -> None:
    with client_of(server) as client:
        began = datetime.now(UTC) - timedelta(seconds=1)
        first = client.start("sh", "-c", "exit 3", name="chosen.1", labels={"chosen": "yes"})
        second = client.start("true", labels={"chosen": "yes"}, after=[first.id])
        assert second.wait().reason == "dependency_failed"
        label = {"chosen": "yes"}
        assert [job.id for job in client.jobs(labels=label)] == [second.id, first.id]
        assert [job.id for job in client.jobs(labels=label, name="chosen.*")] == [first.id]
        assert len(list(client.jobs(labels=label, failed=True, since=began))) == 2
        assert list(client.jobs(labels=label, until=began)) == []
        assert list(client.jobs(labels=label, states=["pending", "running"])) == []
        with pytest.raises(ValueError, match="'done' is no state"):
            list(client.jobs(states=["done"]))


def test_output_by_a_name_goes_on_for_the_same_job(server: Server) -> None:
    """When the connection is back the name may be another's."""
    script = "echo one; read line; echo $line"
    with relay_to((server.host, PORT)) as relay, client_of(server) as near:
        job = near.start("sh", "-c", script, name="again", request=open_input())
        with client_of(server, address=relay.address) as far:
            pieces = read_output(far.service, pb.GetOutputRequest(jobID="again", raw=True))
            assert written(next(pieces)) == b"one\n"
            relay.sever()
            job.send(b"two\n", end=True)
            job.wait()
            near.start("true", name="again").wait()
            threading.Timer(0.2, relay.restore).start()
            assert [written(piece) for piece in pieces] == [b"two\n"]


def test_a_wait_by_a_name_goes_on_for_the_same_job(server: Server) -> None:
    with client_of(server) as client:
        job = client.start("sh", "-c", "read line; exit 7", name="waits", request=open_input())
        request = pb.WaitRequest(jobID="waits")
        while request.jobID == "waits":
            with pytest.raises(CallFailed):
                client.service.wait(request, 0.5)
        assert request.jobID == job.id
        job.send(b"", end=True)
        job.wait()
        client.start("true", name="waits").wait()
        assert wait_for_end(client.service, request).exitCode == 7


def test_a_stop_by_a_name_says_which_that_was(server: Server) -> None:
    with client_of(server) as client:
        job = client.start("sleep", "1000", name="stopped")
        request = pb.StopRequest(jobID="stopped", graceSeconds=0)
        client.service.stop(request)
        assert request.jobID == job.id
