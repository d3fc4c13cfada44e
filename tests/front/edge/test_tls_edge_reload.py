"""New certificates, authorities and revocation lists while the edge serves."""

import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from tests.support.edge_process import DEADLINE
from tests.support.edge_site import Site, edge_site, ended
from tests.support.pki import Authority, Issued

# In seconds. On a busy host a short one may be over before it can be used.
LIFETIMES = (2, 6, 18)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with edge_site(tmp_path, revocation=True) as running:
        yield running


def install(issued: Issued, site: Site) -> None:
    """Put a server certificate and key where the edge's are."""
    shutil.copy(issued.certificate, site.files.certificate)
    shutil.copy(issued.key, site.files.key)


def publish(authority: Authority, site: Site) -> None:
    assert site.files.crl is not None
    authority.write_crl(site.files.crl)


def servers_serial(site: Site, client: Issued) -> int:
    with site.tls(client) as tls:
        certificate = tls.getpeercert()
    assert certificate is not None
    return int(str(certificate["serialNumber"]), 16)


def park(channel: grpc.Channel) -> "grpc.CallIterator[bytes]":
    """Open a stream that the server never ends."""
    stream: grpc.CallIterator[bytes] = channel.unary_stream("/Test/Park", None, None)(
        b"", timeout=DEADLINE
    )
    assert next(iter(stream)) == b"parked"
    return stream


def test_a_new_certificate_is_shown_to_new_connections_alone(site: Site) -> None:
    client = site.authority.client()
    renewed = site.authority.server()
    with site.channel(client) as channel:
        stream = park(channel)
        install(renewed, site)
        assert site.edge.command("reload") == {"ended": 0}
        assert servers_serial(site, client) == renewed.serial
        assert stream.is_active()
        echo = channel.unary_unary("/Test/Echo", None, None)
        assert echo(b"x", timeout=DEADLINE) == b"x"


def test_what_cannot_be_served_with_changes_nothing(site: Site) -> None:
    client = site.authority.client()
    before = servers_serial(site, client)
    shutil.copy(site.authority.server().certificate, site.files.certificate)
    answer = site.edge.command("reload")
    assert answer["kind"] == "TlsError"
    assert "does not belong to the certificate" in answer["error"]
    assert servers_serial(site, client) == before


def test_a_revocation_ends_the_live_connections_of_that_certificate(site: Site) -> None:
    alice, mallory = site.authority.client("alice"), site.authority.client("mallory")
    with site.channel(alice) as kept, site.channel(mallory) as cut, site.http2(mallory) as raw:
        stays, goes = park(kept), park(cut)
        site.authority.revoke(mallory)
        publish(site.authority, site)
        assert site.edge.command("reload") == {"ended": 2}
        with pytest.raises(grpc.RpcError) as broken:
            next(iter(goes))
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ended(raw)
        assert [one["name"] for one in site.edge.connections()] == ["alice"]
        assert stays.is_active()
    site.edge.wait_for_log("ended the connection of mallory")
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REVOKED"), site.http2(mallory):
        pass


def test_a_certificate_of_the_same_name_is_not_revoked_with_another(site: Site) -> None:
    lost, replacement = site.authority.client("alice"), site.authority.client("alice")
    with site.http2(lost), site.http2(replacement):
        site.authority.revoke(lost)
        publish(site.authority, site)
        assert site.edge.command("reload") == {"ended": 1}
        assert [one["serial"] for one in site.edge.connections()] == [
            format(replacement.serial, "x")
        ]


def test_an_added_authority_is_trusted_and_the_others_clients_stay(
    site: Site, tmp_path: Path
) -> None:
    second = another_authority(tmp_path)
    with site.http2(site.authority.client("alice")):
        site.files.ca.write_bytes(
            site.authority.certificate.read_bytes() + second.certificate.read_bytes()
        )
        assert site.files.crl is not None
        first_list = site.files.crl.read_bytes()
        second.write_crl(tmp_path / "second.crl")
        site.files.crl.write_bytes(first_list + (tmp_path / "second.crl").read_bytes())
        assert site.edge.command("reload") == {"ended": 0}
        with site.http2(second.client("bob")):
            assert {one["name"] for one in site.edge.connections()} == {"alice", "bob"}


def test_a_removed_authoritys_connections_are_ended(site: Site, tmp_path: Path) -> None:
    second = another_authority(tmp_path)
    client = site.authority.client("alice")
    with site.http2(client) as raw:
        # The server's certificate moves too, so that the new authority's
        # clients could trust it.
        install(second.server(), site)
        shutil.copy(second.certificate, site.files.ca)
        publish(second, site)
        assert site.edge.command("reload") == {"ended": 1}
        assert ended(raw)
    site.edge.wait_for_log("the authority that issued its certificate is trusted no more")
    with site.http2(second.client("bob")):
        assert [one["name"] for one in site.edge.connections()] == ["bob"]


def another_authority(directory: Path) -> Authority:
    place = directory / "second"
    place.mkdir()
    return Authority(place, "second authority")


def test_an_expired_list_refuses_new_connections_and_says_so(site: Site) -> None:
    client = site.authority.client("alice")
    with site.http2(client):
        expires = load_short_lived_list(site)
        wait_until_refused(site, client)
        site.edge.wait_for_log("the server's revocation list has expired")
        assert [one["name"] for one in site.edge.connections()] == ["alice"]
    assert datetime.now(UTC) >= expires.replace(microsecond=0)
    answer = site.edge.command("reload")
    assert "every client would be refused; put a new one in its place" in answer["error"]


def load_short_lived_list(site: Site) -> datetime:
    assert site.files.crl is not None
    for seconds in LIFETIMES:
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        site.authority.write_crl(site.files.crl, next_update=expires)
        if site.edge.command("reload") == {"ended": 0}:
            return expires
    raise AssertionError("no list lived long enough to be loaded")


def wait_until_refused(site: Site, client: Issued) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            with site.http2(client):
                continue
        except (ssl.SSLError, ConnectionError):
            return
    raise AssertionError("clients are still let in")


def test_a_list_must_come_from_the_clients_authority(site: Site, tmp_path: Path) -> None:
    second = another_authority(tmp_path)
    site.files.ca.write_bytes(
        site.authority.certificate.read_bytes() + second.certificate.read_bytes()
    )
    # Each client of the second authority would be refused as a stranger's.
    answer = site.edge.command("reload")
    assert "holds no revocation list of CN=second authority" in answer["error"]
    with pytest.raises((ssl.SSLError, ConnectionError)), site.http2(second.client("bob")):
        pass


def test_connections_are_ended_by_serial_number(site: Site) -> None:
    alice = site.authority.client("alice")
    with site.http2(alice) as raw, site.http2(site.authority.client("bob")):
        serial = site.edge.connections()[0]["serial"]
        answer = site.edge.command("close_serial", serial=serial, reason="it was asked for")
        assert answer == {"ended": 1}
        assert ended(raw)
        assert [one["name"] for one in site.edge.connections()] == ["bob"]
        site.edge.wait_for_log("ended the connection of alice from 127.0.0.1")


def test_a_connection_ends_when_its_certificate_expires(site: Site) -> None:
    for seconds in LIFETIMES:
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        client = site.authority.client("alice", not_after=expires)
        with suppress(ssl.SSLError), site.http2(client) as raw:
            assert ended(raw)
            assert datetime.now(UTC) >= expires.replace(microsecond=0)
            site.edge.wait_for_log("its certificate expired at")
            return
    pytest.fail("no certificate lived long enough to be shown")
