"""JSON output: an object a line, on stdout and stderr, each as its schema in docs/json says."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from jobworker.authz.ca.requests import make_request
from tests.conftest import POLICY, USERS
from tests.support.server import JOBWORKER, Server, running_server

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = {
    path.name.removesuffix(".schema.json"): json.loads(path.read_text())
    for path in sorted((DOCS / "json").glob("*.schema.json"))
}
FAILED, USAGE, NO_SUCH_JOB = 1, 2, 3
Object = dict[str, Any]


def closed(schema: Any) -> Any:
    """The schema without the room that it leaves for fields of later versions."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(part) for name, part in schema.items()}
    return {"additionalProperties": False, **inner} if "properties" in inner else inner


CHECKS: dict[str, Callable[[Object], Object]] = {
    name: fastjsonschema.compile(closed(deepcopy(schema))) for name, schema in SCHEMAS.items()
}
seen: set[str] = set()


def checked(printed: bytes, schema: str) -> list[Object]:
    """The objects of the lines that a command has printed; each is as the schema says."""
    objects: list[Object] = [json.loads(line) for line in printed.splitlines()]
    for one in objects:
        CHECKS[schema](one)
    seen.add(schema)
    return objects


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # eve may start and stop, and see nothing.
    rules = "  - allow: start\n    to: cn:eve\n    jobs: '{ou}/{cn}'\n"
    policy = (
        POLICY.replace("to: cn:*\n", "to: ou:team-a\n") + rules + rules.replace("start", "stop")
    )
    users = (*USERS, ("eve", "team-e"))
    directory = tmp_path_factory.mktemp("server")
    with running_server(directory, users, policy, "audit: {directory: audit}\n") as running:
        yield running


def told(
    server: Server, schema: str, command: str, *words: str, user: str = "alice", code: int = 0
) -> list[Object]:
    """What a command prints with -o json; it ends with `code`."""
    done = server.run(user, *command.split(), "-o", "json", *words)
    assert done.returncode == code, done.stderr
    assert done.stderr == b""
    return checked(done.stdout, schema)


def test_a_job_has_one_form(server: Server) -> None:
    """`start` told {"id", "pid"}, `stop` {"job"}, `list` an array, `stats` the usage alone."""
    (started,) = told(server, "job", "start", "--cwd", "/", "--", "sleep", "1000")
    job = started["id"]
    forms = [
        started,
        *told(server, "job", "status", job),
        *told(server, "job", "list", "-n", "1"),
        *told(server, "job", "stats", job),
        *told(server, "job", "signal", "CONT", job),
        *told(server, "job", "stop", job),
        *told(server, "job", "rm", job),
    ]
    assert {form["id"] for form in forms} == {job}
    assert {frozenset(form) for form in forms} == {frozenset(SCHEMAS["job"]["properties"])}
    assert forms[-2]["state"] == "ended"
    assert told(server, "job", "list", "--owner", "nobody") == []


def test_several_jobs_are_lines(server: Server) -> None:
    started = [told(server, "job", "start", "--", "true")[0]["id"] for _ in range(2)]
    waited = told(server, "job", "wait", *started)
    assert [job["id"] for job in waited] == started
    listed = told(server, "job", "list", "-n", "2")
    assert [job["id"] for job in listed] == started[::-1]
    dry = told(server, "prune", "prune", "--dry-run")[0]
    done = told(server, "prune", "prune", "--force")[0]
    assert {job["id"] for job in done["jobs"]} == {job["id"] for job in dry["jobs"]}
    for job in dry["jobs"]:
        CHECKS["job"](job)


def test_schedules(server: Server) -> None:
    cron = ("--name", "yearly", "--cron", "0 0 1 1 *", "--tz", "Europe/Berlin")
    (added,) = told(server, "schedule", "schedule add", *cron, "--", "true")
    (listed,) = told(server, "schedule", "schedule list")
    assert listed == added
    assert (added["time_zone"], added["overlap"], added["last"]) == ("Europe/Berlin", "skip", None)
    assert added["command"] == ["true"]
    (paused,) = told(server, "schedule", "schedule pause", "yearly")
    assert (paused["paused"], paused["next"]) == (True, None)
    (ran,) = told(server, "schedule", "schedule run", "yearly")
    told(server, "job", "wait", str(ran["last_job"]))
    told(server, "schedule", "schedule remove", "yearly")
    assert told(server, "schedule", "schedule list") == []


