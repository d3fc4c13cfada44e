"""Output over the wire: exact, from any point, to any number of followers, ending by itself."""

import hashlib
import sys
import threading
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support import writers
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import Server

WRITERS = str(Path(writers.__file__))
TOTAL = 200_000_000


class Follower(threading.Thread):
    """Follows a job from its first byte to its end, keeping what it was given."""

    def __init__(self, worker: WorkerServiceStub, job_id: str) -> None:
        super().__init__()
        self._worker = worker
        self._job_id = job_id
        self.received = bytearray()
        self.some = threading.Event()

    def run(self) -> None:
        for message in self._worker.GetOutput(pb.GetOutputRequest(jobID=self._job_id, raw=True)):
            assert message.offset == len(self.received)
            self.received += message.data
            if len(self.received) > TOTAL // 4:
                self.some.set()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.received).hexdigest()


@pytest.mark.timeout(300)
def test_three_followers_get_the_same_200_mb(server: Server, tmp_path: Path) -> None:
    """One from before the job writes, one midway, one after the end."""
    gate = tmp_path / "gate"
    script = f'while ! [ -e {gate} ]; do sleep 0.01; done; exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, WRITERS, str(TOTAL), "4"]
    with calling(server, "alice") as worker:
        job_id = start(worker, *command)
        before = Follower(worker, job_id)
        before.start()
        gate.touch()
        assert before.some.wait(120)
        midway = Follower(worker, job_id)
        midway.start()
        before.join(240)
        ended = wait(worker, job_id)
        after = Follower(worker, job_id)
        after.start()
        for follower in (midway, after):
            follower.join(120)
            assert not follower.is_alive()
    assert ended.exitCode == 0
    assert len(before.received) == ended.outputBytes >= TOTAL
    assert before.digest == midway.digest == after.digest
    assert len(writers.check(bytes(before.received))) == 4


def test_text_is_valid_utf8_with_no_code_point_cut(server: Server) -> None:
    with calling(server, "alice") as worker:
        pieces = "printf '\\342'; sleep 0.1; printf '\\202'; sleep 0.1; printf '\\254\\377'"
        job_id = start(worker, "sh", "-c", pieces)
        messages = list(worker.GetOutput(pb.GetOutputRequest(jobID=job_id)))
        assert "".join(message.output for message in messages) == "€\ufffd"
        assert not any(message.data for message in messages)


def test_begin_anywhere(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", "seq 1 1000; echo oops >&2; seq 1001 1003")
        wait(worker, job_id)
        everything = output(worker, job_id)
        assert output(worker, job_id, offset=17) == everything[17:]
        assert output(worker, job_id, tailBytes=5) == everything[-5:]
        assert output(worker, job_id, tailBytes=10**9) == everything
        # Between two pipes there is no order but that of reading: ask for one stream.
        stdout = pb.OUTPUT_STREAM_STDOUT
        assert output(worker, job_id, tailLines=2, stream=stdout) == b"1002\n1003\n"
        assert output(worker, job_id, tailLines=0) == b""
        assert output(worker, job_id, stream=pb.OUTPUT_STREAM_STDERR) == b"oops\n"
        assert output(worker, job_id, offset=len(everything)) == b""
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
            output(worker, job_id, offset=1, tailLines=1)
        assert "offset and tailLines" in words[0]


def test_times_and_streams(server: Server, tmp_path: Path) -> None:
    """Since and until split where the times of the messages say."""
    gates = [tmp_path / "first", tmp_path / "second"]
    waits = [f"until [ -e {gate} ]; do sleep 0.02; done" for gate in gates]
    script = f"echo one; {waits[0]}; echo two >&2; {waits[1]}; echo three"
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", script)
        follower = worker.GetOutput(pb.GetOutputRequest(jobID=job_id, raw=True, detail=True))
        one = next(follower)
        gates[0].touch()
        two = next(follower)
        gates[1].touch()
        (three,) = follower
        assert (one.data, one.stream) == (b"one\n", pb.OUTPUT_STREAM_STDOUT)
        assert (two.data, two.stream) == (b"two\n", pb.OUTPUT_STREAM_STDERR)
        times = [message.time.ToNanoseconds() for message in (one, two, three)]
        assert times == sorted(set(times))
        assert output(worker, job_id, since=two.time) == b"two\nthree\n"
        assert output(worker, job_id, until=two.time) == b"one\n"
        assert output(worker, job_id, since=two.time, until=three.time) == b"two\n"


def test_without_following_it_ends_at_once(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", "echo here; exec sleep 1000")
        follower = worker.GetOutput(pb.GetOutputRequest(jobID=job_id, raw=True))
        assert next(follower).data == b"here\n"
        assert output(worker, job_id, noFollow=True) == b"here\n"
        worker.Stop(pb.StopRequest(jobID=job_id))
        assert list(follower) == []


def test_the_end_of_the_main_process_is_not_the_end_of_output(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", "(sleep 0.5; echo late) & echo early; exit 7")
        ended = worker.Wait(pb.WaitRequest(jobID=job_id))
        assert (ended.JobStatus, ended.exitCode) == (pb.EXITED, 7)
        assert output(worker, job_id) == b"early\nlate\n"


def test_the_end_of_output_is_not_the_end_of_the_job(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", "echo last; exec sleep 1000 >&- 2>&-")
        assert output(worker, job_id) == b"last\n"
        status = worker.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        assert (status.JobStatus, status.outputComplete) == (pb.RUNNING, True)
        worker.Stop(pb.StopRequest(jobID=job_id))
