"""`jobworker rm` and `prune`: forgetting jobs that have ended."""

import json
import subprocess

import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import calling
from tests.support.server import JOBWORKER, Server


def ended(server: Server, user: str = "alice") -> str:
    job = server.ask(user, "start", "echo", "hello")
    server.run(user, "logs", "-f", job)
    server.end(user, job)
    return job


def known(server: Server, user: str = "alice") -> set[str]:
    return set(server.ask(user, "list", "-q").split())


def test_rm_forgets_a_job_that_has_ended(fresh_server: Server) -> None:
    kept, gone = ended(fresh_server), ended(fresh_server)
    assert fresh_server.ask("alice", "rm", gone) == gone
    assert known(fresh_server) == {kept}
    assert fresh_server.run("alice", "status", gone).returncode == 3
    assert fresh_server.run("alice", "logs", gone).returncode == 3


def test_rm_of_a_running_job_is_refused(server: Server) -> None:
    job = server.ask("alice", "start", "sleep", "1000")
    done = server.run("alice", "rm", job)
    assert done.returncode == 1
    assert job.encode() in done.stderr
    server.ask("alice", "stop", job)


def test_prune_forgets_ones_own_jobs_that_have_ended(fresh_server: Server) -> None:
    mine, his = ended(fresh_server), ended(fresh_server, "bob")
    running = fresh_server.ask("alice", "start", "sleep", "1000")
    reply = json.loads(fresh_server.ask("alice", "prune", "--force", "-o", "json"))
    assert reply == {"count": 1, "jobs": [{"id": mine}], "bytes": 6}
    assert known(fresh_server) == {running}
    assert known(fresh_server, "bob") == {his}


def test_prune_leaves_younger_jobs(server: Server) -> None:
    job = ended(server)
    assert server.ask("alice", "prune", "--force", "--older-than", "1h") == ""
    assert job in known(server)


def answering(server: Server, answer: bytes) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [JOBWORKER, "prune"],
        env=server.environment("alice"),
        input=answer,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b""])
def test_prune_shows_what_it_takes_and_asks_first(fresh_server: Server, answer: bytes) -> None:
    """It asked about "these jobs" without a word of which."""
    job, his = ended(fresh_server), ended(fresh_server, "bob")
    running = fresh_server.ask("alice", "start", "sleep", "1000")
    done = answering(fresh_server, answer)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (1, b"")
    assert said.index(job[-8:]) < said.index("1 jobs, 6 B of output") < said.index("for ever?")
    assert "echo hello" in said
    assert said.endswith("nothing was removed, as nobody said yes; --force does not ask\n")
    assert his[-8:] not in said
    assert known(fresh_server) == {job, running}
    assert fresh_server.ask("alice", "prune", "--dry-run").split()[6] == job[-8:]
    as_json = json.loads(fresh_server.ask("alice", "prune", "--dry-run", "-o", "json"))
    assert (as_json["count"], as_json["bytes"]) == (1, 6)
    assert [one["id"] for one in as_json["jobs"]] == [job]
    assert known(fresh_server) == {job, running}
    assert answering(fresh_server, b"y\n").stdout.decode().split() == [job]
    # Nothing is left to ask about.
    done = answering(fresh_server, b"")
    assert (done.returncode, done.stderr) == (0, b"0 jobs, 0 B of output\n")


def test_prune_takes_no_more_than_it_has_shown(fresh_server: Server) -> None:
    shown = ended(fresh_server)
    with calling(fresh_server, "alice") as worker:
        would = worker.WouldPrune(pb.PruneRequest())
        later = ended(fresh_server)
        pruned = worker.Prune(pb.PruneRequest(endedBy=would.endedBy))
    assert [job.jobID for job in would.jobs] == list(pruned.jobIDs) == [shown]
    assert known(fresh_server) == {later}


def test_of_many_the_newest_are_shown(fresh_server: Server) -> None:
    jobs = [ended(fresh_server) for _ in range(22)]
    said = fresh_server.ask("alice", "prune", "--dry-run").splitlines()
    assert [line.split()[0] for line in said[1:-1]] == [job[-8:] for job in jobs[:1:-1]]
    assert said[-1] == "and 2 older ones"


def test_prune_takes_what_is_asked_for_alone(fresh_server: Server) -> None:
    server = fresh_server
    words = ("start", "--label", "run=1", "--name")
    good = server.ask("alice", *words, "good", "--", "true")
    bad = server.ask("alice", *words, "wrong", "--", "sh", "-c", "exit 1")
    other = server.ask("alice", "start", "--", "sh", "-c", "exit 1")
    going_on = server.ask("alice", "start", "--label", "run=1", "--", "sleep", "1000")
    others = server.ask("bob", *words, "wrong", "--", "sh", "-c", "exit 1")
    for user, job in (("alice", good), ("alice", bad), ("alice", other), ("bob", others)):
        server.run(user, "wait", "--output", job)
    told = json.loads(
        server.ask("alice", "prune", "--failed", "-l", "run=1", "--dry-run", "-o", "json")
    )
    assert [job["id"] for job in told["jobs"]] == [bad]
    # Who sees everything may stop nothing of it, and forgets nothing.
    assert server.ask("ann", "prune", "-f", "--name", "wrong") == ""
    assert server.ask("alice", "prune", "-f", "--failed", "-l", "run=1") == bad
    assert server.ask("alice", "prune", "-f", "--name", "g*", "--older-than", "1h") == ""
    assert server.ask("alice", "prune", "-f", "--name", "g*") == good
    assert known(server) == {other, going_on}
    assert known(server, "bob") == {others}
    server.ask("alice", "stop", "--grace", "0", going_on)
