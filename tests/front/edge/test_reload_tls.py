"""Certificates renewed and revoked with `jobworker ca` while the server serves."""

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1.health_pb2 import HealthCheckResponse

from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import CallFailed
from jobworker.client.output_connection import OutputConnection
from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY
from tests.front.test_reload_policy import told, watching
from tests.support.client import calling, channel_of, refused, start
from tests.support.pki import Issued
from tests.support.server import (
    JOBS_AS_ROOT,
    JOBWORKER,
    PORT,
    Server,
    leaving_no_process,
    own_address,
    serving,
)
from tests.support.waiting import until

# Nothing but the list of what is revoked ends a connection as soon, on a busy host either.
PROMPT_SECONDS = 15.0


@dataclass(frozen=True)
class Site:
    """A server whose certificates come from a CA of the command's, in `ca`."""

    server: Server
    ca: Path

    def command(self, *words: str) -> str:
        """What a `jobworker ca` command prints."""
        return _ca(self.ca, *words)


@dataclass(frozen=True)
class _CommandsAuthority:
    """What `Server` needs to know of an authority."""

    certificate: Path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    ca, host = tmp_path / "ca", own_address()
    _ca(ca, "init")
    _ca(ca, "issue", "--server", host)
    users = {name: _issue(ca, name) for name in ("alice", "ann", "bob")}
    (tmp_path / "policy.yaml").write_text(POLICY)
    config = tmp_path / "server.yaml"
    config.write_text(
        ("" if os.geteuid() else JOBS_AS_ROOT)
        + f"state_dir: state\nlisten: {host}:{PORT}\npolicy: policy.yaml\ntls:\n"
        f"  certificate: ca/{host}.crt\n  key: ca/{host}.key\n  ca: ca/ca.crt\n  crl: ca/ca.crl\n"
    )
    authority = _CommandsAuthority(ca / "ca.crt")
    with leaving_no_process(), serving(config) as (process, log):
        yield Site(Server(tmp_path, host, authority, users, process, log), ca)


def _ca(ca: Path, *words: str) -> str:
    done = subprocess.run(
        [JOBWORKER, "ca", words[0], "--dir", ca, *words[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _issue(ca: Path, name: str) -> Issued:
    _ca(ca, "issue", "--cn", name, "--ou", "team-a")
    certificate = ca / f"{name}.crt"
    serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
    return Issued(certificate, ca / f"{name}.key", serial)


def test_a_revoked_certificate_is_cut_at_once(site: Site) -> None:
    with calling(site.server, "ann") as ann:
        with calling(site.server, "alice") as alice:
            job_id = start(alice, "sh", "-c", "echo on; exec sleep 1000")
            hers = alice.GetOutput(pb.GetOutputRequest(jobID=job_id))
            auditors = ann.GetOutput(pb.GetOutputRequest(jobID=job_id))
            assert (next(hers).output, next(auditors).output) == ("on\n", "on\n")
            site.command("revoke", "--cn", "alice")
            revoked = time.monotonic()
            with refused(grpc.StatusCode.UNAVAILABLE):
                next(hers)
            took = time.monotonic() - revoked
            with refused(grpc.StatusCode.UNAVAILABLE):
                alice.WhoAmI(pb.WhoAmIRequest())
        assert auditors.is_active()
        done = site.server.run("alice", "whoami")
        assert done.returncode == 4
        assert b"revoked" in done.stderr
        (site.ca / "alice.crt").unlink()
        (site.ca / "alice.key").unlink()
        site.server.users["alice"] = _issue(site.ca, "alice")
        # The certificate counts, not the name.
        assert "alice" in site.server.ask("alice", "whoami")
        site.server.ask("alice", "stop", job_id)
        assert list(auditors) == []
    assert took < PROMPT_SECONDS
    until(told(site.server, "ended the connection of alice"))


def test_a_revoked_certificate_is_cut_from_an_output_connection(site: Site) -> None:
    files = site.server.users["alice"]
    settings = Endpoint(site.server.address, site.ca / "ca.crt", files.certificate, files.key)
    with calling(site.server, "alice") as alice:
        job_id = start(alice, "sh", "-c", "echo on; exec sleep 1000")
    with OutputConnection(settings) as connection:
        pieces = connection.output(pb.GetOutputRequest(jobID=job_id))
        assert next(pieces).end == len("on\n")
        site.command("revoke", "--cn", "alice")
        with pytest.raises(CallFailed) as caught:
            next(pieces)
    assert caught.value.code == "UNAVAILABLE"
    until(told(site.server, "ended the connection of alice"))


def test_a_renewed_server_certificate_ends_no_connection(site: Site) -> None:
    certificate = site.ca / f"{site.server.host}.crt"
    with (
        calling(site.server, "alice") as alice,
        channel_of(site.server, "bob") as channel,
    ):
        health = watching(channel, "tls")
        assert next(health).status == HealthCheckResponse.SERVING
        job_id = start(alice, "sh", "-c", "echo on; exec sleep 1000")
        stream = alice.GetOutput(pb.GetOutputRequest(jobID=job_id))
        assert next(stream).output == "on\n"
        site.command("renew", site.server.host)
        renewed = x509.load_pem_x509_certificate(certificate.read_bytes())
        until(lambda: _shown(site) == renewed)
        alice.Stop(pb.StopRequest(jobID=job_id))
        assert list(stream) == []


def _shown(site: Site) -> x509.Certificate:
    """The certificate that the server shows to a new connection."""
    context = ssl.create_default_context(cafile=str(site.ca / "ca.crt"))
    context.load_cert_chain(site.ca / "bob.crt", site.ca / "bob.key")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((site.server.host, PORT)) as plain,
        context.wrap_socket(plain, server_hostname=site.server.host) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def test_files_that_do_not_fit_change_nothing(site: Site) -> None:
    key = site.ca / f"{site.server.host}.key"
    good = key.read_bytes()
    with calling(site.server, "alice") as alice, channel_of(site.server, "bob") as channel:
        health = watching(channel, "tls")
        assert next(health).status == HealthCheckResponse.SERVING
        key.write_bytes((site.ca / "bob.key").read_bytes())
        assert next(health).status == HealthCheckResponse.NOT_SERVING
        until(told(site.server, "certificates and revocation lists stay as they were: the key"))
        assert alice.WhoAmI(pb.WhoAmIRequest()).commonName == "alice"
        assert "alice" in site.server.ask("alice", "whoami")
        key.write_bytes(good)
        assert next(health).status == HealthCheckResponse.SERVING
