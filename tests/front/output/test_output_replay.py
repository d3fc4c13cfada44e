"""What a running job writes, as a client sees it: each line, its stream, its time; kills too."""

import sys
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import pytest

from jobworker.grpc_api.service.output import timestamp
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.chaos import kill
from tests.support.client import calling, output, start, wait
from tests.support.server import Server

LINES = 300
PRECISION_NS = 10_000_000
# Writes numbered lines, each in one piece with its stream and the time, now on
# the one stream, now on the other, at moments from a seeded generator.
WRITER = """
import os, random, sys, time
chance = random.Random(int(sys.argv[1]))
for number in range(int(sys.argv[2])):
    stream = chance.choice((1, 2))
    os.write(stream, b"%d %d %d\\n" % (stream, number, time.time_ns()))
    if chance.random() < 0.7:
        time.sleep(chance.random() * 0.02)
"""


class Line(NamedTuple):
    """A line as it was written, and what was told of it."""

    stream: int
    number: int
    written_ns: int
    told_stream: int
    told_ns: int


def begin(worker: WorkerServiceStub, seed: int) -> str:
    """Start the writer."""
    return start(worker, sys.executable, "-c", WRITER, str(seed), str(LINES))


def lines_of(messages: Iterator[pb.GetOutputResponse]) -> Iterator[Line]:
    """The lines, as they come; no message is cut within one."""
    at = 0
    for message in messages:
        assert message.offset == at, "something is missing, or came twice"
        at += len(message.data)
        assert message.data.endswith(b"\n")
        for line in message.data.splitlines():
            stream, number, written = map(int, line.split())
            yield Line(stream, number, written, message.stream, message.time.ToNanoseconds())


def check(lines: list[Line]) -> None:
    """Every line is there once, in its stream's order, and no time is before it was written."""
    assert sorted(line.number for line in lines) == list(range(LINES))
    for stream in (1, 2):
        numbers = [line.number for line in lines if line.stream == stream]
        assert numbers == sorted(numbers)
    assert all(line.stream == line.told_stream for line in lines)
    assert all(line.told_ns >= line.written_ns - PRECISION_NS for line in lines)


def test_streams_and_times_are_what_the_job_says(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = begin(worker, 1)
        request = pb.GetOutputRequest(jobID=job_id, raw=True, detail=True)
        lines = list(lines_of(worker.GetOutput(request)))
        check(lines)
        # On a busy machine the supervisor waits for a processor as the job does.
        late = sorted(line.told_ns - line.written_ns for line in lines)
        assert late[len(late) * 3 // 4] <= PRECISION_NS
        # Once more, from the record.
        assert list(lines_of(worker.GetOutput(request))) == lines


def test_any_part_of_it_again(server: Server) -> None:
    """From any offset, of one stream, from any time and up to it."""
    with calling(server, "alice") as worker:
        job_id = begin(worker, 2)
        wait(worker, job_id)
        whole = output(worker, job_id)
        request = pb.GetOutputRequest(jobID=job_id, raw=True, detail=True)
        lines = list(lines_of(worker.GetOutput(request)))
        for stream in (1, 2):
            own = b"".join(b"%d %d %d\n" % line[:3] for line in lines if line.stream == stream)
            assert output(worker, job_id, stream=stream) == own
            for count in (0, 1, 7, LINES):
                tail = b"".join(own.splitlines(keepends=True)[-count:] if count else ())
                assert output(worker, job_id, stream=stream, tailLines=count) == tail
                assert output(worker, job_id, stream=stream, tailBytes=len(tail)) == tail
        for offset in range(0, len(whole), 997):
            assert output(worker, job_id, offset=offset) == whole[offset:]
        for line in lines[:: LINES // 10]:
            moment = timestamp(line.told_ns)
            before, after = (
                output(worker, job_id, until=moment),
                output(worker, job_id, since=moment),
            )
            assert before + after == whole
            split = sum(other.told_ns < line.told_ns for other in lines)
            assert after.splitlines()[0] == b"%d %d %d" % lines[split][:3]


@pytest.mark.parametrize("victim", ["supervisor", "front"])
def test_nothing_is_lost_when_the_service_is_killed(fresh_server: Server, victim: str) -> None:
    """Twice while the job writes: a reader goes on from its offset and misses nothing."""
    with calling(fresh_server, "alice") as worker:
        job_id = begin(worker, 3)
        lines: list[Line] = []
        kills = [LINES // 4, LINES // 2]
        for line in lines_of(persistent(worker, job_id)):
            lines.append(line)
            if kills and len(lines) >= kills[0]:
                kill(fresh_server, victim)
                del kills[0]
        check(lines)
        assert not kills
        request = pb.GetOutputRequest(jobID=job_id, raw=True, detail=True)
        assert list(lines_of(worker.GetOutput(request))) == lines
        assert wait(worker, job_id).exitCode == 0


def persistent(worker: WorkerServiceStub, job_id: str) -> Iterator[pb.GetOutputResponse]:
    """The output to its end, going on whenever it is cut short."""
    offset = 0
    while True:
        request = pb.GetOutputRequest(jobID=job_id, raw=True, detail=True, offset=offset)
        try:
            for message in worker.GetOutput(request, wait_for_ready=True):
                offset = message.offset + len(message.data)
                yield message
            return
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
