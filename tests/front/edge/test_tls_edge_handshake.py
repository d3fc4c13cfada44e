"""Who gets through the TLS handshake, and who does not, told by OpenSSL's own client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.edge_site import Site, edge_site
from tests.support.openssl_client import PREFACE, s_client
from tests.support.pki import SERVER, Authority, Issued

SUITE = "TLS_AES_256_GCM_SHA384"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("edge"), revocation=True) as running:
        yield running


def test_the_one_suite_is_accepted(site: Site) -> None:
    outcome = s_client(
        site.edge.port,
        "-ciphersuites",
        SUITE,
        ca=site.authority.certificate,
        client=site.authority.client(),
    )
    assert outcome.speaks_http2, outcome.said


@pytest.mark.parametrize(
    ("options", "alert"),
    [
        (["-tls1_2"], "alert protocol version"),
        (["-ciphersuites", "TLS_AES_128_GCM_SHA256"], "alert handshake failure"),
        (["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "alert handshake failure"),
    ],
    ids=["tls-1.2", "aes-128", "chacha20"],
)
def test_another_version_or_suite_is_refused(site: Site, options: list[str], alert: str) -> None:
    outcome = s_client(
        site.edge.port, *options, ca=site.authority.certificate, client=site.authority.client()
    )
    assert outcome.received == b""
    assert alert in outcome.said


def test_every_suite_but_one_is_refused_together(site: Site) -> None:
    others = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256"
    outcome = s_client(
        site.edge.port,
        "-ciphersuites",
        others,
        ca=site.authority.certificate,
        client=site.authority.client(),
    )
    assert outcome.received == b""
    assert "alert handshake failure" in outcome.said


@pytest.mark.parametrize("group", ["X25519", "P-256"])
def test_two_curves_are_accepted(site: Site, group: str) -> None:
    client = site.authority.client()
    outcome = s_client(
        site.edge.port, "-groups", group, ca=site.authority.certificate, client=client
    )
    assert outcome.speaks_http2, outcome.said


@pytest.mark.parametrize("group", ["X448", "P-521", "P-384", "ffdhe2048"])
def test_other_curves_are_refused(site: Site, group: str) -> None:
    """X448 and P-521 were taken, which are outside Mozilla's intermediate profile."""
    client = site.authority.client()
    outcome = s_client(
        site.edge.port, "-groups", group, ca=site.authority.certificate, client=client
    )
    assert outcome.received == b""
    assert "alert handshake failure" in outcome.said


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_keys_of_other_curves_sign_all_the_same(site: Site, curve: ec.EllipticCurve) -> None:
    """The curves of key exchange are not those of certificates."""
    client = site.authority.client(key=ec.generate_private_key(curve))
    outcome = s_client(site.edge.port, ca=site.authority.certificate, client=client)
    assert outcome.speaks_http2, outcome.said


def test_no_certificate_is_refused(site: Site) -> None:
    outcome = s_client(site.edge.port, ca=site.authority.certificate)
    assert outcome.received == b""
    assert "alert certificate required" in outcome.said
    site.edge.wait_for_log("it showed no certificate")


def refused(site: Site, client: Issued) -> str:
    """Return what openssl said after the server refused a certificate."""
    outcome = s_client(site.edge.port, ca=site.authority.certificate, client=client)
    assert outcome.received == b""
    return outcome.said


def test_an_expired_certificate_is_refused(site: Site) -> None:
    assert "alert certificate expired" in refused(site, site.authority.expired_client())
    site.edge.wait_for_log("its certificate is refused: certificate has expired")


def test_a_certificate_of_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    assert "alert unknown ca" in refused(site, Authority(tmp_path, "another authority").client())
    site.edge.wait_for_log("its certificate is refused: unable to get local issuer certificate")


def test_a_certificate_of_another_authority_of_the_same_name_is_refused(
    site: Site, tmp_path: Path
) -> None:
    impostor = Authority(tmp_path).client()
    assert "alert decrypt error" in refused(site, impostor)
    site.edge.wait_for_log("its certificate is refused: certificate signature failure")


def test_a_servers_certificate_is_refused(site: Site) -> None:
    assert "alert" in refused(site, site.authority.client(usages=(SERVER,)))
    site.edge.wait_for_log("its certificate is refused: unsuitable certificate purpose")


def test_the_servers_own_certificate_is_refused(site: Site) -> None:
    assert "alert" in refused(site, site.authority.server("another.example"))


def test_a_revoked_certificate_is_refused(site: Site) -> None:
    revoked = site.authority.client("mallory")
    site.authority.revoke(revoked)
    assert site.files.crl is not None
    site.authority.write_crl(site.files.crl)
    assert "ended" in site.edge.command("reload")
    assert "alert certificate revoked" in refused(site, revoked)
    site.edge.wait_for_log("its certificate is refused: certificate revoked")


def test_a_client_without_http2_is_refused_after_the_handshake(site: Site) -> None:
    client = site.authority.client()
    outcome = s_client(
        site.edge.port, "-alpn", "http/1.1", ca=site.authority.certificate, client=client
    )
    assert outcome.received == b""
    site.edge.wait_for_log("it does not offer HTTP/2")


def test_no_session_can_be_resumed(site: Site) -> None:
    with site.http2(site.authority.client()) as tls:
        # A ticket would have come before the first application data.
        assert tls.session is None or not tls.session.has_ticket
        assert tls.compression() is None
        cipher = tls.cipher()
        assert cipher is not None
        assert cipher[0] == SUITE


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n\r\n", PREFACE, b"\0" * 600])
def test_what_is_not_tls_is_refused(site: Site, greeting: bytes) -> None:
    with site.tcp() as connection:
        connection.sendall(greeting)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    # At most an alert record, which is 7 bytes in plain text (RFC 8446, 5.1).
    assert len(answer) <= 7
    site.edge.wait_for_log("refused a connection")
