"""Certificates and revocation lists that expire: renewed, or told ahead and when they have."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from grpc_health.v1.health_pb2 import HealthCheckResponse

from jobworker.authz.ca import authority as authority_module
from jobworker.authz.ca.authority import CertificateAuthority
from jobworker.grpc_api.edge.credentials import TlsFiles
from jobworker.grpc_api.upkeep.expiry import expiry_warning, renew_revocations
from tests.conftest import POLICY, USERS
from tests.front.test_metrics import measured, value
from tests.front.test_reload_policy import told, watching
from tests.support.client import channel_of
from tests.support.server import running_server
from tests.support.waiting import until


def test_an_expired_list_is_told_by_log_and_health(tmp_path: Path) -> None:
    """Nobody could connect, and health and `jobworker_serving` said that all was well."""
    with running_server(tmp_path, USERS, POLICY) as server, channel_of(server, "bob") as channel:
        health = watching(channel, "tls")
        assert next(health).status == HealthCheckResponse.SERVING
        crl = server.authority.certificate.with_suffix(".crl")
        ends = datetime.now(UTC) + timedelta(seconds=5)
        server.authority.write_crl(crl, next_update=ends)
        # Expired, or found expired when it was read.
        assert next(health).status == HealthCheckResponse.NOT_SERVING
        until(told(server, "the revocation list"))
        server.authority.write_crl(crl)
        assert next(health).status == HealthCheckResponse.SERVING
        assert "bob" in server.ask("bob", "whoami")


def test_what_expires_soon_is_warned_of_and_measured(tmp_path: Path) -> None:
    with measured(tmp_path) as (server, host):
        # The tests' authority is one for a day.
        until(told(server, "the CA's certificate"))
        until(told(server, "expires at"))
        found = x509.load_pem_x509_certificate(server.authority.certificate.read_bytes())
        end = found.not_valid_after_utc.timestamp()
        assert value(host, "tls_expiry_seconds", "ca") == end
        assert value(host, "tls_expiry_seconds", "crl") > 0
        assert value(host, "tls_expiry_seconds", "certificate") > end


def test_a_list_is_signed_anew_where_the_key_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year after the last certificate was issued everybody was locked out."""
    directory = tmp_path / "ca"
    authority = CertificateAuthority(directory)
    with monkeypatch.context() as patch:
        patch.setattr(authority_module, "CRL_LIFETIME", timedelta(days=29))
        authority.create("CA", "p256", timedelta(days=400))
    files = TlsFiles(tmp_path / "a", tmp_path / "b", authority.certificate, authority.revocations)
    renew_revocations(files)
    renewed = authority.revocations.read_bytes()
    end = x509.load_pem_x509_crl(renewed).next_update_utc
    assert end is not None
    assert end > datetime.now(UTC) + timedelta(days=300)
    renew_revocations(files)
    assert authority.revocations.read_bytes() == renewed


def test_a_list_is_left_alone_where_the_key_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority_module, "CRL_LIFETIME", timedelta(days=29))
    authority = CertificateAuthority(tmp_path / "ca")
    authority.create("CA", "p256", timedelta(days=400))
    copy = authority.publish(tmp_path / "ca.crl").read_bytes()
    renew_revocations(
        TlsFiles(tmp_path / "a", tmp_path / "b", authority.certificate, tmp_path / "ca.crl")
    )
    assert (tmp_path / "ca.crl").read_bytes() == copy


def test_the_warning_says_what_to_do(tmp_path: Path) -> None:
    files = TlsFiles(*(tmp_path / name for name in ("crt", "key", "ca", "crl")))
    end = datetime(2030, 1, 1, tzinfo=UTC)
    ahead = expiry_warning("crl", files, end, end - timedelta(days=2))
    assert ahead.startswith(
        f"the revocation list {tmp_path / 'crl'} expires at 2030-01-01 00:00:00"
    )
    assert "jobworker ca crl" in ahead
    assert "expired at" in expiry_warning("crl", files, end, end)
