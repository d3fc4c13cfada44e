"""`jobworker admin offboard`: certificates, jobs and schedules of somebody who leaves."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from jobworker.authz.ca.authority import CertificateAuthority, Terms
from jobworker.authz.ca.lists import put_list
from jobworker.authz.errors import CaError
from tests.cli.test_cli_json import CHECKS
from tests.front.admin.test_admin import audited
from tests.support.pki import Authority, Issued
from tests.support.server import (
    DEADLINE_SECONDS,
    JOBS_AS_ROOT,
    JOBWORKER,
    Server,
    own_address,
    serving,
)

POLICY = """\
rules:
  - {allow: "*", to: "cn:*", jobs: "{ou}/{cn}"}
  - {deny: start, to: "cn:bob", jobs: "*/*", command: /bin/nonesuch}
"""
USERS = ("alice", "bob", "carol", "dave", "erin", "fay")
FAILED, USAGE, NO_SUCH_JOB, REFUSED, UNREACHABLE = 1, 2, 3, 4, 5
TERMS = Terms(timedelta(days=30))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of which the CA is one of job-worker's own, in `ca`; its list is copied to it."""
    directory = tmp_path_factory.mktemp("server")
    host = own_address()
    ca = CertificateAuthority(directory / "ca")
    ca.create("own", "p256", timedelta(days=30))
    own = ca.issue_server([host], TERMS)
    users = {name: ca.issue_client(name, ["team"], TERMS) for name in USERS}
    (directory / "server.crl").write_bytes(ca.revocations.read_bytes())
    (directory / "policy.yaml").write_text(POLICY)
    (directory / "server.yaml").write_text(
        f"state_dir: state\nlisten: {host}:50051\npolicy: policy.yaml\n"
        f"audit: {{directory: audit}}\ntls:\n  certificate: {own.certificate}\n"
        f"  key: {own.key}\n  ca: {ca.certificate}\n  crl: server.crl\n"
        + ("" if os.geteuid() else JOBS_AS_ROOT)
    )
    issued = {
        name: Issued(one.certificate, one.key, int(one.entry.serial, 16))
        for name, one in users.items()
    }
    with serving(directory / "server.yaml") as (process, log):
        authority = Authority.__new__(Authority)
        authority.certificate = ca.certificate
        yield Server(directory, host, authority, issued, process, log)


def offboard(
    server: Server, user: str, *words: str, code: int = 0, ca: bool = True, by: str = "alice"
) -> str:
    """What the command prints, on stderr if it fails."""
    where = ("--dir", str(server.directory / "ca")) if ca else ()
    config = ("--config", str(server.directory / "server.yaml"))
    done = server.run(by, "admin", "offboard", user, *where, *config, *words)
    assert done.returncode == code, done.stderr.decode() + done.stdout.decode()
    return (done.stderr if code else done.stdout).decode()


