"""Files of services: what is wrong in one is told before anything is done; what runs, as a file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import POLICY, USERS
from tests.support.server import Server, running_server

DENIED = "  - {deny: start, to: 'cn:*', jobs: '*/*', command: /bin/false}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("apply"), USERS, POLICY + DENIED) as up:
        yield up


def applied(server: Server, path: Path, text: str, *words: str) -> dict[str, str]:
    path.write_text(text)
    told = server.ask("alice", "apply", "-f", str(path), "-o", "json", *words)
    return {one["service"]: one["action"] for one in map(json.loads, told.splitlines())}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "services.yaml has no services"),
        ("services: [", "services.yaml:1: not YAML"),
        ("service: {}\n", "services.yaml:1: 'service' is no key of the file"),
        ("set: a\n", "there are no services"),
        ("services:\n  - a\n", "services.yaml:2: services must be a mapping"),
        ("services:\n  one: {}\n", "services.yaml:2: service one has no command"),
        (
            "services:\n  one: {command: x}\n  one: {command: y}\n",
            "services.yaml:3: 'one' is there twice",
        ),
        (
            "services:\n  one:\n    command: x\n    memry: 1G\n",
            "services.yaml:4: service one: 'memry' is no option of `jobworker start`",
        ),
        (
            "services:\n  one:\n    command: x\n    tty: true\n",
            "services.yaml:4: service one: 'tty' is nothing that a file can say",
        ),
        (
            "services:\n  one:\n    command: x\n    memory: much\n",
            "services.yaml:2: service one: Invalid value for '--memory'",
        ),
        (
            "services:\n  one: {command: x, persist: often}\n",
            "service one: persist must be true or false",
        ),
        (
            "services:\n  one: {command: x, memory: [1, 2]}\n",
            "service one: memory must have one value",
        ),
        (
            "services:\n  one: {command: x, after: two}\n  two: {command: x, after: [one]}\n",
            "these come after each other: one after two after one",
        ),
        (
            "services:\n  one: {command: x, after: two, on: ever}\n  two: {command: x}\n",
            "service one: 'ever' is none of ok, any, fail and ready",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    server: Server, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(text)
    done = server.run("alice", "apply", "-f", str(path))
    assert (done.returncode, done.stdout) == (1, b"")
    assert words in done.stderr.decode()


def test_nothing_is_done_where_something_may_not_be(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    first = "set: careful\nservices:\n  first: {command: sleep 1000}\n"
    assert applied(server, path, first) == {"first": "started"}
    job = json.loads(server.ask("alice", "status", "-o", "json", "first"))["id"]
    path.write_text(first.replace("1000", "2000") + "  zz: {command: /bin/false}\n")
    done = server.run("alice", "apply", "-f", str(path))
    assert done.returncode == 1
    assert "service zz: start refused to cn=alice" in done.stderr.decode()
    assert "nothing has been changed" in done.stderr.decode()
    told = json.loads(server.ask("alice", "status", "-o", "json", "first"))
    assert (told["id"], told["state"]) == (job, "running")
    server.ask("alice", "stop", "first")


def test_sets_leave_each_other_alone(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    one = "set: one\nservices:\n  here: {command: sleep 1000}\n"
    other = "set: other\nservices:\n  there: {command: sleep 1000}\n"
    assert applied(server, path, one) == {"here": "started"}
    assert applied(server, path, other, "--prune") == {"there": "started"}
    assert applied(server, path, one, "--prune") == {"here": "unchanged"}
    # A name is one job's, of whatever set.
    taken = server.run("alice", "apply", "-f", str(path))
    path.write_text(other.replace("there", "here"))
    taken = server.run("alice", "apply", "-f", str(path))
    assert taken.returncode == 1
    assert b"has the name here and has not ended" in taken.stderr
    # Of bob's nobody else has a say.
    assert server.run("bob", "apply", "-f", str(path)).returncode == 0
    for user in ("alice", "bob"):
        server.ask(user, "stop", "--grace", "0", "--mine")


def test_what_is_changed_is_told(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    text = "services:\n  svc:\n    command: sleep 1000\n    grace: 5s\n    label: {a: b}\n"
    applied(server, path, text)
    changes = {
        "command": text.replace("1000", "1001"),
        "graceSeconds": text.replace("5s", "6s"),
        "label": text.replace("a: b", "a: c"),
        "restart": text + "    restart: on-failure\n",
        "env": text + "    env: {A: b}\n",
    }
    for change, new in changes.items():
        path.write_text(new)
        told = server.ask("alice", "apply", "-f", str(path), "--dry-run")
        assert told == f"svc: would be replaced ({change})"
    server.ask("alice", "stop", "--grace", "0", "svc")


def test_waiting_for_what_is_never_ready(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text("services:\n  svc: {command: sh -c 'exit 1', restart: 'no', health-port: 1}\n")
    done = server.run("alice", "apply", "-f", str(path), "--wait")
    assert done.returncode == 1
    assert b"service svc is not ready: exited with 1" in done.stderr
    path.write_text("services:\n  svc: {command: sleep 1000, health-port: 1}\n")
    done = server.run("alice", "apply", "-f", str(path), "--wait=500ms")
    assert b"not ready within 0.5 s: svc" in done.stderr
    server.ask("alice", "stop", "--grace", "0", "svc")


def test_what_runs_as_a_file_is_what_runs(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    options = (
        *("--name", "exported", "--cwd", "/", "--grace", "3s", "--timeout", "1h", "--login"),
        *("--restart", "on-failure", "--restart-delay", "2s", "--no-restart-on", "7"),
        *("--health-port", "9", "--open-files", "64", "--stop-signal", "INT", "--label", "a=b"),
        *("--output-limit", "1M", "--queue", "--priority", "3"),
    )
    server.ask("alice", "start", *options, "--", "sleep", "1000")
    told = server.ask("alice", "export", "exported")
    assert told.startswith("# The variables of jobs are told to nobody")
    before = json.loads(server.ask("alice", "status", "-o", "json", "exported"))
    server.ask("alice", "stop", "exported")
    assert list(yaml.safe_load(told)["services"]) == ["exported"]
    assert applied(server, path, told + "\n") == {"exported": "started"}
    after = json.loads(server.ask("alice", "status", "-o", "json", "exported"))
    own = ("id", "pid", "created_at", "usage", "ready", "output_bytes", "labels", "state")
    assert {k: v for k, v in after.items() if k not in own} == {
        k: v for k, v in before.items() if k not in own
    }
    assert after["labels"]["a"] == "b"
    # And once more it is the same.
    again = server.ask("alice", "export", "exported")
    assert again == told
    server.ask("alice", "stop", "--grace", "0", "exported")
