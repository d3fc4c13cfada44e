"""Enrolment: a user's own key, a request that an administrator signs, a server that knows it."""

import os
import subprocess
from pathlib import Path

import pexpect
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from jobworker.authz.ca.requests import fingerprint, make_request, read_request
from jobworker.authz.errors import CaError
from tests.conftest import POLICY
from tests.support.server import (
    DEADLINE_SECONDS,
    JOBS_AS_ROOT,
    JOBWORKER,
    PORT,
    leaving_no_process,
    own_address,
    serving,
)


def jobworker(home: Path, *words: str, code: int = 0) -> str:
    """Run the command with a home of its own; it ends with `code`. Returns what it printed."""
    done = subprocess.run(
        [JOBWORKER, *words],
        cwd=home,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def admin(tmp_path: Path) -> Path:
    """An administrator's home, with a CA."""
    home = tmp_path / "admin"
    home.mkdir()
    jobworker(home, "ca", "init")
    return home


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """A user's home, with nothing in it."""
    home = tmp_path / "laptop"
    home.mkdir()
    return home


def test_from_nothing_to_a_server_that_knows_one(admin: Path, laptop: Path) -> None:
    host = own_address()
    told = jobworker(laptop, "enroll", f"{host}:{PORT}", "--cn", "alice", "--ou", "team-a")
    own = laptop / ".config" / "jobworker"
    assert (own / f"{host}.key").stat().st_mode & 0o777 == 0o600
    (request,) = own.glob("*.csr")
    # By mail, say.
    (admin / "alice.csr").write_bytes(request.read_bytes())
    shown = jobworker(admin, "ca", "requests", "alice.csr")
    assert shown.startswith("alice.csr: cn=alice ou=team-a SHA256:")
    assert shown.split()[-1] in told
    signed = jobworker(admin, "ca", "sign", "alice.csr", "--yes")
    assert signed.startswith("alice.crt: ")
    assert signed.endswith("client alice ou=team-a\n")
    (own / f"{host}.crt").write_bytes((admin / "alice.crt").read_bytes())
    (own / "ca.crt").write_bytes((admin / "ca" / "ca.crt").read_bytes())

    jobworker(admin, "ca", "issue", "--server", host)
    (admin / "policy.yaml").write_text(POLICY)
    (admin / "server.yaml").write_text(
        f"state_dir: state\nlisten: {host}:{PORT}\npolicy: policy.yaml\n"
        f"tls: {{certificate: ca/{host}.crt, key: ca/{host}.key, ca: ca/ca.crt}}\n"
        + ("" if os.geteuid() else JOBS_AS_ROOT)
    )
    with leaving_no_process(), serving(admin / "server.yaml"):
        assert jobworker(laptop, "whoami").startswith("User:         alice\nTenants:      team-a\n")
        assert jobworker(laptop, "run", "--", "echo", "hello") == "hello\n"


def test_a_second_server_is_a_context(laptop: Path) -> None:
    jobworker(laptop, "enroll", "one.example.org", "--cn", "alice")
    told = jobworker(laptop, "enroll", "two.example.org", "--cn", "alice", "--ca", "/pki/ca.crt")
    assert "jobworker --context two.example.org whoami" in told
    view = jobworker(laptop, "--context", "two.example.org", "config", "view")
    own = laptop / ".config" / "jobworker"
    assert f"Key:      {own}/two.example.org.key" in view
    assert "CA:       /pki/ca.crt" in view
    assert f"Key:      {own}/one.example.org.key" in jobworker(laptop, "config", "view")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x:y", "--cn", "alice"), "the server 'x:y' (as given) is not HOST:PORT"),
        (("host", "--cn", "a b"), "the user 'a b' may only hold"),
        (("host", "--cn", "a", "--ou", "a/b"), "the tenant 'a/b' may only hold"),
        (("[::1]:1", "--cn", "a"), "'::1': a context's name has letters"),
        (("host",), "Missing option '--cn'"),
    ],
)
def test_a_bad_wish_makes_nothing(laptop: Path, words: tuple[str, ...], said: str) -> None:
    assert said in jobworker(laptop, "enroll", *words, code=2)
    assert list(laptop.iterdir()) == []


