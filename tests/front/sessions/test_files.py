"""Files over the wire: into a job's directory and out of it, for who may, as long as they may."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

from jobworker.authz.audit.files import last_lines
from jobworker.authz.audit.record import Carried, Decided
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.support.chaos import kill
from tests.support.client import calling, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.session.files import get, put, put_requests
from tests.support.waiting import until

NEVER = "00000000-0000-7000-8000-000000000000"
SETTINGS = """\
jobs:
  file_bytes: 20M
  users: {jobs_run_as_root: true}
audit: {directory: audit}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    settings = SETTINGS if os.geteuid() == 0 else SETTINGS.replace("  users", "  # users")
    with running_server(directory, USERS, POLICY, settings) as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as stub:
        yield stub


def running(worker: WorkerServiceStub, directory: Path, **fields: object) -> str:
    """A job in a directory."""
    return start(worker, "sleep", "1000", workingDirectory=str(directory), **fields)


def ended(worker: WorkerServiceStub, directory: Path, **fields: object) -> str:
    job_id = start(worker, "true", workingDirectory=str(directory), **fields)
    wait(worker, job_id)
    return job_id


def sessions(server: Server, job_id: str) -> list[Carried]:
    events = (line.record.event for line in last_lines(server.directory / "audit", 1000))
    return [one for one in events if isinstance(one, Carried) and one.job == job_id]


# -- while it goes on, and after ----------------------------------------------------------------


@pytest.mark.parametrize("state", [running, ended])
def test_in_and_out(
    alice: WorkerServiceStub, server: Server, tmp_path: Path, state: Callable[..., str]
) -> None:
    job_id = state(alice, tmp_path)
    data = os.urandom(3_000_000)
    put(alice, job_id, "file", data, mode=0o600)
    assert (tmp_path / "file").read_bytes() == data
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert get(alice, job_id, "file") == data
    assert get(alice, job_id, f"{tmp_path}/file") == data
    put(alice, job_id, "", b"", mode=0o777)
    assert get(alice, job_id, "source") == b""
    until(lambda: len(sessions(server, job_id)) == 5)
    told = [(one.action, one.cn, one.target, one.up, one.down) for one in sessions(server, job_id)]
    assert told[:2] == [
        ("put", "alice", "file", 3_000_000, 0),
        ("get", "alice", "file", 0, 3_000_000),
    ]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_private_job(alice: WorkerServiceStub) -> None:
    """It is within the sandbox; of what was in there alone nothing is left after the end."""
    script = "mkdir /tmp/own; cd /tmp/own; echo made > made; echo ready; exec sleep 1000"
    job_id = start(
        alice, "sh", "-c", script, isolation=pb.ISOLATION_PRIVATE, workingDirectory="/tmp"
    )
    next(iter(alice.GetOutput(pb.GetOutputRequest(jobID=job_id))))
    assert get(alice, job_id, "own/made") == b"made\n"
    put(alice, job_id, "/tmp/own/file", b"data")
    assert get(alice, job_id, "own/file") == b"data"
    assert not Path("/tmp/own").exists()
    for path in ("/etc/shadow", "../etc/shadow"):
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
            get(alice, job_id, path)
        assert "leads out" in words[0]
    inner = alice.Exec(
        pb.ExecRequest(jobID=job_id, start=pb.StartRequest(commandName="sleep", Arguments=["1000"]))
    ).jobID
    assert get(alice, inner, "own/made") == b"made\n"
    alice.Stop(pb.StopRequest(jobID=job_id, graceSeconds=0))
    for one in (job_id, inner):
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
            get(alice, one, "own/made")
        assert "in its sandbox" in words[0]


def test_a_file_that_is_read_only_in_the_sandbox(alice: WorkerServiceStub) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    job_id = running(alice, Path("/usr"), isolation=pb.ISOLATION_PRIVATE)
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        list(alice.Put(put_requests(job_id, "new", b"data")))
    assert "read-only" in words[0]
    assert not Path("/usr/new").exists()


def test_a_job_that_has_not_been_started_has_no_files(alice: WorkerServiceStub) -> None:
    first = start(alice, "sleep", "1000")
    job_id = start(alice, "true", after=[first])
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        get(alice, job_id, "file")
    alice.Stop(pb.StopRequest(jobID=job_id))
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        get(alice, job_id, "file")
    assert "has not been started" in words[0]


def test_a_job_that_waits_to_be_started_again_has_its_files(
    alice: WorkerServiceStub, tmp_path: Path
) -> None:
    again = pb.RestartPolicy(when=pb.RESTART_WHEN_ALWAYS, delaySeconds=1000)
    script = "echo made > file"
    job_id = start(alice, "sh", "-c", script, workingDirectory=str(tmp_path), restart=again)

    def waits() -> bool:
        status = alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        return bool(status.state == pb.JOB_STATE_PENDING)

    until(waits)
    assert get(alice, job_id, "file") == b"made\n"
    put(alice, job_id, "other")
    alice.Stop(pb.StopRequest(jobID=job_id))
    assert get(alice, job_id, "other") == b"data"


# -- going on -----------------------------------------------------------------------------------