def test_events(server: Server) -> None:
    (job,) = told(server, "job", "start --name told", "--", "true")
    told(server, "job", "wait", str(job["id"]))
    events = told(server, "event", "events", "--name", "told")
    assert {event["job"]["id"] for event in events} == {job["id"]}
    for event in events:
        CHECKS["job"](event["job"])


def test_services(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text("services:\n  svc: {command: sleep 1000}\n")
    (would,) = told(server, "applied", "apply", "-f", str(path), "--dry-run")
    assert (would["action"], would["job"], would["done"]) == ("started", None, False)
    (done,) = told(server, "applied", "apply", "-f", str(path))
    (known,) = told(server, "applied", "apply", "-f", str(path))
    assert (done["done"], known["action"], known["job"]) == (True, "unchanged", done["job"])
    told(server, "job", "stop --grace 0", "svc")


def test_who_may_see_no_job_is_told_its_id(server: Server) -> None:
    """What was done is told, also where nothing else may be."""
    (started,) = told(server, "job", "start", "--", "sleep", "1000", user="eve")
    assert set(started) == {"id", "pid"}
    assert told(server, "job", "stop", started["id"], user="eve") == [{"id": started["id"]}]


def test_output_has_job_stream_and_time(server: Server) -> None:
    script = "echo out; echo err >&2; exit 3"
    done = server.run("alice", "run", "-o", "json", "--", "sh", "-c", script)
    *pieces, job = map(json.loads, done.stdout.splitlines())
    CHECKS["job"](job)
    for piece in pieces:
        CHECKS["output"](piece)
    assert {piece["stream"] for piece in pieces} == {"stdout", "stderr"}
    assert {piece["job"] for piece in pieces} == {job["id"]}
    assert job["exit_code"] == done.returncode == 3
    assert told(server, "output", "logs", job["id"]) == pieces
    limit = ("--output-limit", "64K", "--output-overflow", "rotate")
    flood = server.ask("alice", "start", *limit, "--", "head", "-c", "1000000", "/dev/zero")
    server.end("alice", flood)
    gap = told(server, "output", "logs", flood)[0]
    assert set(gap) == {"job", "offset", "gap_bytes"}


def test_errors_are_objects(server: Server) -> None:
    """They were sentences, whatever was asked for."""
    job = server.ask("alice", "start", "--", "true")
    server.end("alice", job)
    for words, code, objects in (
        (["status", "-o", "json", "nonesuch"], NO_SUCH_JOB, 0),
        (["stop", "-o", "json", "nonesuch", "neither"], NO_SUCH_JOB, 0),
        (["status", "nonesuch", "-o", "json", "--cert", "/nonesuch"], USAGE, 0),
        (["wait", "-o", "json", job, "nonesuch"], NO_SUCH_JOB, 0),
        (["status", "-o", "json"], USAGE, 0),
        (["statsu", "-o", "json"], USAGE, 0),
        (["status", "--output=json", "--nonesuch"], USAGE, 0),
        (["list", "-o", "json", "-n", "x"], USAGE, 0),
    ):
        done = server.run("alice", *words)
        assert done.returncode == code, words
        assert len(done.stdout.splitlines()) == objects
        errors = checked(done.stderr, "error")
        assert errors, words
        assert {error["exit_code"] for error in errors} == {code}
    plain = server.run("alice", "status", "nonesuch")
    assert plain.stderr.startswith(b"jobworker: ")
    own = server.run("alice", "status", "nonesuch", "--", "-o", "json")
    assert own.stderr.startswith(b"Usage: ")


def test_messages_are_objects(server: Server) -> None:
    for _ in range(2):
        server.ask("alice", "start", "--", "true")
    done = server.run("alice", "list", "-n", "1", "-o", "json")
    (message,) = checked(done.stderr, "error")
    assert message["message"].startswith("these are the newest 1")


def test_what_one_is_and_may_do(server: Server) -> None:
    told(server, "whoami", "whoami")
    told(server, "can-i", "can-i start", "--", "true")
    told(server, "can-i", "can-i start", "--", "true", user="bob", code=FAILED)
    (rights,) = told(server, "rights", "can-i", "--list")
    assert rights["rights"]
    assert rights["allowances"]
    told(server, "version", "version")
    first = ("--dry-run", "--no-units", "--dir", "/nonesuch")
    (made,) = told(server, "init", "init", *first)
    assert made["settings"] == "/nonesuch/server.yaml"
    (mine,) = told(server, "renewed", "cert renew", "--within", "1s")
    assert (mine["renewed"], mine["key"]) == (False, str(server.users["alice"].key))


def test_the_audit_log(server: Server) -> None:
    server.run("bob", "start", "--", "true")
    log = str(server.directory / "audit")
    records = told(server, "audit-record", "audit tail", log, "-n", "1000")
    assert {record["event"]["kind"] for record in records} >= {"decision", "job"}
    assert told(server, "audit-record", "audit search", log)[: len(records)] == records
    told(server, "audit-verify", "audit verify", log)


def test_the_administrators(server: Server) -> None:
    config = str(server.directory / "server.yaml")
    job = server.ask("alice", "start", "--", "sleep", "1000")
    told(server, "admin-drain", "admin drain", "--config", config)
    assert told(server, "admin-usage", "admin usage", "--config", config)
    leaving = ("--config", config, "--revoked", "--dry-run", "eve")
    (plan,) = told(server, "offboard", "admin offboard", *leaving)
    assert (plan["user"], plan["dry_run"], plan["certificates"]) == ("eve", True, [])
    assert told(server, "job", "admin list", "--config", config)
    (stopped,) = told(server, "job", "admin stop", "--config", config, job)
    assert stopped["reason"] == "stopped"


def administrate(directory: Path, schema: str, *words: str, code: int = 0) -> list[Object]:
    done = subprocess.run(
        [JOBWORKER, *words, "-o", "json"], cwd=directory, capture_output=True, check=False
    )
    assert done.returncode == code, done.stderr
    return checked(done.stdout, schema)


def test_the_ca(tmp_path: Path) -> None:
    administrate(tmp_path, "ca", "ca", "init")
    administrate(tmp_path, "crl", "ca", "crl")
    administrate(tmp_path, "certificate", "ca", "issue", "--server", "localhost")
    administrate(tmp_path, "certificate", "ca", "issue", "--cn", "alice", "--ou", "team-a")
    administrate(tmp_path, "certificate", "ca", "renew", "alice")
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "a.csr").write_bytes(make_request(key, "alice", ["team-a"]))
    (asked,) = administrate(tmp_path, "request", "ca", "requests", "a.csr")
    assert (asked["cn"], asked["tenants"]) == ("alice", ["team-a"])
    administrate(tmp_path, "certificate", "ca", "sign", "--yes", "a.csr")
    assert len(administrate(tmp_path, "certificate", "ca", "list")) == 4
    assert len(administrate(tmp_path, "certificate", "ca", "revoke", "--cn", "alice")) == 3


