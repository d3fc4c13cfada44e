"""Asking what one may do: the answer is that of the real request, and nothing is done."""

import json

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import calling, refused, start
from tests.support.server import Server

NEVER = "00000000-0000-7000-8000-000000000000"


def test_start_is_answered_and_nothing_is_started(server: Server) -> None:
    before = server.ask("bob", "list")
    assert server.ask("bob", "can-i", "start", "--", "/bin/true", "-x").startswith(
        "yes: start allowed to cn=bob ou=team-b for team-b/bob: allow rule at policy.yaml:"
    )
    done = server.run("bob", "can-i", "start", "--", "/bin/false")
    assert done.returncode == 1
    assert done.stdout.startswith(b"no: start refused to cn=bob ou=team-b for team-b/bob: deny")
    assert server.ask("bob", "list") == before


def test_a_programs_own_options_need_no_dashes(server: Server) -> None:
    assert server.run("bob", "can-i", "start", "/bin/false", "--help").returncode == 1
    assert server.run("bob", "can-i", "start", "/bin/true", "--help").returncode == 0
    assert server.run("bob", "can-i", "start", "--").returncode == 2


def test_start_for_a_tenant_of_others(server: Server) -> None:
    done = server.run("bob", "can-i", "--tenant", "team-a", "start", "/bin/true")
    assert done.returncode == 1
    assert b"does not name the tenant 'team-a'" in done.stdout


@pytest.mark.parametrize("action", ["stop", "signal", "status", "output", "list"])
def test_every_action_on_a_job(server: Server, action: str) -> None:
    with calling(server, "alice") as alice:
        job_id = start(alice, "sleep", "1000")
        assert server.run("alice", "can-i", action, job_id[:30]).returncode == 0
        auditor = server.run("ann", "can-i", action, job_id)
        assert auditor.returncode == (1 if action in {"stop", "signal"} else 0)
        status = alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        assert status.state == pb.JOB_STATE_RUNNING
        alice.Stop(pb.StopRequest(jobID=job_id))


def test_a_job_one_may_not_see_is_not_there(server: Server) -> None:
    with calling(server, "alice") as alice, calling(server, "bob") as bob:
        job_id = start(alice, "true")
        for action in ("stop", "signal", "status", "output", "list"):
            hidden, missing = (
                bob.CanI(pb.CanIRequest(action=action, jobID=one)) for one in (job_id, NEVER)
            )
            assert (hidden.allowed, missing.allowed) == (False, False)
            assert hidden.reason.replace(job_id, NEVER) == missing.reason


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (pb.CanIRequest(action="read", jobID=NEVER), "'read' is not one of start, stop"),
        (pb.CanIRequest(action="start"), "say what would be started"),
        (pb.CanIRequest(action="stop"), "say which job you would stop"),
    ],
)
def test_a_question_that_means_nothing(
    server: Server, question: pb.CanIRequest, words: str
) -> None:
    with calling(server, "alice") as alice:
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
            alice.CanI(question)
        assert words in said[0]


def test_the_answer_as_json(server: Server) -> None:
    done = server.run("bob", "can-i", "-o", "json", "stop", NEVER)
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["allowed"] is False
    assert answer["reason"] == f"there is no job '{NEVER}', or it is not yours to see"