def test_what_is_there_stays(laptop: Path) -> None:
    jobworker(laptop, "enroll", "host", "--cn", "alice")
    own = laptop / ".config" / "jobworker"
    before = {file.name: file.read_bytes() for file in own.iterdir()}
    assert "host.key is there already" in jobworker(laptop, "enroll", "host", "--cn", "bob", code=1)
    (own / "config.yaml").write_text("serverr: x\n")
    before["config.yaml"] = b"serverr: x\n"
    words = ("enroll", "new", "--cn", "bob")
    assert "config.yaml:1: unknown key" in jobworker(laptop, *words, code=2)
    assert {file.name: file.read_bytes() for file in own.iterdir()} == before


def test_the_administrator_is_asked(admin: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (admin / "a.csr").write_bytes(make_request(key, "alice", ["root-team"]))
    told = jobworker(admin, "ca", "sign", "a.csr", code=2)
    assert "cn=alice ou=root-team" in told
    assert "say --yes" in told
    for answer, code in (("n", 1), ("y", 0)):
        child = pexpect.spawn(
            str(JOBWORKER),
            ["ca", "sign", "a.csr", "--ou", "team-a"],
            cwd=str(admin),
            env={"HOME": str(admin), "PATH": os.environ["PATH"]},
            timeout=DEADLINE_SECONDS,
        )
        child.expect_exact(f"cn=alice ou=team-a {fingerprint(key.public_key())}")
        child.expect_exact("Sign it? [y/N]")
        assert not (admin / "a.crt").exists()
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == code
    assert "client alice ou=team-a\n" in jobworker(admin, "ca", "list")


def test_a_request_is_signed_again(admin: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    (admin / "a.csr").write_bytes(make_request(key, "alice", ["team-a"]))
    jobworker(admin, "ca", "sign", "a.csr", "--yes")
    first = (admin / "a.crt").read_bytes()
    jobworker(admin, "ca", "sign", "a.csr", "--yes", "--days", "9")
    assert (admin / "a.crt").read_bytes() != first
    assert len(jobworker(admin, "ca", "list").splitlines()) == 2
    told = jobworker(admin, "ca", "sign", "a.csr", "--yes", "--out", "ca/ca.crt", code=2)
    assert "is the CA's own" in told


def test_a_request_of_openssl_does(admin: Path) -> None:
    options = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /OU=team-a/CN=alice"
    subprocess.run(
        ["openssl", "req", "-new", *options.split(), "-keyout", "k.pem", "-out", "a.csr"],
        cwd=admin,
        check=True,
        capture_output=True,
    )
    assert "cn=alice ou=team-a" in jobworker(admin, "ca", "requests", "a.csr")
    jobworker(admin, "ca", "sign", "a.csr", "--yes")
    verified = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "ca/ca.crt", "a.crt"],
        cwd=admin,
        check=True,
        capture_output=True,
        text=True,
    )
    assert verified.stdout == "a.crt: OK\n"


def test_what_is_no_request_is_refused(admin: Path) -> None:
    good = make_request(ec.generate_private_key(ec.SECP256R1()), "alice", ["team-a"])
    lines = good.splitlines(keepends=True)
    forged = [*lines[:-2], lines[-2].swapcase(), *lines[-1:]]
    for content in (b"", b"nonsense", good[: len(good) // 2], b"x" * 100_000, b"".join(forged)):
        (admin / "a.csr").write_bytes(content)
        assert jobworker(admin, "ca", "sign", "a.csr", "--yes", code=2).startswith(
            "jobworker: a.csr: "
        )
    assert jobworker(admin, "ca", "list") == ""
    assert not (admin / "a.crt").exists()
    assert "cannot read" in jobworker(admin, "ca", "sign", "none.csr", "--yes", code=2)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
    ],
    ids=["rsa-1024", "ed25519", "p521"],
)
def test_a_key_that_servers_or_clients_do_not_take_is_refused(key: object) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    request = builder.sign(key, algorithm)  # type: ignore[arg-type]
    with pytest.raises(CaError, match="of a kind that is not taken"):
        read_request(request.public_bytes(Encoding.PEM))
