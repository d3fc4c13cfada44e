"""Asking what one may do: the answer is that of the real request, and nothing is done."""

import json
from pathlib import Path

import click
import grpc
import pytest

from jobworker.authz.policy.rules import ACTIONS
from jobworker.cli.commands.can_i import can_i
from jobworker.cli.commands.start import start as start_command
from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.support.client import calling, refused, start
from tests.support.server import Server, running_server

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


def test_options_after_the_action_are_starts_own(server: Server) -> None:
    """`can-i start --tenant team-b -- ls` asked about a program named --tenant, and said yes."""
    done = server.run("bob", "can-i", "start", "--tenant", "team-a", "--", "/bin/true")
    assert done.returncode == 1
    assert b"does not name the tenant 'team-a'" in done.stdout
    assert server.run("bob", "start", "--tenant", "team-a", "--", "/bin/true").returncode == 4


@pytest.mark.parametrize(
    "options",
    [
        ("--bogus",),
        ("--memory", "much"),
        ("--env", "NOT_SET_ANYWHERE"),
        ("--cwd", "x" * 5000),
        ("--request-id", "not one!"),
    ],
)
def test_what_start_rejects_can_i_rejects(server: Server, options: tuple[str, ...]) -> None:
    """`can-i start --bogus -- ls` said yes."""
    asked, done = (
        server.run("bob", *words, *options, "--", "/bin/true")
        for words in (("can-i", "start"), ("start",))
    )
    assert (asked.returncode, asked.stdout) == (2, b"")
    assert asked.stderr.splitlines()[-1] == done.stderr.splitlines()[-1]


def test_every_option_of_start_is_one_of_can_i() -> None:
    def options(command: click.Command) -> set[str]:
        return {name for option in command.params for name in option.opts}

    assert options(can_i.commands["start"]) == options(start_command)


READING = {"status", "output", "list"}


@pytest.mark.parametrize("action", ACTIONS[1:])
def test_every_action_on_a_job(server: Server, action: str) -> None:
    with calling(server, "alice") as alice:
        job_id = start(alice, "sleep", "1000")
        assert server.run("alice", "can-i", action, job_id[:30]).returncode == 0
        auditor = server.run("ann", "can-i", action, job_id)
        assert auditor.returncode == (0 if action in READING else 1)
        status = alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        assert status.state == pb.JOB_STATE_RUNNING
        alice.Stop(pb.StopRequest(jobID=job_id))


def test_a_job_one_may_not_see_is_not_there(server: Server) -> None:
    with calling(server, "alice") as alice, calling(server, "bob") as bob:
        job_id = start(alice, "true")
        for action in ACTIONS[1:]:
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


def test_what_one_may_do_as_a_list(server: Server) -> None:
    lines = server.ask("ann", "can-i", "--list").splitlines()
    assert lines[0].split() == ["EFFECT", "ACTION", "JOBS", "COMMAND", "ARGUMENTS", "AS", "RULE"]
    # The third rule is about bob alone.
    assert [line.split() for line in lines[1:3]] == [
        ["allow", "*", "audit/ann", "any", "any", "cn:*", "policy.yaml:3"],
        ["allow", "read", "*/*", "-", "-", "cn:ann", "policy.yaml:6"],
    ]
    assert lines[3:] == ["jobs of tenant audit: isolation none at least"]


def test_the_list_as_json(server: Server) -> None:
    answer = json.loads(server.ask("bob", "can-i", "--list", "-o", "json"))
    assert [
        (right["effect"], right["action"], right["jobs"], right["command"])
        for right in answer["rights"]
    ] == [
        ("allow", "*", ["team-b/bob"], "**"),
        ("deny", "start", ["*/*"], "/bin/false"),
    ]
    (allowance,) = answer["allowances"]
    assert allowance["tenant"] == "team-b"
    assert allowance["isolation"] == "none"
    assert allowance["user_quota"] == {"running": 0, "starts_per_minute": 0, "output_bytes": 0}


def test_the_list_tells_quotas_limits_and_isolation(tmp_path: Path) -> None:
    settings = """\
quotas: {user: {running: 2, starts_per_minute: 30}, tenant: {output_bytes: 1048576}}
jobs:
  limits: {most: {open_files: 1000}, default: {open_files: 100}}
  isolation: {profile: private, network: false, devices: ["/dev/nvidia*", /dev/dri]}
  users: {jobs_run_as_root: true}
"""
    with running_server(tmp_path, USERS, POLICY, settings) as server:
        assert server.ask("bob", "can-i", "--list").splitlines()[-1] == (
            "jobs of tenant team-b: isolation private at least, without network; "
            "private ones find /dev/nvidia* /dev/dri; "
            "you at most 2 running, 30 starts a minute; the tenant at most 1.0 MiB of output; "
            "each most open files 1000; each default open files 100"
        )


def test_a_list_is_asked_by_itself(server: Server) -> None:
    for words in (("--list", "start", "ls"), (), ("--tenant", "x", "stop", NEVER), ("stop",)):
        assert server.run("bob", "can-i", *words).returncode == 2
