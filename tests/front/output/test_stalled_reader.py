"""A reader that stops reading costs the job nothing and the server no memory, and is cut."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.support.chaos import services
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until

FLOOD = 300_000_000


@pytest.fixture
def impatient_server(tmp_path: Path) -> Iterator[Server]:
    """A server that cuts a reader which takes nothing for five seconds."""
    settings = "connections: {stall_seconds: 5}\n"
    with running_server(tmp_path, USERS, POLICY, settings) as server:
        yield server


def resident(server: Server) -> int:
    """The memory of the front and the supervisor, in bytes."""
    return sum(psutil.Process(p.pid).memory_info().rss for p in services(server))


def test_a_stalled_reader_is_cut(impatient_server: Server) -> None:
    with calling(impatient_server, "alice") as worker:
        job_id = start(worker, "head", "-c", str(FLOOD), "/dev/zero")
        stalled = worker.GetOutput(pb.GetOutputRequest(jobID=job_id, raw=True))
        received = len(next(stalled).data)
        before = resident(impatient_server)
        assert wait(worker, job_id).outputBytes == FLOOD, "the reader held the job up"
        assert resident(impatient_server) - before < FLOOD // 4
        assert len(output(worker, job_id)) == FLOOD, "another reader was held up"
        until(lambda: any("cut a reader" in line for line in impatient_server.log))
        with refused(grpc.StatusCode.ABORTED) as words:
            for message in stalled:
                received += len(message.data)
        assert "nothing was read for 5 s" in words[0]
        assert len(output(worker, job_id, offset=received)) == FLOOD - received