def test_it_goes_on_when_the_front_or_the_supervisor_dies(
    fresh_server: Server, tmp_path: Path
) -> None:
    data = os.urandom(2_000_000)
    with calling(fresh_server, "alice") as alice:
        directory = tmp_path / "job"
        directory.mkdir()
        job_id = running(alice, directory)
        first, *rest = put_requests(job_id, "file", data)
        go_on = threading.Event()

        def half() -> Iterator[pb.PutRequest]:
            yield first
            yield rest[0]
            go_on.wait()

        answers = alice.Put(half())
        assert next(answers).offset == 0
        (part,) = directory.iterdir()
        kill(fresh_server, "supervisor")
        until(lambda: part.stat().st_size == 300_000)
        kill(fresh_server, "front")
        go_on.set()
        with refused(grpc.StatusCode.UNAVAILABLE):
            next(answers)

    with calling(fresh_server, "alice") as alice:
        answers = alice.Put(
            iter(
                [
                    first,
                    pb.PutRequest(data=data[300_000:1_000_000]),
                    pb.PutRequest(data=data[1_000_000:], end=True),
                ]
            ),
            wait_for_ready=True,
        )
        assert [answer.offset for answer in answers] == [300_000, len(data)]
        assert (directory / "file").read_bytes() == data
        begun = alice.Get(pb.GetRequest(jobID=job_id, path=b"file"))
        version = next(begun).file.version
        begun.cancel()
        rest = alice.Get(pb.GetRequest(jobID=job_id, path=b"file", offset=5, version=version))
        assert b"".join(one.data for one in rest) == data[5:]


def test_a_sender_that_ends_early_leaves_what_has_come(
    alice: WorkerServiceStub, tmp_path: Path
) -> None:
    job_id = running(alice, tmp_path)
    first, piece, *_ = put_requests(job_id, "file", b"x" * 1000)
    with refused(grpc.StatusCode.ABORTED) as words:
        list(alice.Put(iter([first, pb.PutRequest(data=piece.data[:10])])))
    assert "ended before the file did" in words[0]
    assert not (tmp_path / "file").exists()


def test_limits_are_told(alice: WorkerServiceStub, tmp_path: Path) -> None:
    job_id = running(alice, tmp_path)
    first = next(put_requests(job_id, "file", b""))
    first.size = 21 * 1024 * 1024
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as words:
        list(alice.Put(iter([first])))
    assert words[0] == "22020096 bytes are more than the 20971520 that this server takes"


# -- who may ------------------------------------------------------------------------------------


def test_each_takes_a_right_of_its_own(server: Server, tmp_path: Path) -> None:
    with calling(server, "alice") as alice:
        job_id = running(alice, tmp_path)
    (tmp_path / "file").write_text("secret")
    with calling(server, "ann") as ann:
        tries: list[tuple[Callable[..., object], str]] = [(put, "put"), (get, "get")]
        for attempt, action in tries:
            with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
                attempt(ann, job_id, "file")
            assert words[0].startswith(f"{action} refused to cn=ann")
    with calling(server, "bob") as bob:
        for attempt, _ in tries:
            answers = []
            for asked in (job_id, NEVER):
                with refused(grpc.StatusCode.NOT_FOUND) as words:
                    attempt(bob, asked, "file")
                answers.append(words[0].replace(asked, "JOB"))
            assert answers[0] == answers[1]
    assert (tmp_path / "file").read_text() == "secret"


def test_what_leads_out_is_refused_and_recorded(
    server: Server, alice: WorkerServiceStub, tmp_path: Path
) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (tmp_path / "outside").mkdir()
    (job / "out").symlink_to("../outside")
    (job / "shadow").symlink_to("/etc/shadow")
    job_id = running(alice, job)
    tried = ("/etc/shadow", "shadow", "../outside/new", "out/new")
    for path in tried:
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            get(alice, job_id, path)
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            list(alice.Put(put_requests(job_id, path, b"data")))
    assert not list((tmp_path / "outside").iterdir())
    until(lambda: len(sessions(server, job_id)) == 2 * len(tried))
    told = {(one.action, one.target.partition(" (failed: ")[0]) for one in sessions(server, job_id)}
    assert told == {(action, path) for action in ("put", "get") for path in tried}
    assert all("leads out" in one.target for one in sessions(server, job_id))
    asked = [
        line.record.event.action
        for line in last_lines(server.directory / "audit", 1000)
        if isinstance(line.record.event, Decided) and line.record.event.job == job_id
    ]
    assert (asked.count("put"), asked.count("get")) == (len(tried), len(tried))


def test_a_right_that_is_taken_away_ends_it(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY) as server, calling(server, "alice") as alice:
        job_id = running(alice, tmp_path)
        first = next(put_requests(job_id, "file", b"x" * 1000))
        over = threading.Event()

        def slowly() -> Iterator[pb.PutRequest]:
            yield first
            over.wait()

        answers = alice.Put(slowly())
        next(answers)
        policy = tmp_path / "policy.new"
        policy.write_text(POLICY + '  - deny: put\n    to: cn:alice\n    jobs: "*/*"\n')
        policy.rename(tmp_path / "policy.yaml")
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            next(answers)
        over.set()
        assert words[0].startswith("put refused to cn=alice")
        assert not (tmp_path / "file").exists()


def test_what_is_said_of_a_file_is_not_believed(alice: WorkerServiceStub, tmp_path: Path) -> None:
    """What the request says of a size is believed of no file; and a hash is one of 64 digits."""
    job_id = running(alice, tmp_path)
    first, piece, end = put_requests(job_id, "file", b"data")
    first.size = 3
    with refused(grpc.StatusCode.ABORTED):
        list(alice.Put(iter([first, piece, end])))
    first.size, first.sha256 = 4, sha256(b"data").hexdigest().upper()
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        list(alice.Put(iter([first])))
    assert not list(tmp_path.iterdir())
