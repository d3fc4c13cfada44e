"""Limits of real jobs' output: what is kept is exact, what is not is a gap, and it is told why."""

import sys
from collections.abc import Sequence
from functools import partial

import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.chaos import kill
from tests.support.client import calling, output, start, wait
from tests.support.server import Server
from tests.support.waiting import until

KIB = 1024
LIMIT = 64 * KIB
# A rotation drops an eighth at a time, before the next eighth begins.
KEPT_AT_LEAST = LIMIT - 2 * LIMIT // 8
WRITER = """
import os, sys
data = b"".join(b"%015d\\n" % line for line in range(int(sys.argv[1]) // 16))
while data:
    data = data[os.write(int(sys.argv[2]), data):]
"""
ROTATE = pb.OUTPUT_OVERFLOW_ROTATE
STOP_RECORDING = pb.OUTPUT_OVERFLOW_STOP_RECORDING
STOP_JOB = pb.OUTPUT_OVERFLOW_STOP_JOB


def written(size: int) -> bytes:
    """What the writer writes."""
    return b"".join(b"%015d\n" % line for line in range(size // 16))


def write(worker: WorkerServiceStub, size: int, limit: pb.OutputLimit, stream: int = 1) -> str:
    """Start a job that writes so many bytes at once."""
    command = [sys.executable, "-c", WRITER, str(size), str(stream)]
    return start(worker, *command, outputLimit=limit)


def has_written(worker: WorkerServiceStub, job_id: str, size: int) -> bool:
    """Whether the job has written so much."""
    request = pb.QueryStatusRequest(jobID=job_id)
    return bool(worker.QueryStatus(request).outputBytes >= size)


def messages(worker: WorkerServiceStub, job_id: str) -> list[pb.GetOutputResponse]:
    """The whole output, one after the other without a hole between."""
    found = list(worker.GetOutput(pb.GetOutputRequest(jobID=job_id, raw=True, detail=True)))
    at = 0
    for message in found:
        assert message.offset == at
        assert bool(message.data) != bool(message.gapBytes)
        at += len(message.data) + message.gapBytes
    return found


def gaps(found: Sequence[pb.GetOutputResponse]) -> list[tuple[int, int]]:
    """Where there are gaps, and how long they are."""
    return [(message.offset, message.gapBytes) for message in found if message.gapBytes]


def test_rotation_keeps_the_newest(server: Server) -> None:
    size = 1024 * KIB
    with calling(server, "alice") as worker:
        job_id = write(worker, size, pb.OutputLimit(bytes=LIMIT, overflow=ROTATE))
        ended = wait(worker, job_id)
        assert (ended.endReason, ended.exitCode) == (pb.END_REASON_EXITED, 0)
        assert ended.outputBytes == size
        found = messages(worker, job_id)
        kept = b"".join(message.data for message in found)
        assert KEPT_AT_LEAST <= len(kept) <= LIMIT
        assert kept == written(size)[-len(kept) :]
        assert gaps(found) == [(0, size - len(kept))]
        assert output(worker, job_id, tailLines=2) == written(size)[-32:]
        assert output(worker, job_id, offset=size - 100) == written(size)[-100:]


def test_rotation_goes_on_when_the_supervisor_was_killed(fresh_server: Server) -> None:
    size, rate = 12 * 1024 * KIB, 4 * 1024 * KIB
    with calling(fresh_server, "alice") as worker:
        limit = pb.OutputLimit(bytes=LIMIT, overflow=ROTATE, rate=rate)
        job_id = write(worker, size, limit)
        for part in (size // 4, size // 2):
            until(partial(has_written, worker, job_id, part))
            kill(fresh_server, "supervisor")
        ended = wait(worker, job_id)
        assert (ended.exitCode, ended.outputBytes) == (0, size)
        found = messages(worker, job_id)
        kept = b"".join(message.data for message in found)
        assert KEPT_AT_LEAST <= len(kept) <= LIMIT
        assert kept == written(size)[-len(kept) :]
        assert gaps(found) == [(0, size - len(kept))]


@pytest.mark.parametrize("stream", [1, 2])
def test_recording_stops_and_the_job_goes_on(server: Server, stream: int) -> None:
    size = 4096 * KIB
    with calling(server, "alice") as worker:
        limit = pb.OutputLimit(bytes=LIMIT, overflow=STOP_RECORDING)
        job_id = write(worker, size, limit, stream)
        ended = wait(worker, job_id)
        assert (ended.endReason, ended.exitCode) == (pb.END_REASON_EXITED, 0)
        assert ended.outputBytes == size
        found = messages(worker, job_id)
        assert b"".join(message.data for message in found) == written(size)[:LIMIT]
        assert {message.stream for message in found if message.data} == {stream}
        assert gaps(found) == [(LIMIT, size - LIMIT)]


def test_a_job_that_writes_too_much_is_stopped(server: Server) -> None:
    with calling(server, "alice") as worker:
        limit = pb.OutputLimit(bytes=LIMIT, overflow=STOP_JOB)
        job_id = start(worker, "yes", "0123456789abcde", outputLimit=limit)
        ended = wait(worker, job_id)
        assert ended.endReason == pb.END_REASON_OUTPUT_LIMIT
        assert ended.exitCode == 128 + 15
        found = messages(worker, job_id)
        kept = b"".join(message.data for message in found)
        assert kept == b"0123456789abcde\n" * (LIMIT // 16)
        assert gaps(found) == [(LIMIT, ended.outputBytes - LIMIT)]


def test_a_job_that_writes_just_so_much_is_not_stopped(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = write(worker, LIMIT, pb.OutputLimit(bytes=LIMIT, overflow=STOP_JOB))
        assert wait(worker, job_id).endReason == pb.END_REASON_EXITED
        found = messages(worker, job_id)
        assert b"".join(message.data for message in found) == written(LIMIT)
        assert gaps(found) == []


def test_a_job_that_writes_faster_than_its_rate_waits(server: Server) -> None:
    """Until all but a pipe's capacity has been taken; then it ends, and nothing is lost."""
    size, rate, pipe = 3072 * KIB, 1024 * KIB, 1024 * KIB
    with calling(server, "alice") as worker:
        job_id = write(worker, size, pb.OutputLimit(rate=rate))
        assert output(worker, job_id) == written(size)
        ended = wait(worker, job_id)
        assert ended.exitCode == 0
        lived = ended.endedAt.ToNanoseconds() - ended.createdAt.ToNanoseconds()
        # A quarter of a second's worth may be written at once.
        assert lived / 1e9 >= (size - pipe) / rate - 0.25
        found = messages(worker, job_id)
        assert gaps(found) == []


def test_what_a_job_leaves_behind_is_read_at_once_whatever_its_rate(server: Server) -> None:
    """At its rate it would take four minutes."""
    size = 1000 * KIB
    with calling(server, "alice") as worker:
        job_id = write(worker, size, pb.OutputLimit(rate=4 * KIB))
        assert output(worker, job_id) == written(size)
