"""The CA: what it issues, what it keeps, and what a crash or a second process does to it."""

import multiprocessing
import os
import signal
import stat
import subprocess
import time
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from jobworker.authz.ca import authority as ca_module
from jobworker.authz.ca.authority import CertificateAuthority, Issued, Terms
from jobworker.authz.errors import CaError
from jobworker.authz.identity import IdentityError, identity_from_der

YEAR = Terms(timedelta(days=365))
DEADLINE_SECONDS = 60


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path / "ca")
    made.create("test CA", "p256", timedelta(days=3650))
    return made


def loaded(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def openssl_verify(authority: CertificateAuthority, issued: Issued, *options: str) -> str:
    """What openssl(1) says of the certificate, with the CA's list of revocations."""
    done = subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-CAfile", authority.certificate),
            *("-crl_check", "-CRLfile", authority.revocations, *options, issued.certificate),
        ],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return "OK" if done.returncode == 0 else done.stderr


def test_a_users_certificate_is_an_identity(authority: CertificateAuthority) -> None:
    issued = authority.issue_client("alice", ["team-a", "team-b"], YEAR)
    certificate = loaded(issued.certificate)
    identity = identity_from_der(certificate.public_bytes(Encoding.DER))
    assert str(identity) == "cn=alice ou=team-a,team-b"
    assert identity.serial == issued.entry.serial == format(certificate.serial_number, "x")
    assert identity.not_after == issued.entry.not_after
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert openssl_verify(authority, issued, "-purpose", "sslclient") == "OK"
    assert "unsuitable certificate purpose" in openssl_verify(
        authority, issued, "-purpose", "sslserver"
    )


