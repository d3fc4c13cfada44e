"""`jobworker rm` and `prune`: forgetting jobs that have ended."""

import json
import subprocess

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
    assert reply == {"jobs": [mine], "bytes": 6}
    assert known(fresh_server) == {running}
    assert known(fresh_server, "bob") == {his}


def test_prune_leaves_younger_jobs(server: Server) -> None:
    job = ended(server)
    assert server.ask("alice", "prune", "--force", "--older-than", "1h") == ""
    assert job in known(server)


def test_prune_asks_first(server: Server) -> None:
    job = ended(server)
    done = subprocess.run(
        [JOBWORKER, "prune"],
        env=server.environment("alice"),
        input=b"n\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert b"for ever?" in done.stderr
    assert job in known(server)
