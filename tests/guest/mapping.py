"""Patterns in place of a line for each user: to whom they lead, and to whom not."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from tests.guest.site import Tenant, server_of_root, tenant
from tests.support.client import refused
from tests.support.server import JOBWORKER, Server

SETTINGS = """\
front_user: jobfront
jobs:
  users: {names: "{cn}", groups: [compute, jobfront]}
  isolation:
    tenants:
      team-p: {profile: private}
"""
GROUP = 2100


def add(kind: str, line: str) -> None:
    """Write a line of passwd(5) or group(5), in the guest alone."""
    with Path("/etc", kind).open("a") as file:
        file.write(f"{line}\n")


def put_into_group(*names: str) -> None:
    """Make the group `compute` one of these members."""
    file = Path("/etc/group")
    lines = [line for line in file.read_text().splitlines() if not line.startswith("compute:")]
    # In place: it is a mount.
    file.write_text("\n".join([*lines, f"compute:x:{GROUP}:{','.join(names)}"]) + "\n")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    put_into_group("alice", "root", "daemon", "jobfront")
    with server_of_root(settings=SETTINGS) as running:
        yield running


@pytest.fixture
def people(server: Server) -> Iterator["People"]:
    with ExitStack() as stack:
        yield People(server, stack)


class People:
    """Who calls the server with a certificate of whatever name."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self._server, self._stack = server, stack

    def call(self, name: str, team: str = "team-x") -> Tenant:
        """Make a certificate, and call with it until the test ends."""
        self._server.users[name] = self._server.authority.client(name, [team])
        return self._stack.enter_context(tenant(self._server, name))


def test_a_pattern_leads_to_the_user_of_the_same_name(people: People) -> None:
    assert people.call("alice").run("id -un; echo $HOME") == "alice\n/home/alice\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("root", "as root, who is root, to whom no pattern leads"),
        ("daemon", "who is a user of the host's own (user ID 1)"),
        ("nobody", "who is a user of the host's own"),
        ("jobfront", "who is in the group of the server's front_user"),
        ("bob", "who is in none of the groups of jobs.users (compute, jobfront)"),
        ("nonesuch", "there is no Unix user nonesuch on this host"),
        ("ALICE", "there is no Unix user ALICE on this host"),
        ("2001", "there is no Unix user 2001 on this host"),
    ],
)
def test_whom_a_pattern_does_not_lead_to(people: People, name: str, words: str) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as said:
        people.call(name).start("true")
    assert words in said[0]


def test_who_is_in_the_group_later_starts_jobs_at_once(people: People) -> None:
    """Neither an upgrade nor a minute is waited for: not even by who was refused before."""
    carol = people.call("carol")
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        carol.start("true")
    add("passwd", "carol:x:2004:2004::/home/carol:/bin/sh")
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as said:
        carol.start("true")
    assert "in none of the groups" in said[0]
    put_into_group("alice", "root", "daemon", "jobfront", "carol")
    assert carol.run("id -un") == "carol\n"


def test_homes_of_those_whom_it_leads_to_are_not_there(people: People) -> None:
    """Nobody named them: they are found by the group, also by their main one."""
    subprocess.run(["mount", "-t", "tmpfs", "homes", "/opt"], check=True)
    try:
        for number, name in enumerate(("frank", "gina"), 2007):
            home = Path("/opt", name)
            home.mkdir(mode=0o755)
            (home / "diary").write_text("secret")
            os.chown(home, number, GROUP)
            add("passwd", f"{name}:x:{number}:{GROUP}::{home}:/bin/sh")
        frank = people.call("frank", "team-p")
        assert frank.run("pwd; cat diary; ls -A /opt/gina; echo $?") == "/opt/frank\nsecret0\n"
    finally:
        subprocess.run(["umount", "--lazy", "/opt"], check=True)


@pytest.mark.parametrize(
    ("users", "doubts"),
    [
        ('{names: "{cn}", groups: [compute]}', []),
        (
            "{names: {al: alice, bo: bob, ro: root}, groups: [compute]}",
            [
                "bo starts no job, as bob is in none of the groups compute: add it to one of them",
                "ro starts no job, as root is root: name another user, or say "
                "`jobs_run_as_root: true`",
            ],
        ),
    ],
)
def test_what_is_told_beforehand(server: Server, users: str, doubts: list[str]) -> None:
    text = (server.directory / "server.yaml").read_text()
    file = server.directory / "other.yaml"
    file.write_text(text.partition("jobs:\n")[0] + f"jobs: {{users: {users}}}\n")
    command = [JOBWORKER, "serve", "--check", "--config", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if "jobs.users" in line]
    assert [line.partition("jobs.users.names: ")[2] for line in told] == doubts
    assert done.returncode == 0