def test_a_servers_certificate_names_its_hosts_and_is_nobodys(
    authority: CertificateAuthority,
) -> None:
    issued = authority.issue_server(["jobs.example.org", "10.0.0.7", "::1"], YEAR)
    certificate = loaded(issued.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["jobs.example.org"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "::1"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    with pytest.raises(IdentityError, match="not for clients"):
        identity_from_der(certificate.public_bytes(Encoding.DER))
    assert openssl_verify(authority, issued, "-verify_hostname", "jobs.example.org") == "OK"
    assert openssl_verify(authority, issued, "-verify_ip", "10.0.0.7") == "OK"
    assert openssl_verify(authority, issued, "-verify_hostname", "other.example.org") != "OK"


def test_a_long_host_name_goes_without_a_cn(authority: CertificateAuthority) -> None:
    host = ".".join(["a" * 50] * 3)
    issued = authority.issue_server([host], YEAR)
    assert list(loaded(issued.certificate).subject) == []
    assert openssl_verify(authority, issued, "-verify_hostname", host) == "OK"


@pytest.mark.parametrize(
    ("key_type", "kind"),
    [("p256", ec.EllipticCurvePrivateKey), ("ed25519", ed25519.Ed25519PrivateKey)],
)
def test_keys_are_of_the_type_asked_for(
    tmp_path: Path, key_type: ca_module.KeyType, kind: type[object]
) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    authority.create("test CA", key_type, timedelta(days=10))
    issued = authority.issue_client("alice", [], Terms(timedelta(days=1), key_type))
    key = load_pem_private_key(issued.key.read_bytes(), None)
    assert isinstance(key, kind)
    assert key.public_key() == loaded(issued.certificate).public_key()
    assert openssl_verify(authority, issued) == "OK"


def test_keys_are_their_owners_alone_also_under_a_wide_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        authority = CertificateAuthority(tmp_path / "ca")
        authority.create("test CA", "p256", timedelta(days=10))
        issued = authority.issue_client("alice", [], YEAR)
    finally:
        os.umask(before)
    assert mode(authority.directory) == 0o700
    assert mode(authority.directory / "ca.key") == mode(issued.key) == 0o600
    assert mode(authority.directory / "index.json") == 0o600
    assert mode(authority.certificate) == mode(issued.certificate) == 0o644
    assert mode(authority.revocations) == 0o644


def test_a_directory_open_to_others_gets_no_ca(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir(mode=0o755)
    with pytest.raises(CaError, match=r"open to other users \(mode 755\).*chmod 700"):
        CertificateAuthority(tmp_path / "ca").create("test CA", "p256", timedelta(days=10))
    assert list((tmp_path / "ca").iterdir()) == []


def test_a_certificate_ends_with_its_ca_at_the_latest(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    authority.create("test CA", "p256", timedelta(days=10))
    issued = authority.issue_client("alice", [], YEAR)
    assert issued.entry.not_after == loaded(authority.certificate).not_valid_after_utc
    # For hosts whose clocks are behind.
    assert issued.entry.not_before < datetime.now(UTC) - timedelta(minutes=4)


def test_an_expired_ca_issues_nothing(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    authority.create("test CA", "p256", timedelta(seconds=-1))
    with pytest.raises(CaError, match="has expired; make a new one"):
        authority.issue_client("alice", [], YEAR)


def test_there_is_one_ca_in_a_directory(authority: CertificateAuthority) -> None:
    before = (authority.directory / "ca.key").read_bytes()
    with pytest.raises(CaError, match=r"there is a CA in .* already"):
        authority.create("another", "p256", timedelta(days=1))
    assert (authority.directory / "ca.key").read_bytes() == before


def test_without_a_ca_nothing_is_issued(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        authority = CertificateAuthority(directory)
        with pytest.raises(CaError, match=r"there is no CA in|cannot use"):
            authority.issue_client("alice", [], YEAR)


@pytest.mark.parametrize("name", ["", "a b", "../alice", "al*", "x" * 65, "\u0430lice", "a\n"])
def test_names_that_no_server_would_take_are_not_issued(
    authority: CertificateAuthority, name: str
) -> None:
    with pytest.raises(CaError, match=r"^the name "):
        authority.issue_client(name, [], YEAR)
    with pytest.raises(CaError, match=r"^the tenant "):
        authority.issue_client("alice", [name], YEAR)
    assert authority.entries() == ()


@pytest.mark.parametrize(
    "host", ["", "a b", "*.example.org", "-a", "a..b", "300.1.1.1", "fe80::1%eth0", "x" * 64, "a/b"]
)
def test_what_is_no_host_is_not_issued(authority: CertificateAuthority, host: str) -> None:
    with pytest.raises(CaError, match="is no DNS name or IP address"):
        authority.issue_server(["localhost", host], YEAR)
    assert authority.entries() == ()


def test_nothing_that_is_there_is_overwritten(authority: CertificateAuthority) -> None:
    first = authority.issue_client("alice", [], YEAR)
    before = first.key.read_bytes()
    with pytest.raises(CaError, match=r"alice\.crt is there already; `jobworker ca renew alice`"):
        authority.issue_client("alice", ["team-a"], YEAR)
    assert first.key.read_bytes() == before
    own = authority.certificate.read_bytes()
    with pytest.raises(CaError, match="is the CA's own"):
        authority.issue_client("ca", [], YEAR)
    assert authority.certificate.read_bytes() == own
    assert [entry.name for entry in authority.entries()] == ["alice"]


def test_another_directory_may_take_the_files(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    issued = authority.issue_client("ca", [], Terms(timedelta(days=1), "p256", tmp_path))
    assert (issued.certificate, issued.key) == (tmp_path / "ca.crt", tmp_path / "ca.key")
    assert mode(issued.key) == 0o600


def test_a_revoked_certificate_is_on_the_list(authority: CertificateAuthority) -> None:
    alice = authority.issue_client("alice", [], YEAR)
    bob = authority.issue_client("bob", [], YEAR)
    (entry,) = authority.revoke_serial(alice.entry.serial)
    assert entry.name == "alice"
    assert entry.revoked_at is not None
    assert "revoked" in openssl_verify(authority, alice)
    assert openssl_verify(authority, bob) == "OK"
    now = datetime.now(UTC)
    assert [entry.state(now) for entry in authority.entries()] == ["revoked", "valid"]
    assert authority.revoke_serial(alice.entry.serial) == []


def test_serial_numbers_are_found_as_openssl_writes_them(authority: CertificateAuthority) -> None:
    serial = authority.issue_client("alice", [], YEAR).entry.serial
    padded = serial.zfill(len(serial) + len(serial) % 2).upper()
    colons = ":".join(padded[at : at + 2] for at in range(0, len(padded), 2))
    assert [entry.serial for entry in authority.revoke_serial(colons)] == [serial]
    with pytest.raises(CaError, match="no certificate has the serial number 'abc'"):
        authority.revoke_serial("abc")


def test_a_user_is_revoked_with_all_certificates(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    first = authority.issue_client("alice", [], YEAR)
    second = authority.issue_client("alice", [], Terms(timedelta(days=1), "p256", tmp_path))
    revoked = authority.revoke_name("alice")
    assert [entry.serial for entry in revoked] == [first.entry.serial, second.entry.serial]
    assert "revoked" in openssl_verify(authority, first)
    assert "revoked" in openssl_verify(authority, second)
    with pytest.raises(CaError, match="there is no valid certificate for 'alice'"):
        authority.revoke_name("alice")


def test_renewal_keeps_the_names_and_changes_the_key(authority: CertificateAuthority) -> None:
    old = authority.issue_client("alice", ["team-b", "team-a"], YEAR)
    old_key = old.key.read_bytes()
    new = authority.renew("alice", Terms(timedelta(days=30)))
    assert (new.certificate, new.key) == (old.certificate, old.key)
    assert new.key.read_bytes() != old_key
    assert new.entry.tenants == ("team-b", "team-a")
    assert new.entry.serial != old.entry.serial
    assert openssl_verify(authority, new) == "OK"
    server = authority.issue_server(["localhost", "127.0.0.1"], YEAR)
    assert authority.renew("localhost", YEAR).entry.hosts == server.entry.hosts


def test_a_revoked_user_is_not_renewed(authority: CertificateAuthority) -> None:
    authority.issue_client("alice", [], YEAR)
    authority.revoke_name("alice")
    with pytest.raises(CaError, match="there is no valid certificate for 'alice'"):
        authority.renew("alice", YEAR)


def test_the_list_is_signed_dated_and_numbered_upwards(authority: CertificateAuthority) -> None:
    def numbered() -> int:
        authority.publish()
        listed = x509.load_pem_x509_crl(authority.revocations.read_bytes())
        assert listed.is_signature_valid(loaded(authority.certificate).public_key())
        assert listed.next_update_utc is not None
        assert listed.last_update_utc < datetime.now(UTC) < listed.next_update_utc
        return listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    assert numbered() < numbered() < numbered()


def test_serial_numbers_are_random(authority: CertificateAuthority) -> None:
    serials = [
        int(authority.issue_client(f"user-{number}", [], YEAR).entry.serial, 16)
        for number in range(20)
    ]
    assert len(set(serials)) == 20
    # RFC 5280, 4.1.2.2: positive, at most 20 octets.
    assert all(0 < serial < 2**159 for serial in serials)
    assert max(serials) > 2**150


def test_a_damaged_index_is_said_and_left_alone(authority: CertificateAuthority) -> None:
    index = authority.directory / "index.json"
    for damaged in (b'[{"serial": "1"', b'[{"serial": "\xff"}]', b""):
        index.write_bytes(damaged)
        with pytest.raises(CaError, match=r"index\.json is damaged.*restore it from a backup"):
            authority.issue_client("alice", [], YEAR)
        assert index.read_bytes() == damaged
    assert not (authority.directory / "alice.key").exists()


def test_a_key_of_another_ca_is_noticed(authority: CertificateAuthority, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "other")
    other.create("other CA", "p256", timedelta(days=1))
    (authority.directory / "ca.key").write_bytes((other.directory / "ca.key").read_bytes())
    with pytest.raises(CaError, match=r"is not the key of"):
        authority.issue_client("alice", [], YEAR)


@pytest.mark.parametrize("write", ["create", "replace"])
def test_a_failed_write_leaves_nothing_half_done(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """The disk fills up at each write in turn; what is there afterwards is whole."""
    real = getattr(ca_module.durable, write)
    failing_at = 0
    calls = 0

    def fails(path: Path, content: bytes, mode: int = 0o644) -> None:
        nonlocal calls
        calls += 1
        if calls == failing_at:
            raise OSError(28, "No space left on device", str(path))
        real(path, content, mode)

    monkeypatch.setattr(ca_module.durable, write, fails)
    for failing_at in (1, 2):
        calls = 0
        with pytest.raises(CaError, match=r"cannot use .*: No space left on device"):
            authority.issue_client(f"user-{failing_at}", [], YEAR)
    monkeypatch.undo()
    known = {entry.serial for entry in authority.entries()}
    for file in authority.directory.glob("user-*.crt"):
        assert format(loaded(file).serial_number, "x") in known
    assert not [path for path in authority.directory.iterdir() if path.name.startswith(".")]
    assert openssl_verify(authority, authority.issue_client("alice", [], YEAR)) == "OK"


def test_a_cut_off_creation_can_be_done_again(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    directory.mkdir(mode=0o700)
    (directory / "ca.key").write_text("half a k")
    authority = CertificateAuthority(directory)
    authority.create("test CA", "p256", timedelta(days=10))
    assert openssl_verify(authority, authority.issue_client("alice", [], YEAR)) == "OK"


def _issue_some(directory: Path, first: int, count: int) -> None:
    authority = CertificateAuthority(directory)
    for number in range(first, first + count):
        authority.issue_client(f"user-{number}", [], YEAR)


def _issued_by(authority: CertificateAuthority) -> set[str]:
    """The names in the index; every certificate there is must be in it."""
    entries = authority.entries()
    assert len({entry.serial for entry in entries}) == len(entries)
    known = {(entry.name, entry.serial) for entry in entries}
    for file in authority.directory.glob("user-*.crt"):
        assert (file.stem, format(loaded(file).serial_number, "x")) in known
    return {entry.name for entry in entries}


def test_several_processes_may_issue_at_once(authority: CertificateAuthority) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_issue_some, args=(authority.directory, first, 10))
        for first in (0, 10, 20)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_SECONDS)
        assert process.exitcode == 0
        process.close()
    assert _issued_by(authority) == {f"user-{number}" for number in range(30)}


def test_a_killed_process_leaves_a_ca_that_knows_all_it_issued(
    authority: CertificateAuthority,
) -> None:
    context = multiprocessing.get_context("spawn")
    for first in range(0, 500, 100):
        before = len(authority.entries())
        process = context.Process(target=_issue_some, args=(authority.directory, first, 100))
        process.start()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(authority.entries()) == before:
            assert time.monotonic() < deadline
            assert process.is_alive()
        process.kill()
        process.join(DEADLINE_SECONDS)
        assert process.exitcode == -signal.SIGKILL
        process.close()
        _issued_by(authority)
    assert openssl_verify(authority, authority.issue_client("alice", [], YEAR)) == "OK"


def test_grpc_takes_the_certificates(authority: CertificateAuthority) -> None:
    server_side = authority.issue_server(["localhost"], YEAR)
    client_side = authority.issue_client("alice", ["team-a"], YEAR)
    root = authority.certificate.read_bytes()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port(
        "localhost:0",
        grpc.ssl_server_credentials(
            [(server_side.key.read_bytes(), server_side.certificate.read_bytes())], root, True
        ),
    )
    server.start()
    credentials = grpc.ssl_channel_credentials(
        root, client_side.key.read_bytes(), client_side.certificate.read_bytes()
    )
    try:
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            grpc.channel_ready_future(channel).result(DEADLINE_SECONDS)
    finally:
        server.stop(None).wait(DEADLINE_SECONDS)
