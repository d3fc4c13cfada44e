"""A program within a job that runs: in its place, within its bounds, and for its owner alone."""

import shutil
from collections.abc import Iterator

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.chaos import kill
from tests.support.client import calling, output, refused, start, wait
from tests.support.library import own_cgroup
from tests.support.server import Server
from tests.support.waiting import until

ISOLATIONS = [
    pb.ISOLATION_NONE,
    pytest.param(
        pb.ISOLATION_PRIVATE,
        marks=pytest.mark.skipif(
            shutil.which("bwrap") is None, reason="needs bubblewrap: apt install bubblewrap"
        ),
    ),
]


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker


def execute(worker: WorkerServiceStub, job: str, script: str, **fields: object) -> str:
    """Start a shell script within a job; its ID."""
    asked = pb.StartRequest(commandName="sh", Arguments=["-c", script], **fields)
    return str(worker.Exec(pb.ExecRequest(jobID=job, start=asked)).jobID)


def said(worker: WorkerServiceStub, job: str, script: str, **fields: object) -> str:
    """What a script within a job writes."""
    inner = execute(worker, job, script, **fields)
    wait(worker, inner)
    return output(worker, inner).decode()


def status(worker: WorkerServiceStub, job: str) -> pb.QueryStatusResponse:
    return worker.QueryStatus(pb.QueryStatusRequest(jobID=job))


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_it_is_where_the_job_is(alice: WorkerServiceStub, isolation: int) -> None:
    job = start(
        alice, "sleep", "1000", isolation=isolation, environment={"A": "1", "B": "1"},
        workingDirectory="/usr", limits=pb.Limits(openFiles=50),
    )  # fmt: skip
    assert said(alice, job, "pwd; echo $A$B; ulimit -n", environment={"B": "2"}) == "/usr\n12\n50\n"
    assert said(alice, job, "pwd", workingDirectory="lib") == "/usr/lib\n"
    inner = execute(alice, job, "echo out; echo err >&2; exit 3")
    ended = wait(alice, inner)
    assert (ended.exitCode, ended.inside, ended.owner) == (3, job, "alice")
    assert (ended.isolation, ended.user) == (isolation, status(alice, job).user)
    assert output(alice, inner, stream=pb.OUTPUT_STREAM_STDERR) == b"err\n"
    assert wait(alice, execute(alice, job, "kill -9 $$")).signal == 9
    assert status(alice, job).state == pb.JOB_STATE_RUNNING
    alice.Stop(pb.StopRequest(jobID=job))


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_in_a_sandbox_it_has_what_is_there_and_nothing_else(alice: WorkerServiceStub) -> None:
    script = "echo mine > /tmp/note; sleep 1000"
    job = start(alice, "sh", "-c", script, isolation=pb.ISOLATION_PRIVATE, noNetwork=True)
    seen = said(
        alice,
        job,
        "until [ -s /tmp/note ]; do sleep 0.01; done; cat /tmp/note; grep -c : /proc/net/dev;"
        "cat /proc/1/comm; grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs' /proc/self/status;"
        "ls /proc/self/fd;"
        "touch /usr/here 2>&1",
    )
    assert seen.splitlines()[:7] == [
        "mine",
        "1",
        "bwrap",
        *(f"Cap{name}:\t0000000000000000" for name in ("Prm", "Eff", "Bnd")),
        "NoNewPrivs:\t1",
    ]
    # ls has a descriptor of the directory.
    assert seen.splitlines()[7:11] == ["0", "1", "2", "3"]
    assert "Read-only file system" in seen
    # The two see each other, and both end with the job.
    inner = execute(alice, job, "sleep 1000")
    assert "sleep 1000" in said(alice, job, "ps ax")
    alice.Stop(pb.StopRequest(jobID=job))
    assert wait(alice, inner).endReason == pb.END_REASON_STOPPED


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("number", [15, 10])
def test_a_signal_reaches_the_program(
    alice: WorkerServiceStub, isolation: int, number: int
) -> None:
    job = start(alice, "sleep", "1000", isolation=isolation)
    script = f"trap 'echo caught; exit 9' {number}; echo ready; while :; do sleep 0.01; done"
    inner = execute(alice, job, script)
    until(lambda: b"ready" in output(alice, inner, noFollow=True))
    alice.Signal(pb.SignalRequest(jobID=inner, signal=number))
    assert wait(alice, inner).exitCode == 9
    assert status(alice, job).state == pb.JOB_STATE_RUNNING
    alice.Stop(pb.StopRequest(jobID=job))


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_stop_of_the_job_ends_it_and_its_own_does_not(
    alice: WorkerServiceStub, isolation: int
) -> None:
    job = start(alice, "sleep", "1000", isolation=isolation)
    first, second = (execute(alice, job, "sleep 1000 & sleep 1000") for _ in range(2))
    alice.Stop(pb.StopRequest(jobID=first))
    assert wait(alice, first).endReason == pb.END_REASON_STOPPED
    assert [status(alice, one).state for one in (job, second)] == [pb.JOB_STATE_RUNNING] * 2
    alice.Stop(pb.StopRequest(jobID=job))
    ended = wait(alice, second)
    assert (ended.endReason, ended.outputComplete) == (pb.END_REASON_STOPPED, True)


