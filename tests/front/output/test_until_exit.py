"""Output up to the end of the main process, and told by stream."""

import contextlib
import os
import signal
from pathlib import Path

import psutil

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.client import calling, start, wait
from tests.support.server import Server
from tests.support.waiting import until

# It writes 3 MB to each stream, ends, and leaves behind what could write more.
SCRIPT = "cat {0}/out & cat {0}/err >&2; wait $!; sleep 1000 & exit 4"


def until_exit(worker: WorkerServiceStub, job: str, **fields: object) -> dict[int, bytes]:
    """What each stream gets of a request that ends with the main process."""
    request = pb.GetOutputRequest(jobID=job, raw=True, untilExit=True, streams=True, **fields)
    found = {pb.OUTPUT_STREAM_STDOUT: b"", pb.OUTPUT_STREAM_STDERR: b""}
    for message in worker.GetOutput(request):
        found[message.stream] += message.data
    return found


def written(directory: Path) -> dict[int, bytes]:
    """Write the files that SCRIPT reads."""
    data = {"out": os.urandom(3_000_000), "err": os.urandom(3_000_000)}
    for name, content in data.items():
        (directory / name).write_bytes(content)
    return {pb.OUTPUT_STREAM_STDOUT: data["out"], pb.OUTPUT_STREAM_STDERR: data["err"]}


def test_it_ends_with_the_main_process_and_lacks_nothing(server: Server, tmp_path: Path) -> None:
    """The output of a job that left a daemon behind never ended."""
    expected = written(tmp_path)
    with calling(server, "alice") as worker:
        job = start(worker, "sh", "-c", SCRIPT.format(tmp_path))
        assert until_exit(worker, job) == expected
        # Also when all that is long past.
        assert until_exit(worker, job) == expected
        status = worker.Wait(pb.WaitRequest(jobID=job))
        assert (status.exitCode, status.outputComplete) == (4, False)
        worker.Stop(pb.StopRequest(jobID=job))
        assert until_exit(worker, job) == expected


def test_it_does_so_under_a_supervisor_that_came_later(
    fresh_server: Server, tmp_path: Path
) -> None:
    expected = written(tmp_path)
    with calling(fresh_server, "alice") as worker:
        job = start(worker, "sh", "-c", SCRIPT.format(tmp_path))
        worker.Wait(pb.WaitRequest(jobID=job))
        killed = supervisor_of(fresh_server)
        killed.send_signal(signal.SIGKILL)
        until(lambda: supervisor_of(fresh_server) not in (None, killed))
        assert until_exit(worker, job) == expected
        worker.Stop(pb.StopRequest(jobID=job))


def test_a_rate_does_not_keep_it(server: Server, tmp_path: Path) -> None:
    """Of a job that has ended, what is left in its pipes is recorded at once."""
    (tmp_path / "out").write_bytes(b"x" * 60_000)
    with calling(server, "alice") as worker:
        limit = pb.OutputLimit(bytes=2**20, rate=4096)
        script = f"cat {tmp_path}/out; sleep 1000 &"
        job = start(worker, "sh", "-c", script, outputLimit=limit)
        assert until_exit(worker, job)[pb.OUTPUT_STREAM_STDOUT] == b"x" * 60_000
        worker.Stop(pb.StopRequest(jobID=job))


def test_by_stream_there_are_no_more_messages_than_streams_alternate(server: Server) -> None:
    """Times alone do not cut the output into pieces, as `detail` does."""
    script = "for i in 1 2 3; do echo $i; sleep 0.05; done; echo e >&2; sleep 0.05; echo o"
    with calling(server, "alice") as worker:
        job = start(worker, "sh", "-c", script)
        wait(worker, job)
        replies = list(worker.GetOutput(pb.GetOutputRequest(jobID=job, raw=True, streams=True)))
    out, err = pb.OUTPUT_STREAM_STDOUT, pb.OUTPUT_STREAM_STDERR
    assert [(reply.stream, reply.data) for reply in replies] == [
        (out, b"1\n2\n3\n"),
        (err, b"e\n"),
        (out, b"o\n"),
    ]
    assert [reply.offset for reply in replies] == [0, 6, 8]
    assert all(reply.HasField("time") for reply in replies)


def supervisor_of(server: Server) -> psutil.Process | None:
    """The supervisor's process, if there is one at this moment."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == ["jobworker: supervisor"]:
                return process
    return None