def test_policies(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(POLICY)
    (tmp_path / "p.cases.yaml").write_text("- {who: cn=ann ou=audit, may: stop, job: a/b}\n")
    (tmp_path / "new.yaml").write_text(POLICY.replace("cn:ann", "cn:eve"))
    found = administrate(tmp_path, "policy-check", "policy", "check", "p.yaml", "new.yaml", code=1)
    assert [one["error"] is None for one in found] == [False, True]
    administrate(tmp_path, "policy-test", "policy", "test", "p.yaml", code=1)
    asked = ("policy", "explain", "new.yaml", "--as", "cn=ann ou=audit", "stop", "a/b")
    administrate(tmp_path, "policy-explain", *asked, code=1)
    assert administrate(tmp_path, "policy-diff", "policy", "diff", "p.yaml", "new.yaml", code=1)


def test_the_settings_and_their_contexts(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("ca: ca.crt\ncontexts: {lab: {server: lab}, home: {server: home, key: k}}\n")
    words = ("--config", str(file), "--context", "lab")
    (view,) = told(server, "config", "config view", *words)
    assert view["context"] == "lab"
    assert view["server"] == {"value": "lab", "source": f"{file}:2"}
    lab, home = told(server, "context", "config list", *words)
    assert (lab["name"], lab["in_use"], lab["ca"]) == ("lab", True, str(tmp_path / "ca.crt"))
    assert (home["in_use"], home["key"], home["cert"]) == (False, str(tmp_path / "k"), None)


def test_every_schema_is_told_of_and_has_been_seen() -> None:
    table = re.findall(r"\(json/([\w-]+)\.schema\.json\)", (DOCS / "json.md").read_text())
    assert sorted(set(table)) == sorted(SCHEMAS)
    for name, schema in SCHEMAS.items():
        assert schema["$id"] == f"{name}.schema.json"
    # By the tests above, which run first.
    assert seen == set(SCHEMAS)
