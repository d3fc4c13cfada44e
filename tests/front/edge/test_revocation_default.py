"""A revocation is heeded by default: the list beside the CA is demanded."""

from pathlib import Path

import pytest

from jobworker.grpc_api.check import tls_files
from jobworker.grpc_api.edge.credentials import read_credentials
from jobworker.grpc_api.errors import TlsError
from jobworker.grpc_api.settings_file import load_server_config
from tests.conftest import POLICY, USERS
from tests.support.pki import Authority
from tests.support.server import configure, leaving_no_process, own_address, running_server, serving
from tests.support.waiting import until


def test_a_revoked_certificate_is_refused_by_default(tmp_path: Path) -> None:
    """`tls.crl` was null by default: `ca revoke` said "revoked", and bob went on."""
    with running_server(tmp_path, USERS, POLICY) as server:
        assert "bob" in server.ask("bob", "whoami")
        server.authority.revoke(server.users["bob"])
        server.authority.write_crl(server.authority.certificate.with_suffix(".crl"))
        until(lambda: server.run("bob", "whoami").returncode == 4)
        assert b"revoked" in server.run("bob", "whoami").stderr
        assert "alice" in server.ask("alice", "whoami")


def test_the_list_is_demanded_and_null_means_none(tmp_path: Path) -> None:
    authority = configure(tmp_path, own_address(), POLICY, "")
    config = tmp_path / "server.yaml"
    authority.certificate.with_suffix(".crl").unlink()
    with pytest.raises(TlsError, match=r"cannot read the revocation list .*say `crl: null`"):
        read_credentials(tls_files(load_server_config(config)))
    config.write_text(config.read_text().replace("tls:\n", "tls:\n  crl: null\n"))
    assert read_credentials(tls_files(load_server_config(config))).revocation_lists is None


def test_a_server_without_a_list_warns_of_it(tmp_path: Path) -> None:
    configure(tmp_path, own_address(), POLICY, "")
    config = tmp_path / "server.yaml"
    config.write_text(config.read_text().replace("tls:\n", "tls:\n  crl: null\n"))
    with leaving_no_process(), serving(config) as (_, log):
        until(lambda: any("tls.crl is null" in line for line in log))


def test_an_authority_without_its_list_is_refused(tmp_path: Path) -> None:
    """All its clients were, as of "a CA that the server does not trust"."""
    authority = configure(tmp_path, own_address(), POLICY, "")
    (tmp_path / "second").mkdir()
    second = Authority(tmp_path / "second", "second authority")
    both = authority.certificate.read_bytes() + second.certificate.read_bytes()
    authority.certificate.write_bytes(both)
    files = tls_files(load_server_config(tmp_path / "server.yaml"))
    with pytest.raises(TlsError, match="no revocation list of CN=second authority"):
        read_credentials(files)
    assert files.crl is not None
    lists = files.crl.read_bytes() + second.write_crl(tmp_path / "second.crl").read_bytes()
    files.crl.write_bytes(lists)
    assert set(read_credentials(files).expiries) == {"certificate", "ca", "crl"}
