"""`jobworker cert renew` and `ca signer`: new certificates over the live connection."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from jobworker.authz.ca.authority import CertificateAuthority, Terms
from jobworker.proto import workerservice_pb2 as pb
from tests.cli.test_cli_json import CHECKS
from tests.front.admin.test_admin import audited
from tests.support.client import calling
from tests.support.pki import Authority, Issued
from tests.support.server import (
    DEADLINE_SECONDS,
    JOBS_AS_ROOT,
    JOBWORKER,
    Server,
    own_address,
    serving,
)
from tests.support.waiting import until

POLICY = """\
rules:
  - {allow: "*", to: "cn:*", jobs: "{ou}/{cn}"}
  - {deny: renew, to: "cn:bob", jobs: "*/*"}
"""
USERS = ("alice", "bob", "carol", "dave", "erin")
FAILED, USAGE, REFUSED = 1, 2, 4
WEEK = Terms(timedelta(days=7))


@contextmanager
def served(directory: Path, renewal: str) -> Iterator[Server]:
    """A server whose users' certificates last a week, issued by the CA in `ca`."""
    host = own_address()
    ca = CertificateAuthority(directory / "ca")
    ca.create("own", "p256", timedelta(days=365))
    own = ca.issue_server([host], WEEK)
    issued = {}
    for name in USERS:
        (directory / name).mkdir()
        terms = Terms(WEEK.lifetime, directory=directory / name)
        one = ca.issue_client(name, ["team", "other"], terms)
        issued[name] = Issued(one.certificate, one.key, int(one.entry.serial, 16))
    (directory / "policy.yaml").write_text(POLICY)
    (directory / "server.yaml").write_text(
        f"state_dir: state\nlisten: {host}:50051\npolicy: policy.yaml\n"
        f"audit: {{directory: audit}}\ntls:\n  certificate: {own.certificate}\n"
        f"  key: {own.key}\n  ca: {ca.certificate}\n  renewal: {renewal}\n"
        + ("" if os.geteuid() else JOBS_AS_ROOT)
    )
    authority = Authority.__new__(Authority)
    authority.certificate = ca.certificate
    with serving(directory / "server.yaml") as (process, log):
        yield Server(directory, host, authority, issued, process, log)


