"""Files that come with a start: in the job's directory before its program runs, or no job."""

import os
import shutil
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

from jobworker.authz.audit.files import last_lines
from jobworker.authz.audit.record import Carried
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.support.chaos import kill
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until

NO_PUT = '  - deny: put\n    to: cn:bob\n    jobs: "*/*"\n'
SETTINGS = "audit: {directory: audit}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    with running_server(directory, USERS, POLICY + NO_PUT, SETTINGS) as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as stub:
        yield stub


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def upload(name: str, data: bytes, mode: int = 0o644) -> pb.Upload:
    return pb.Upload(name=os.fsencode(name), data=data, mode=mode)


def started(
    worker: WorkerServiceStub, there: Path, *argv: str, files: list[pb.Upload], **fields: object
) -> str:
    return start(worker, *argv, workingDirectory=str(there), uploads=files, **fields)


def kept(server: Server, job_id: str) -> Path:
    return server.directory / "state/output" / job_id / "uploads"


def test_they_are_there_before_the_program(
    server: Server, alice: WorkerServiceStub, there: Path
) -> None:
    script = b"#!/bin/sh\ncat data\n"
    files = [upload("script", script, 0o755), upload("data", b"\0" * 1_500_000)]
    job_id = started(alice, there, "./script", files=files)
    assert output(alice, job_id) == b"\0" * 1_500_000
    assert wait(alice, job_id).exitCode == 0
    assert sorted(os.listdir(there)) == ["data", "script"]
    assert not kept(server, job_id).exists()
    told = alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id)).request.uploads
    assert [(one.name, one.mode, one.size, one.data) for one in told] == [
        (b"script", 0o755, len(script), b""),
        (b"data", 0o644, 1_500_000, b""),
    ]
    assert told[0].sha256 == sha256(script).hexdigest()
    events = [line.record.event for line in last_lines(server.directory / "audit", 1000)]
    puts = [one for one in events if isinstance(one, Carried) and one.job == job_id]
    assert [(one.action, one.cn, one.up) for one in puts] == [
        ("put", "alice", len(script)),
        ("put", "alice", 1_500_000),
    ]


def test_what_cannot_be_put_starts_nothing(
    server: Server, alice: WorkerServiceStub, there: Path
) -> None:
    (there / "file").mkdir()
    (there / "link").symlink_to("/etc/passwd")
    before = os.listdir(server.directory / "state/output")
    for name in ("file", "link"):
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
            started(alice, there, "touch", "ran", files=[upload(name, b"data")])
        assert f"the file {name} could not be put into {there}" in words[0]
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        started(alice, there / "absent", "true", files=[upload("x", b"data")])
    assert sorted(os.listdir(there)) == ["file", "link"]
    until(lambda: os.listdir(server.directory / "state/output") == before)


def test_a_job_that_waits_has_its_own_when_its_turn_comes(
    server: Server, alice: WorkerServiceStub, there: Path
) -> None:
    first = start(alice, "sleep", "1000")
    jobs = [
        started(alice, there, "cat", "file", files=[upload("file", data)], after=[job])
        for job, data in ((first, b"one"),)
    ]
    second = upload("file", b"two")
    jobs.append(started(alice, there, "cat", "file", files=[second], after=[first, jobs[0]]))
    assert os.listdir(there) == []
    assert all(kept(server, job).is_dir() for job in jobs)
    kill(server, "supervisor")
    alice.Stop(pb.StopRequest(jobID=first), wait_for_ready=True)
    # It ended otherwise than by exit with 0.
    assert [wait(alice, job).endReason for job in jobs] == [pb.END_REASON_DEPENDENCY_FAILED] * 2
    first = start(alice, "sh", "-c", f"until [ -e {there}/go ]; do sleep 0.01; done")
    job = started(alice, there, "cat", "file", files=[second], after=[first])
    other = started(alice, there, "cat", "file", files=[upload("file", b"3")], after=[job])
    kill(server, "supervisor")
    (there / "go").touch()
    assert (output(alice, job), output(alice, other)) == (b"two", b"3")
    assert not kept(server, job).exists()


