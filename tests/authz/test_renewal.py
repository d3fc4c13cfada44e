"""Certificates that are renewed on the word of those before: who gets one, and who does not."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from jobworker.authz.ca.authority import CertificateAuthority, Issued, Terms
from jobworker.authz.ca.renewal import MOST_VALID, prove, renewed
from jobworker.authz.ca.requests import make_request
from jobworker.authz.errors import CaError
from jobworker.authz.identity import identity_from_der

TERMS = Terms(timedelta(days=10))
MONTH = timedelta(days=30)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path / "ca")
    made.create("test CA", "p256", timedelta(days=365))
    return made


def key_of(issued: Issued) -> object:
    return load_pem_private_key(issued.key.read_bytes(), None)


def asked(
    authority: CertificateAuthority,
    issued: Issued,
    cn: str = "alice",
    tenants: tuple[str, ...] = ("a", "b"),
    *,
    signer: object = None,
) -> x509.Certificate:
    """What somebody gets who shows `issued`, and signs with its key or with another."""
    request = make_request(ec.generate_private_key(ec.SECP256R1()), cn, tenants)
    proof = prove(signer or key_of(issued), request)
    shown = issued.certificate.read_bytes()
    entry, certificate = renewed(authority, shown, request, proof, MONTH)
    assert authority.entries()[-1] == entry
    return x509.load_pem_x509_certificate(certificate)


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_the_new_one_is_of_the_same_user_and_lives_longer(
    authority: CertificateAuthority, kind: str
) -> None:
    terms = Terms(timedelta(days=10), kind)  # type: ignore[arg-type]
    issued = authority.issue_client("alice", ["a", "b"], terms)
    fresh = asked(authority, issued)
    identity = identity_from_der(fresh.public_bytes(Encoding.DER))
    assert (identity.common_name, identity.tenants) == ("alice", ("a", "b"))
    assert fresh.not_valid_after_utc > issued.entry.not_after + timedelta(days=19)
    # And it is good for the next.
    assert [entry.state(authority.now()) for entry in authority.entries()] == ["valid", "valid"]


@pytest.mark.parametrize(
    ("cn", "tenants"),
    [("bob", ("a", "b")), ("alice", ("a",)), ("alice", ("b", "a")), ("alice", ("a", "b", "c"))],
)
def test_no_other_names_are_given(
    authority: CertificateAuthority, cn: str, tenants: tuple[str, ...]
) -> None:
    issued = authority.issue_client("alice", ["a", "b"], TERMS)
    with pytest.raises(CaError, match="for other names"):
        asked(authority, issued, cn, tenants)
    assert len(authority.entries()) == 1


@pytest.mark.parametrize(
    "stranger",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_whoever_has_no_key_gets_nothing(authority: CertificateAuthority, stranger: object) -> None:
    """As somebody does who carries requests, or has seen a certificate."""
    issued = authority.issue_client("alice", ["a", "b"], TERMS)
    with pytest.raises(CaError, match="not signed by the certificate's key"):
        asked(authority, issued, signer=stranger)


def test_a_proof_is_of_one_request_and_for_nothing_else(authority: CertificateAuthority) -> None:
    issued = authority.issue_client("alice", ["a"], TERMS)
    key = key_of(issued)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    one, other = (
        make_request(ec.generate_private_key(ec.SECP256R1()), "alice", ["a"]) for _ in range(2)
    )
    bare = x509.load_pem_x509_csr(other).public_bytes(Encoding.DER)
    shown = issued.certificate.read_bytes()
    for proof in (prove(key, one), key.sign(bare, ec.ECDSA(hashes.SHA256())), b"", b"x" * 70):
        with pytest.raises(CaError, match="not signed by the certificate's key"):
            renewed(authority, shown, other, proof, MONTH)


def test_a_revoked_one_is_not_renewed_nor_one_that_has_ended(
    authority: CertificateAuthority,
) -> None:
    revoked = authority.issue_client("alice", ["a", "b"], TERMS)
    authority.revoke_user("alice")
    ended = authority.issue_client("bob", ["a"], Terms(timedelta(seconds=-1)))
    with pytest.raises(CaError, match="not valid any more"):
        asked(authority, revoked)
    with pytest.raises(CaError, match="not valid any more"):
        asked(authority, ended, "bob", ("a",))


def test_what_another_ca_has_issued_is_not_renewed_nor_a_servers(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path / "other")
    other.create("test CA", "p256", timedelta(days=365))
    with pytest.raises(CaError, match="another CA's"):
        asked(authority, other.issue_client("alice", ["a", "b"], TERMS))
    server = authority.issue_server(["jobs.example.org"], TERMS)
    with pytest.raises(CaError, match="no such certificate to a user"):
        asked(authority, server, "jobs.example.org", ())


def test_nobody_gets_any_number(authority: CertificateAuthority) -> None:
    issued = authority.issue_client("alice", ["a", "b"], TERMS)
    for _ in range(MOST_VALID - 1):
        asked(authority, issued)
    with pytest.raises(CaError, match=f"alice has {MOST_VALID} valid certificates"):
        asked(authority, issued)


@pytest.mark.parametrize("rubbish", [b"", b"x", b"-----BEGIN CERTIFICATE-----\n", b"\0" * 100_000])
def test_rubbish_is_refused(authority: CertificateAuthority, rubbish: bytes) -> None:
    issued = authority.issue_client("alice", [], TERMS)
    request = make_request(ec.generate_private_key(ec.SECP256R1()), "alice", [])
    for certificate, asks in ((rubbish, request), (issued.certificate.read_bytes(), rubbish)):
        with pytest.raises(CaError):
            renewed(authority, certificate, asks, b"", MONTH)