@contextmanager
def signing(directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run `jobworker ca signer` on the CA in `ca`."""
    words = ["--dir", directory / "ca", "--socket", directory / "signer", "--days", "90"]
    with subprocess.Popen(
        ["env", "--default-signal=INT,TERM", JOBWORKER, "ca", "signer", *words],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert "renewing certificates of" in process.stderr.readline()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    with served(directory, "signer") as running, signing(directory):
        yield running


def renew(server: Server, user: str, *words: str, code: int = 0) -> str:
    done = server.run(user, "cert", "renew", *words)
    assert done.returncode == code, done.stderr.decode()
    return (done.stderr if code else done.stdout).decode()


def certificate(server: Server, user: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(server.users[user].certificate.read_bytes())


def test_a_new_key_and_certificate_take_the_place_of_the_old(server: Server) -> None:
    mine = server.users["alice"]
    key_before, before = mine.key.read_bytes(), certificate(server, "alice")
    (told,) = map(json.loads, renew(server, "alice", "-o", "json").splitlines())
    CHECKS["renewed"](told)
    after = certificate(server, "alice")
    assert (told["renewed"], told["serial"]) == (True, format(after.serial_number, "x"))
    assert after.subject == before.subject
    assert after.serial_number != before.serial_number
    assert after.not_valid_after_utc > datetime.now(UTC) + timedelta(days=89)
    assert mine.key.read_bytes() != key_before
    assert mine.key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in mine.key.parent.iterdir()) == ["alice.crt", "alice.key"]
    me = json.loads(server.ask("alice", "whoami", "-o", "json"))
    assert (me["common_name"], me["serial"]) == ("alice", told["serial"])
    recorded = audited(server, "renew")
    assert [(one["cn"], one["tenant"], one["allowed"]) for one in recorded[:2]] == [
        ("alice", "team", True),
        ("alice", "other", True),
    ]


def test_what_follows_goes_on_with_the_new_files(server: Server) -> None:
    """Also when the old certificate is taken back meanwhile."""
    ca = CertificateAuthority(server.directory / "ca")
    gate = server.directory / "gate"
    os.mkfifo(gate)
    words = ("--cwd", "/", "--", "sh", "-c", f"echo one; read line < {gate}; echo $line")
    job = server.ask("carol", "start", *words)
    before = format(certificate(server, "carol").serial_number, "x")
    with server.popen("carol", "logs", "-f", job) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"one\n"
        renew(server, "carol")
        ca.revoke_serial(before)
        until(lambda: any("connections ended: 1" in line for line in server.log))
        gate.write_text("two\n")
        assert follower.stdout.read() == b"two\n"
        assert follower.wait(DEADLINE_SECONDS) == 0


def test_within_renews_only_what_ends_soon(server: Server) -> None:
    before = certificate(server, "dave")
    assert "stays as it is" in renew(server, "dave", "--within", "3d")
    assert certificate(server, "dave") == before
    assert "is renewed" in renew(server, "dave", "--within", "8d")
    assert certificate(server, "dave") != before


def test_who_may_not_is_refused(server: Server) -> None:
    before = server.users["bob"].key.read_bytes()
    assert "renew refused to cn=bob" in renew(server, "bob", code=REFUSED)
    assert server.users["bob"].key.read_bytes() == before


def test_a_renewal_that_was_cut_off_is_finished(server: Server) -> None:
    """The key was in place, and its certificate was not yet: nothing could connect."""
    mine = server.users["erin"]
    old = mine.certificate.read_bytes()
    renew(server, "erin")
    mine.certificate.with_name("erin.crt.new").write_bytes(mine.certificate.read_bytes())
    mine.certificate.write_bytes(old)
    assert server.run("erin", "whoami").returncode != 0
    assert "stays as it is" in renew(server, "erin", "--within", "8d")
    assert server.run("erin", "whoami").returncode == 0
    assert not mine.certificate.with_name("erin.crt.new").exists()


def test_a_connection_renews_its_own_certificate_alone(server: Server) -> None:
    asked = pb.RenewCertificateRequest(
        request=b"x", certificate=server.users["bob"].certificate.read_bytes(), proof=b"x"
    )
    with calling(server, "dave") as worker, pytest.raises(grpc.RpcError) as raised:
        worker.RenewCertificate(asked)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not the one that this connection was made with" in str(raised.value.details())


def test_a_server_that_renews_nothing_says_so(tmp_path: Path) -> None:
    with served(tmp_path, "''") as server:
        said = renew(server, "alice", code=FAILED)
        assert "this server renews no certificates" in said
        assert "tls.renewal" in said


def test_without_its_signer_nothing_is_renewed_until_it_is_back(tmp_path: Path) -> None:
    with served(tmp_path, "signer") as server:
        assert "does not answer" in renew(server, "alice", code=FAILED)
        assert any("no certificate is renewed" in line for line in server.log)
        with signing(tmp_path) as process:
            renew(server, "alice")
            assert process.stderr is not None
            assert "renewed cn=alice ou=team ou=other: " in process.stderr.readline()
        assert "does not answer" in renew(server, "alice", code=FAILED)


def test_a_check_says_whether_there_is_a_signer(tmp_path: Path) -> None:
    with served(tmp_path, "signer"):
        pass

    def doubts() -> str:
        words = [JOBWORKER, "serve", "--check", "--config", tmp_path / "server.yaml"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    doubt = re.compile(
        r"server\.yaml:\d+:\d+: .*: no certificate is renewed until `jobworker ca sig"
    )
    assert doubt.search(doubts())
    with signing(tmp_path):
        assert not doubt.search(doubts())


def test_a_signer_s_socket_is_one_users_and_one_signers(tmp_path: Path) -> None:
    CertificateAuthority(tmp_path / "ca").create("own", "p256", timedelta(days=365))
    words = ["--dir", tmp_path / "ca", "--socket", tmp_path / "signer"]

    def refused(*more: object) -> str:
        done = subprocess.run(
            [JOBWORKER, "ca", "signer", *more], capture_output=True, text=True, check=False
        )
        assert done.returncode in {FAILED, USAGE}
        return done.stderr

    with signing(tmp_path):
        assert (tmp_path / "signer").stat().st_mode & 0o777 == 0o600
        assert "another signer listens" in refused(*words)
    assert "there is no user nonesuch" in refused(*words, "--user", "nonesuch")
    assert "there is no CA in" in refused("--dir", tmp_path, "--socket", tmp_path / "signer")
    assert "cannot listen at" in refused(*words[:2], "--socket", tmp_path / "none" / "signer")
