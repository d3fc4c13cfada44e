"""Jobs that are started again when they end, over the wire and on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY
from tests.support.chaos import kill
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import (
    Server,
    configure,
    leaving_no_process,
    own_address,
    serving,
)
from tests.support.waiting import until

FAILURE, ALWAYS = pb.RESTART_WHEN_ON_FAILURE, pb.RESTART_WHEN_ALWAYS
# Notes that it was begun, in the file $1, and says which time that was.
COUNT = 'echo begun >> "$1"; n=$(wc -l < "$1"); echo "attempt $n"; '
# Far more than a test takes.
LONG = 3600.0


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker


def policy(when: int = FAILURE, delay: float = 0.05, **fields: object) -> pb.RestartPolicy:
    return pb.RestartPolicy(when=when, delaySeconds=delay, **fields)


def begin(
    worker: WorkerServiceStub, script: str, path: Path, restart: pb.RestartPolicy, **fields: object
) -> str:
    return start(worker, "sh", "-c", COUNT + script, "sh", str(path), restart=restart, **fields)


def count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def status(worker: WorkerServiceStub, job: str) -> pb.QueryStatusResponse:
    return worker.QueryStatus(pb.QueryStatusRequest(jobID=job))


def pending(worker: WorkerServiceStub, job: str) -> bool:
    """Whether it waits to be started again; not, too, while nobody answers."""
    try:
        return bool(status(worker, job).state == pb.JOB_STATE_PENDING)
    except grpc.RpcError:
        return False


def test_it_is_started_again_until_it_does_well(alice: WorkerServiceStub, tmp_path: Path) -> None:
    job = begin(alice, "[ $n -ge 3 ] || exit $n", tmp_path / "count", policy(), name="again")
    ended = wait(alice, job)
    assert (ended.endReason, ended.exitCode, ended.attempt) == (pb.END_REASON_EXITED, 0, 3)
    assert [(one.number, one.exitCode) for one in ended.attempts] == [(1, 1), (2, 2)]
    # One output, of which each has its part.
    whole = output(alice, job)
    assert whole == b"attempt 1\nattempt 2\nattempt 3\n"
    parts = [whole[one.outputBegin : one.outputEnd] for one in ended.attempts]
    assert parts == [b"attempt 1\n", b"attempt 2\n"]
    times = [one.startedAt.ToNanoseconds() for one in ended.attempts]
    assert times == sorted(times)
    assert times[-1] < ended.createdAt.ToNanoseconds()
    # A list has the number alone.
    listed = alice.List(pb.ListRequest(name="again")).jobs
    assert [(one.attempt, len(one.attempts)) for one in listed] == [(3, 0)]
    # Waiting for the next one it holds its name.
    assert ended.request.restart.maxRestarts == 10
    assert count(tmp_path / "count") == 3


@pytest.mark.parametrize(
    ("script", "how", "attempts"),
    [
        ("exit 1", policy(maxRestarts=2), 3),
        ("exit 0", policy(ALWAYS, maxRestarts=1), 2),
        ("exit 0", policy(), 1),
        ("exit 5", policy(ALWAYS, finalExitCodes=[4, 5]), 1),
        ("kill -9 $$", policy(maxRestarts=1), 2),
        ("exit 1", pb.RestartPolicy(persist=True), 1),
    ],
)
def test_when_it_is_not_started_again(
    alice: WorkerServiceStub, tmp_path: Path, script: str, how: pb.RestartPolicy, attempts: int
) -> None:
    ended = wait(alice, begin(alice, script, tmp_path / "count", how))
    assert (ended.attempt, len(ended.attempts)) == (attempts, attempts - 1)
    assert count(tmp_path / "count") == attempts
    in_vain = f"not started again: that were {attempts} in a row"
    assert (in_vain in ended.detail) == (attempts == how.maxRestarts + 1 and attempts > 1)


def test_a_healthy_attempt_begins_the_count_anew(alice: WorkerServiceStub, tmp_path: Path) -> None:
    how = policy(maxRestarts=1, healthySeconds=0.001)
    job = begin(alice, "[ $n -ge 5 ] || exit 1", tmp_path / "count", how)
    assert wait(alice, job).attempt == 5


def test_the_delay_doubles(alice: WorkerServiceStub, tmp_path: Path) -> None:
    job = begin(alice, "exit 1", tmp_path / "count", policy(delay=0.1, maxRestarts=3))
    ended = wait(alice, job)
    starts = [one.startedAt.ToNanoseconds() for one in ended.attempts]
    starts.append(ended.createdAt.ToNanoseconds())
    ends = [one.endedAt.ToNanoseconds() for one in ended.attempts]
    waits = [(begun - ended) / 1e9 for begun, ended in zip(starts[1:], ends, strict=True)]
    assert all(wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=True))


def test_a_stop_wins(alice: WorkerServiceStub, tmp_path: Path) -> None:
    # While it runs.
    job = begin(alice, "exec sleep 1000", tmp_path / "one", policy(ALWAYS))
    until(lambda: count(tmp_path / "one") == 1)
    alice.Stop(pb.StopRequest(jobID=job, graceSeconds=0))
    ended = wait(alice, job)
    assert (ended.endReason, ended.attempt) == (pb.END_REASON_STOPPED, 1)
    # While it waits to be started again: what it did before is how it ended.
    job = begin(alice, "exit 7", tmp_path / "two", policy(delay=LONG, maxDelaySeconds=LONG))
    until(lambda: pending(alice, job))
    told = status(alice, job)
    assert told.detail.startswith("it is started again in ")
    assert (told.attempt, told.attempts[0].exitCode, told.pid) == (2, 7, 0)
    alice.Stop(pb.StopRequest(jobID=job))
    ended = wait(alice, job)
    assert (ended.endReason, ended.exitCode, ended.attempt) == (pb.END_REASON_STOPPED, 7, 1)
    assert output(alice, job) == b"attempt 1\n"
    # While what it left behind is being ended.
    ready = tmp_path / "ready"
    script = f'sh -c "trap : TERM; touch {ready}; while :; do sleep 0.02; done" & '
    script += f"until [ -e {ready} ]; do sleep 0.02; done; exit 8"
    job = begin(alice, script, tmp_path / "three", policy(delay=LONG), graceSeconds=LONG)
    until(lambda: status(alice, job).state == pb.JOB_STATE_STOPPING)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        alice.Pause(pb.PauseRequest(jobID=job))
    alice.Stop(pb.StopRequest(jobID=job, graceSeconds=0))
    ended = wait(alice, job)
    assert (ended.endReason, ended.exitCode) == (pb.END_REASON_STOPPED, 8)
    assert [count(tmp_path / name) for name in ("one", "two", "three")] == [1, 1, 1]


def test_what_an_attempt_leaves_behind_is_ended(alice: WorkerServiceStub, tmp_path: Path) -> None:
    # Each says whether what the one before left is there.
    left = tmp_path / "left"
    script = (
        f'[ ! -e {left} ] || if kill -0 "$(cat {left})"; then echo alive; else echo gone; fi; '
        f"setsid sleep 1000 & echo $! > {left}; [ $n -ge 3 ] || exit 1"
    )
    job = begin(alice, script, tmp_path / "count", policy())
    until(lambda: status(alice, job).state == pb.JOB_STATE_ENDED)
    alice.Stop(pb.StopRequest(jobID=job, graceSeconds=0))
    wait(alice, job)
    assert output(alice, job).split(b"\n")[:1] == [b"attempt 1"]
    said = output(alice, job, stream=pb.OUTPUT_STREAM_STDOUT)
    assert said == b"attempt 1\nattempt 2\ngone\nattempt 3\ngone\n"


def test_a_program_that_is_gone_is_a_failure_as_well(
    alice: WorkerServiceStub, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\nmv "$0" "$0.gone"; exit 1\n')
    program.chmod(0o755)
    job = start(alice, str(program), restart=policy(maxRestarts=2))
    ended = wait(alice, job)
    assert (ended.endReason, ended.exitCode) == (pb.END_REASON_CANNOT_START, 127)
    assert [one.endReason for one in ended.attempts] == [
        pb.END_REASON_EXITED,
        pb.END_REASON_CANNOT_START,
    ]
    # One that never was there is told to who asks for it, and is no job.
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        start(alice, str(program), restart=policy())


def test_a_timeout_is_of_an_attempt(alice: WorkerServiceStub, tmp_path: Path) -> None:
    script = "[ $n -ge 2 ] || exec sleep 1000"
    job = begin(alice, script, tmp_path / "count", policy(), timeoutSeconds=0.5)
    ended = wait(alice, job)
    assert (ended.endReason, ended.exitCode) == (pb.END_REASON_EXITED, 0)
    assert [one.endReason for one in ended.attempts] == [pb.END_REASON_TIMED_OUT]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": pb.INPUT_MODE_OPEN}, "takes input"),
        ({"terminal": pb.Terminal(rows=24, columns=80)}, "takes input"),
        ({"restart": policy(9)}, "9 is none of"),
        ({"restart": policy(maxRestarts=1001)}, "1001 restarts in a row"),
        ({"restart": policy(delay=5.0, maxDelaySeconds=1.0)}, "less than the first"),
        ({"restart": policy(delay=-1.0)}, "is not a number that is 0 or more"),
        ({"restart": policy(finalExitCodes=[256])}, "256 is no exit code"),
    ],
)
def test_what_cannot_be_asked_for(
    alice: WorkerServiceStub, fields: dict[str, object], words: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as told:
        start(alice, "true", **{"restart": policy(), **fields})
    assert words in told[0]


def test_nor_of_what_runs_within_a_job(alice: WorkerServiceStub) -> None:
    job = start(alice, "sleep", "1000")
    asked = pb.StartRequest(commandName="true", restart=policy())
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        alice.Exec(pb.ExecRequest(jobID=job, start=asked))
    alice.Stop(pb.StopRequest(jobID=job, graceSeconds=0))


def test_who_comes_after_waits_for_the_last_attempt(
    alice: WorkerServiceStub, tmp_path: Path
) -> None:
    first = begin(alice, "[ $n -ge 3 ] || exit 1", tmp_path / "count", policy())
    second = start(alice, "cat", str(tmp_path / "count"), after=[first])
    assert wait(alice, second).exitCode == 0
    assert output(alice, second) == b"begun\n" * 3


def test_it_survives_any_process(fresh_server: Server, tmp_path: Path) -> None:
    with calling(fresh_server, "alice") as alice:
        waits = begin(alice, "[ $n -ge 2 ] || exit 1", tmp_path / "one", policy(delay=2.0))
        runs = begin(
            alice,
            f"[ $n -ge 3 ] || {{ until [ -e {tmp_path}/go ]; do sleep 0.02; done; exit 1; }}",
            tmp_path / "two",
            policy(),
        )
        until(lambda: pending(alice, waits))
        for victim in ("supervisor", "front", "supervisor"):
            kill(fresh_server, victim)
            until(lambda: _answers(alice, runs))
        (tmp_path / "go").touch()
        assert [wait(alice, job).attempt for job in (waits, runs)] == [2, 3]
        assert output(alice, waits) == b"attempt 1\nattempt 2\n"
        assert output(alice, runs) == b"attempt 1\nattempt 2\nattempt 3\n"
    assert (count(tmp_path / "one"), count(tmp_path / "two")) == (2, 3)


def _answers(worker: WorkerServiceStub, job: str) -> bool:
    try:
        status(worker, job)
    except grpc.RpcError:
        return False
    return True


def test_the_policy_is_asked_at_each_attempt(fresh_server: Server, tmp_path: Path) -> None:
    directory = fresh_server.directory
    with calling(fresh_server, "alice") as alice:
        how = policy(delay=2.0)
        job = begin(alice, "exit 1", tmp_path / "count", how)
        until(lambda: pending(alice, job))
        rule = "  - deny: start\n    to: cn:alice\n    jobs: '*/*'\n"
        (directory / "policy.yaml").write_text(POLICY + rule)
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            while True:
                start(alice, "true")
        ended = wait(alice, job)
    assert (ended.endReason, ended.exitCode) == (pb.END_REASON_REFUSED, 1)
    assert count(tmp_path / "count") == 1


@pytest.mark.parametrize("orderly", [True, False])
def test_what_persists_begins_anew_with_the_service(tmp_path: Path, orderly: bool) -> None:
    host = own_address()
    authority = configure(tmp_path, host, POLICY, "")
    users = {"alice": authority.client("alice", ["team-a"])}
    config = tmp_path / "server.yaml"
    one, two = tmp_path / "one", tmp_path / "two"
    with leaving_no_process():
        with serving(config, returncode=0 if orderly else -9) as (process, log):
            server = Server(tmp_path, host, authority, users, process, log)
            with calling(server, "alice") as alice:
                how = pb.RestartPolicy(persist=True, delaySeconds=0.05)
                kept = begin(alice, "exec sleep 1000", one, how)
                lost = begin(alice, "exec sleep 1000", two, policy(ALWAYS))
                for job in (kept, lost):
                    until(lambda job=job: b"1" in output(alice, job, noFollow=True))
            if not orderly:
                process.kill()
        with serving(config), calling(server, "alice") as alice:
            until(lambda: b"2" in output(alice, kept, noFollow=True))
            told = status(alice, kept)
            assert told.state == pb.JOB_STATE_RUNNING
            assert [one.endReason for one in told.attempts] == [pb.END_REASON_LOST]
            assert output(alice, kept, noFollow=True) == b"attempt 1\nattempt 2\n"
            reason = pb.END_REASON_STOPPED if orderly else pb.END_REASON_LOST
            assert wait(alice, lost).endReason == reason
            alice.Stop(pb.StopRequest(jobID=kept, graceSeconds=0))
            assert wait(alice, kept).endReason == pb.END_REASON_STOPPED
    assert (count(one), count(two)) == (2, 1)


def test_the_command(server: Server, tmp_path: Path) -> None:
    words = ("--restart", "on-failure", "--restart-delay", "50ms", "--restart-max", "4")
    script = ("sh", "-c", COUNT + "[ $n -ge 3 ] || exit 3", "sh", str(tmp_path / "count"))
    done = server.run("alice", "run", "--name", "svc", *words, "--", *script)
    assert (done.returncode, done.stdout) == (0, b"attempt 1\nattempt 2\nattempt 3\n")
    shown = server.ask("alice", "status", "svc")
    assert "Attempt:   3" in shown
    assert "Before:    2 exited with 3, 1 exited with 3" in shown
    told = json.loads(server.ask("alice", "status", "-o", "json", "svc"))
    assert (told["attempt"], told["restart"]["max_restarts"]) == (3, 4)
    assert [one["exit_code"] for one in told["attempts"]] == [3, 3]
    refusal = server.run("alice", "start", "--restart-max", "3", "--", "true")
    assert refusal.returncode == 2
    assert b"--restart-max says how --restart does it" in refusal.stderr
    refusal = server.run("alice", "run", "-i", "--restart", "always", "--", "true")
    assert b"takes input" in refusal.stderr


def test_the_output_of_an_attempt(server: Server, tmp_path: Path) -> None:
    script = COUNT + "[ $n -ge 3 ] || exit $n; exec sleep 1000"
    how = ("--restart", "on-failure", "--restart-delay", "10ms")
    words = ("start", *how, "--", "sh", "-c", script, "sh", str(tmp_path / "count"))
    job = server.ask("alice", *words)
    until(lambda: "attempt 3" in server.ask("alice", "logs", job))
    for number in (1, 2, 3):
        assert server.ask("alice", "logs", "--attempt", str(number), job) == f"attempt {number}"
    # One that is over is not waited for.
    assert server.ask("alice", "logs", "-f", "--attempt", "2", job) == "attempt 2"
    told = server.run("alice", "logs", "-t", job)
    assert [line.split(b" ", 1)[1] for line in told.stdout.splitlines()] == [
        b"attempt 1",
        b"attempt 2",
        b"attempt 3",
    ]
    assert told.stderr.decode().splitlines() == [
        f"jobworker: job {job}: attempt {number}: that before exited with {number - 1}"
        for number in (2, 3)
    ]
    unknown = server.run("alice", "logs", "--attempt", "4", job)
    assert (unknown.returncode, unknown.stdout) == (1, b"")
    assert b"has had no attempt 4: its last is 3" in unknown.stderr
    assert server.run("alice", "logs", "--attempt", "1", "-n", "1", job).returncode == 2
    server.ask("alice", "stop", "--grace", "0", job)
