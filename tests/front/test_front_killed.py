"""SIGKILL of the front: no job notices, and clients go on where they were."""

import contextlib
import signal
import sys
import time
from pathlib import Path

import grpc
import psutil

from jobworker.proto import workerservice_pb2 as pb
from tests.support import writers
from tests.support.client import calling, output, start, wait
from tests.support.server import Server

DEADLINE_SECONDS = 60


def front_of(server: Server) -> psutil.Process:
    """The front's process."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == ["jobworker: front"]:
                return process
    raise AssertionError("there is no front")


def test_the_job_is_the_same_and_its_output_complete(fresh_server: Server) -> None:
    with calling(fresh_server, "alice") as worker:
        job_id = start(worker, sys.executable, str(Path(writers.__file__)), "20000000", "2")
        pid = worker.QueryStatus(pb.QueryStatusRequest(jobID=job_id)).pid
        first = next(worker.GetOutput(pb.GetOutputRequest(jobID=job_id, raw=True)))
        front = front_of(fresh_server)
        front.send_signal(signal.SIGKILL)
        front.wait(DEADLINE_SECONDS)
        status = _status_when_back(worker, job_id)
        assert status.pid == pid
        ended = wait(worker, job_id)
        assert (ended.exitCode, ended.pid) == (0, pid)
        rest = output(worker, job_id, offset=len(first.data))
        assert sum(writers.check(first.data + rest).values()) > 0
        assert len(first.data) + len(rest) == ended.outputBytes
        assert front_of(fresh_server).pid != front.pid


def _status_when_back(worker: object, job_id: str) -> pb.QueryStatusResponse:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            return worker.QueryStatus(
                pb.QueryStatusRequest(jobID=job_id), wait_for_ready=True, timeout=DEADLINE_SECONDS
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