@pytest.mark.skipif(own_cgroup() is None, reason="needs cgroup v2")
def test_its_cgroup_is_below_the_jobs(alice: WorkerServiceStub) -> None:
    job = start(alice, "sleep", "1000")
    inner = execute(alice, job, "grep ^0: /proc/self/cgroup; sleep 1000")
    until(lambda: b"\n" in output(alice, inner, noFollow=True))
    assert output(alice, inner, noFollow=True).decode().endswith(f"/{job}/{inner}\n")
    alice.Stop(pb.StopRequest(jobID=job))


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_whoever_is_killed_it_goes_on(fresh_server: Server, isolation: int) -> None:
    with calling(fresh_server, "alice") as alice:
        job = start(alice, "sleep", "1000", isolation=isolation)
        script = "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.01; done"
        inner = execute(alice, job, script)
        until(lambda: b"ready" in output(alice, inner, noFollow=True))
        for process in ("supervisor", "front"):
            kill(fresh_server, process)
    with calling(fresh_server, "alice") as alice:
        signal = pb.SignalRequest(jobID=inner, signal=10)
        alice.Signal(signal, wait_for_ready=True)
        assert wait(alice, inner).exitCode == 9
        assert output(alice, inner) == b"ready\ncaught\n"
        assert said(alice, job, "echo again") == "again\n"
        alice.Stop(pb.StopRequest(jobID=job))


def test_what_is_the_jobs_cannot_be_asked_for(alice: WorkerServiceStub) -> None:
    job = start(alice, "sleep", "1000")
    for fields, name in (
        ({"limits": pb.Limits(memoryBytes=2**30)}, "limits.memoryBytes"),
        ({"limits": pb.Limits(cpus=1)}, "limits.cpus"),
        ({"isolation": pb.ISOLATION_NONE}, "isolation"),
        ({"noNetwork": True}, "noNetwork"),
        ({"tenant": "team-b"}, "start.tenant"),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
            execute(alice, job, "true", **fields)
        assert f"({name})" in words[0]
    asked = pb.ExecRequest(jobID=job)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        alice.Exec(asked)
    assert "no command" in words[0]
    ended = wait(alice, execute(alice, job, "sleep 1000", timeoutSeconds=0.1))
    assert ended.endReason == pb.END_REASON_TIMED_OUT
    alice.Pause(pb.PauseRequest(jobID=job))
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        execute(alice, job, "true")
    assert "is paused: nothing starts within it" in words[0]
    alice.Stop(pb.StopRequest(jobID=job))
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        execute(alice, job, "true")
    assert "has ended: nothing starts within it" in words[0]


def test_a_start_that_is_repeated_starts_once(alice: WorkerServiceStub) -> None:
    job, other = (start(alice, "sleep", "1000") for _ in range(2))
    first = execute(alice, job, "exit 4", requestID="once")
    assert execute(alice, job, "exit 4", requestID="once") == first
    with refused(grpc.StatusCode.ALREADY_EXISTS) as words:
        execute(alice, other, "exit 4", requestID="once")
    assert "with another inside" not in words[0]
    assert "job that it runs in" in words[0]
    for one in (job, other):
        alice.Stop(pb.StopRequest(jobID=one))


def test_only_within_ones_own_and_only_what_one_may_start(server: Server) -> None:
    """Bob may start nothing of /bin/false; ann reads all, and attaches to nothing of others'."""
    with (
        calling(server, "alice") as alice,
        calling(server, "bob") as bob,
        calling(server, "ann") as ann,
    ):
        job, bobs = start(alice, "sleep", "1000"), start(bob, "sleep", "1000")
        with refused(grpc.StatusCode.NOT_FOUND):
            execute(bob, job, "true")
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            execute(ann, job, "true")
        assert "attach refused to cn=ann" in words[0]
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            bob.Exec(pb.ExecRequest(jobID=bobs, start=pb.StartRequest(commandName="/bin/false")))
        assert "start refused to cn=bob" in words[0]
        for worker, one in ((alice, job), (bob, bobs)):
            worker.Stop(pb.StopRequest(jobID=one))