def as_json(server: Server, user: str, *words: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(offboard(server, user, *words, "-o", "json"))
    CHECKS["offboard"](told)
    return told


def serial(server: Server, user: str) -> str:
    return format(server.users[user].serial, "x")


def start(server: Server, user: str, *words: str) -> str:
    return server.ask(user, "start", "--cwd", "/", "--", *(words or ("sleep", "1000")))


def cron(server: Server, user: str) -> None:
    server.ask(
        user, "schedule", "add", "--name", "yearly", "--cron", "0 0 1 1 *", "--", "/bin/true"
    )


def test_who_leaves_is_refused_and_nothing_of_theirs_goes_on(served: Server) -> None:
    jobs = [start(served, "bob") for _ in range(2)]
    ended = start(served, "bob", "echo", "kept")
    served.end("bob", ended)
    cron(served, "bob")
    others = start(served, "alice")

    plan = as_json(served, "bob", "--dry-run")
    assert plan == {
        "user": "bob",
        "dry_run": True,
        "certificates": [serial(served, "bob")],
        "stopped": jobs[::-1],
        "removed": [],
        "schedules": ["yearly"],
        "policy": [f"{served.directory / 'policy.yaml'}:3"],
    }
    assert server_sees(served, "bob", jobs[0])["state"] == "running"

    done = as_json(served, "bob", "--yes")
    assert sorted(done["stopped"]) == sorted(jobs)  # type: ignore[call-overload]
    assert done | {"stopped": jobs[::-1], "dry_run": True} == plan
    refused = served.run("bob", "list")
    assert refused.returncode == REFUSED
    assert b"revoked" in refused.stderr
    listed = [json.loads(line) for line in listing(served, "bob")]
    assert {job["id"]: job["state"] for job in listed} == dict.fromkeys([*jobs, ended], "ended")
    assert server_sees(served, "alice", others)["state"] == "running"
    assert audited(served, "admin offboard?")[0]["command"] == "bob"
    assert audited(served, "admin offboard")[0]["command"] == "bob: 1 certificates revoked"
    assert {event["job"] for event in audited(served, "admin stop")} == set(jobs)

    again = as_json(served, "bob", "--yes")
    assert again == plan | {
        "dry_run": False,
        "certificates": [],
        "stopped": [],
        "schedules": [],
    }
    served.ask("alice", "stop", others)


def listing(server: Server, owner: str) -> list[str]:
    config = ("--config", str(server.directory / "server.yaml"))
    return server.ask(
        "alice", "admin", "list", *config, "--owner", owner, "-o", "json"
    ).splitlines()


def server_sees(server: Server, user: str, job: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(server.ask(user, "status", "-o", "json", job))
    return told


def test_remove_leaves_nothing(served: Server) -> None:
    going, ended = start(served, "carol"), start(served, "carol", "true")
    served.end("carol", ended)
    cron(served, "carol")
    told = offboard(served, "carol", "--remove", "--yes").splitlines()
    assert [line.partition(":")[2].partition(":")[0] for line in told] == [
        " 1 certificates revoked",
        " 1 schedules removed",
        " 1 jobs stopped",
        " 2 jobs removed, with their output",
    ]
    assert listing(served, "carol") == []
    for job in (going, ended):
        assert not (served.directory / "state" / "output" / job).exists()
    assert {event["job"] for event in audited(served, "admin remove")} == {going, ended}
    assert offboard(served, "carol", "--remove", "--yes") == "carol: there is nothing left to do\n"


def test_one_whose_certificates_were_revoked_elsewhere(served: Server) -> None:
    job = start(served, "dave")
    CertificateAuthority(served.directory / "ca").revoke_user("dave")
    CertificateAuthority(served.directory / "ca").publish(served.directory / "server.crl")
    told = offboard(served, "dave", "--revoked", "--yes", ca=False)
    assert told == f"dave: 1 jobs stopped: {job}\n"
    assert served.run("dave", "whoami").returncode == REFUSED


def test_what_is_refused(served: Server, tmp_path: Path) -> None:
    assert "you are alice yourself" in offboard(served, "alice", "--yes", code=FAILED)
    assert "nobody is called eev here" in offboard(served, "eev", "--yes", code=FAILED)
    assert "say --yes" in offboard(served, "erin", code=USAGE)
    assert "say where the CA is" in offboard(served, "erin", "--yes", ca=False, code=USAGE)
    assert "either --dir or --revoked" in offboard(served, "erin", "--revoked", code=USAGE)
    assert "the user 'a b'" in offboard(served, "a b", "--yes", code=USAGE)
    other = CertificateAuthority(tmp_path / "other")
    other.create("another", "p256", timedelta(days=30))
    wrong = ("--dir", str(tmp_path / "other"), "--yes")
    assert "is not one of those that the server trusts" in offboard(
        served, "erin", *wrong, ca=False, code=USAGE
    )
    # A server of that name is nobody who can leave.
    host = served.host
    assert f"nobody is called {host} here" in offboard(served, host, "--yes", code=FAILED)
    assert served.run("erin", "whoami").returncode == 0


def test_what_goes_wrong_changes_nothing(served: Server, tmp_path: Path) -> None:
    """The server is asked before anything is revoked."""
    config = (served.directory / "server.yaml").read_text()
    elsewhere = tmp_path / "server.yaml"
    words = [JOBWORKER, "admin", "offboard", "fay", "--yes", "--dir", served.directory / "ca"]
    for changed, code, said in (
        ("state_dir: nonesuch", UNREACHABLE, "no server answers"),
        ("crl: null", USAGE, "tls.crl is null"),
    ):
        key = changed.partition(":")[0]
        lines = [
            f"{line[: len(line) - len(line.lstrip())]}{changed}"
            if line.strip().startswith(f"{key}:")
            else line
            for line in config.splitlines()
        ]
        elsewhere.write_text("\n".join(lines) + "\n")
        done = subprocess.run(
            [*words, "--config", elsewhere],
            env={},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert said in done.stderr
    assert served.run("fay", "whoami").returncode == 0


def test_a_list_takes_the_place_of_its_ca_s_own(tmp_path: Path) -> None:
    one, other = (CertificateAuthority(tmp_path / name) for name in ("one", "other"))
    for ca in (one, other):
        ca.create(ca.directory.name, "p256", timedelta(days=30))
    bundle = tmp_path / "all.crl"
    put_list(one.revocations, bundle)
    put_list(other.revocations, bundle)
    issued = one.issue_client("bob", [], TERMS)
    one.revoke_user("bob")
    put_list(one.revocations, bundle)
    texts = bundle.read_text().split("-----END X509 CRL-----\n")
    assert texts.pop() == ""
    lists = [x509.load_pem_x509_crl(f"{text}-----END X509 CRL-----\n".encode()) for text in texts]
    assert {found.issuer.rfc4514_string(): len(list(found)) for found in lists} == {
        "CN=other": 0,
        "CN=one": 1,
    }
    assert lists[1].get_revoked_certificate_by_serial_number(int(issued.entry.serial, 16))
    bundle.write_text("-----END X509 CRL-----")
    with pytest.raises(CaError, match="is no file of revocation lists"):
        put_list(one.revocations, bundle)