def test_a_death_of_the_supervisor_in_the_middle_of_it(
    server: Server, alice: WorkerServiceStub, there: Path
) -> None:
    data = os.urandom(1_000_000)
    files = [upload(f"file{number}", data) for number in range(4)]
    for _ in range(5):
        killer = threading.Thread(target=kill, args=(server, "supervisor"))
        killer.start()
        job_id = started(alice, there, "sh", "-c", "cat file? | wc -c", files=files)
        killer.join()
        assert output(alice, job_id).strip() == b"4000000"
        assert wait(alice, job_id).exitCode == 0
        assert not kept(server, job_id).exists()


def test_they_are_put_before_the_first_attempt_alone(alice: WorkerServiceStub, there: Path) -> None:
    script = "cat file; echo changed > file; exit 1"
    again = pb.RestartPolicy(when=pb.RESTART_WHEN_ON_FAILURE, maxRestarts=1, delaySeconds=0.01)
    files = [upload("file", b"first\n")]
    job_id = started(alice, there, "sh", "-c", script, files=files, restart=again)
    wait(alice, job_id)
    assert output(alice, job_id) == b"first\nchanged\n"


def test_one_key_is_one_job_with_the_same_files(alice: WorkerServiceStub, there: Path) -> None:
    def ask(data: bytes) -> str:
        files = [upload("file", data)]
        return started(alice, there, "cat", "file", files=files, requestID="upload-key")

    assert ask(b"one") == ask(b"one")
    with refused(grpc.StatusCode.ALREADY_EXISTS) as words:
        ask(b"two")
    assert "uploads" in words[0]


def test_it_takes_the_right_to_put(server: Server, there: Path) -> None:
    with calling(server, "bob") as bob:
        start(bob, "true")
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            started(bob, there, "true", files=[upload("file", b"data")])
        assert words[0].startswith("put refused to cn=bob")
    assert os.listdir(there) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([upload("a", b""), upload("a", b"x")], "the same name"),
        ([upload("..", b"")], "a directory's name"),
        ([upload("a/b", b"")], "without a slash"),
        (
            [upload("a", b"x" * (2 * 1024 * 1024)), upload("b", b"x" * (2 * 1024 * 1024 + 1))],
            "4194304",
        ),
        ([upload(str(number), b"") for number in range(17)], "more than 16"),
        ([pb.Upload(name=b"a", size=1)], "does not hold of its data"),
    ],
    ids=["twice", "dots", "slash", "size", "number", "told"],
)
def test_what_is_no_upload(
    alice: WorkerServiceStub, there: Path, files: list[pb.Upload], said: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        started(alice, there, "true", files=files)
    assert said in words[0]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_sandbox_takes_none_before_it_is_there(alice: WorkerServiceStub) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        started(
            alice,
            Path("/tmp"),
            "true",
            files=[upload("file", b"data")],
            isolation=pb.ISOLATION_PRIVATE,
        )
    assert "sandbox" in words[0]


def test_the_command(server: Server, there: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho it ran\n")
    script.chmod(0o755)
    words = ("--upload", str(script), "-w", str(there), "--", "./script")
    assert server.ask("alice", "run", *words) == "it ran"
    job = server.ask("alice", "start", *words)
    server.end("alice", job)
    assert '"uploads": [{"name": "script", "mode": 493,' in server.ask(
        "alice", "status", "-o", "json", job
    )
    again = server.run("alice", "again", job)
    assert (again.returncode, b"--upload FILE" in again.stderr) == (1, True)
    absent = server.run("alice", "start", "--upload", "/absent", "--", "true")
    assert (absent.returncode, b"/absent: No such file" in absent.stderr) == (1, True)
