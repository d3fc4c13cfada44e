"""The audit log of a real server: who asked for what, what became of it, and what jobs did."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from jobworker.authz.audit.files import files_of, last_lines, verify
from jobworker.authz.audit.record import Changed, Decided
from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.front.test_front_killed import front_of
from tests.front.test_reload_policy import NOTHING_FOR_ALICE, following, watching
from tests.support.chaos import persist
from tests.support.client import calling, channel_of, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until


@contextmanager
def audited(directory: Path, settings: str = "") -> Iterator[Server]:
    """A server that writes an audit log in `audit`."""
    with running_server(
        directory, USERS, POLICY, f"audit: {{directory: audit{settings}}}\n"
    ) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with audited(tmp_path) as running:
        yield running


def log_of(server: Server) -> Path:
    return server.directory / "audit"


def decisions(server: Server) -> list[Decided]:
    events = (line.record.event for line in last_lines(log_of(server), 10_000))
    return [event for event in events if isinstance(event, Decided)]


def states(server: Server, job_id: str) -> list[Changed]:
    events = (line.record.event for line in last_lines(log_of(server), 10_000))
    return [event for event in events if isinstance(event, Changed) and event.job == job_id]


def test_every_decision_is_recorded(server: Server) -> None:
    with calling(server, "alice") as alice, calling(server, "bob") as bob:
        job_id = start(alice, "sh", "-c", "exit 3")
        wait(alice, job_id)
        with refused(grpc.StatusCode.NOT_FOUND):
            bob.Stop(pb.StopRequest(jobID=job_id))
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            start(bob, "/bin/false")
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            start(bob, "true", tenant="team-a")
        with refused(grpc.StatusCode.NOT_FOUND):
            bob.QueryStatus(pb.QueryStatusRequest(jobID="no such job"))
        bob.CanI(pb.CanIRequest(action="stop", jobID=job_id))
        alice.List(pb.ListRequest())
        alice.Prune(pb.PruneRequest())
    found = decisions(server)
    barred, foreign = found[3].job, found[4].job
    assert len({job_id, barred, foreign}) == 3
    assert [(one.cn, one.action, one.job, one.allowed) for one in found] == [
        ("alice", "start", job_id, True),
        ("alice", "status", job_id, True),
        ("bob", "stop", job_id, False),
        ("bob", "start", barred, False),
        ("bob", "start", foreign, False),
        ("bob", "status", "no such job", False),
        ("bob", "can-i stop", job_id, False),
        ("alice", "list", "", True),
        ("alice", "stop", "", True),
        ("alice", "stop", job_id, True),
    ]
    rules = [Path(one.rule).name for one in found]
    assert rules[:6] == ["policy.yaml:3", "policy.yaml:3", "", "policy.yaml:9", "", ""]
    first = found[0]
    assert (first.command, first.owner, first.tenant) == ("sh -c 'exit 3'", "alice", "team-a")
    assert (first.tenants, int(first.serial, 16)) == (("team-a",), server.users["alice"].serial)
    assert first.peer.startswith("127.0.0.1:")
    assert len({one.policy for one in found}) == 1


def test_what_jobs_do_is_recorded(server: Server) -> None:
    with calling(server, "alice") as alice:
        failed = start(alice, "sh", "-c", "exit 3")
        stopped = start(alice, "sleep", "1000")
        alice.Stop(pb.StopRequest(jobID=stopped))
        wait(alice, failed)
    until(lambda: len(states(server, failed)) == 2 and len(states(server, stopped)) == 3)
    running, ended = states(server, failed)
    assert (running.state, running.owner, running.tenant) == ("running", "alice", "team-a")
    assert (ended.state, ended.detail.split(", at")[0]) == ("ended", "exited, exit code 3")
    assert [event.state for event in states(server, stopped)] == ["running", "stopping", "ended"]
    assert states(server, stopped)[-1].detail.startswith("stopped, exit code 143, at 20")


def test_jobs_that_end_at_once_are_recorded(server: Server) -> None:
    with calling(server, "alice") as alice, ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: start(alice, "true"), range(100)))
    until(lambda: all(len(states(server, job_id)) == 2 for job_id in jobs))


def test_a_call_that_a_new_policy_ends_is_recorded(server: Server) -> None:
    with calling(server, "alice") as alice:
        job_id = start(alice, "sh", "-c", "echo on; exec sleep 1000")
        stream = following(alice, job_id)
        (server.directory / "policy.yaml").write_text(NOTHING_FOR_ALICE)
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            next(stream)
    allowed, cut = (one for one in decisions(server) if one.action == "output")
    assert (allowed.allowed, cut.allowed) == (True, False)
    assert allowed.policy != cut.policy
    assert (cut.peer, cut.job) == (allowed.peer, job_id)


def test_no_state_is_missed_while_the_front_is_dead(server: Server) -> None:
    with calling(server, "alice") as alice:
        gate = server.directory / "gate"
        job_id = start(alice, "sh", "-c", f"until [ -e {gate} ]; do sleep 0.01; done; exit 7")
        until(lambda: len(states(server, job_id)) == 1)
        front = front_of(server)
        front.send_signal(signal.SIGSTOP)
        # Noted before it may end.
        job = psutil.Process(alice_pid(server, job_id))
        gate.touch()
        job.wait(60)
        front.send_signal(signal.SIGKILL)
        status = persist(
            lambda: alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id), wait_for_ready=True)
        )
        assert status.exitCode == 7
    until(lambda: len(states(server, job_id)) == 2)
    assert states(server, job_id)[1].detail.startswith("exited, exit code 7")
    assert verify(log_of(server)).first == 1


def alice_pid(server: Server, job_id: str) -> int:
    """The process of a job, by what the log says of it."""
    return int(states(server, job_id)[0].detail.split()[1].rstrip(","))


def test_files_follow_one_another(tmp_path: Path) -> None:
    with audited(tmp_path, ", rotate_bytes: 4096") as server, calling(server, "alice") as alice:
        for _ in range(40):
            alice.List(pb.ListRequest())
        found = verify(log_of(server))
        assert found.files > 2
        assert found.last >= 40
        done = server.run("alice", "audit", "verify", str(log_of(server)))
        assert (done.returncode, found.head.encode() in done.stdout) == (0, True)


def test_a_log_that_was_edited_is_told(server: Server) -> None:
    with calling(server, "alice") as alice:
        for _ in range(3):
            alice.List(pb.ListRequest())
        file = files_of(log_of(server))[-1]
        file.write_bytes(file.read_bytes().replace(b'"cn":"alice"', b'"cn":"aline"', 1))
        done = server.run("alice", "audit", "verify", str(log_of(server)))
        assert done.returncode == 1
        assert b"audit-000000000001.jsonl:2: record 2 does not follow" in done.stderr


def limit_files(server: Server, size: int) -> None:
    """Let the front write no file beyond this size: EFBIG (setrlimit(2))."""
    pid = front_of(server).pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_what_cannot_be_recorded_is_refused(server: Server) -> None:
    with calling(server, "alice") as alice, channel_of(server, "alice") as channel:
        health = watching(channel, "audit")
        assert next(health).status == HealthCheckResponse.SERVING
        job_id = start(alice, "sh", "-c", "echo on; exec sleep 1000")
        until(lambda: len(states(server, job_id)) == 1)
        limit_files(server, os.path.getsize(files_of(log_of(server))[-1]))
        with refused(grpc.StatusCode.UNAVAILABLE) as words:
            start(alice, "touch", str(server.directory / "started"))
        assert words[0].startswith("the server cannot write its audit log")
        with refused(grpc.StatusCode.UNAVAILABLE):
            alice.Signal(pb.SignalRequest(jobID=job_id, signal=9))
        assert alice.WhoAmI(pb.WhoAmIRequest()).commonName == "alice"
        assert next(health).status == HealthCheckResponse.NOT_SERVING
        assert psutil.pid_exists(alice_pid(server, job_id))
        assert not (server.directory / "started").exists()
        # Who ends what is theirs may make room by that; it is recorded later.
        alice.Stop(pb.StopRequest(jobID=job_id))
        assert not [one for one in states(server, job_id) if one.state == "ended"]
        limit_files(server, resource.RLIM_INFINITY)
        alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        assert next(health).status == HealthCheckResponse.SERVING
        until(lambda: [one.state for one in states(server, job_id)][-1:] == ["ended"])
        assert verify(log_of(server)).last == len(last_lines(log_of(server), 10_000))
        events = [line.record.event for line in last_lines(log_of(server), 10_000)]
        asked = [event.action for event in events if isinstance(event, Decided)]
        assert (asked.count("stop"), asked.count("signal")) == (1, 0)


def test_requests_go_on_where_the_administrator_wants_that(tmp_path: Path) -> None:
    with (
        audited(tmp_path, ", on_failure: continue") as server,
        calling(server, "alice") as alice,
    ):
        job_id = start(alice, "true")
        wait(alice, job_id)
        until(lambda: len(states(server, job_id)) == 2)
        limit_files(server, os.path.getsize(files_of(log_of(server))[-1]))
        unrecorded = start(alice, "true")
        wait(alice, unrecorded)
        until(lambda: any("cannot write the audit log" in line for line in server.log))
        limit_files(server, resource.RLIM_INFINITY)
        until(lambda: len(states(server, unrecorded)) == 2)
        assert verify(log_of(server)).first == 1


def test_tail_shows_the_last_records(server: Server) -> None:
    with calling(server, "alice") as alice:
        start(alice, "sleep", "0")
    shown = server.ask("alice", "audit", "tail", "-o", "json", str(log_of(server)))
    assert json.loads(shown.splitlines()[0])["event"]["action"] == "start"
