"""What the server says of certificates, keys, authorities and lists it cannot serve with."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from jobworker.grpc_api.edge.credentials import TlsFiles, read_credentials
from jobworker.grpc_api.edge.tls import server_context, write_openssl_config
from jobworker.grpc_api.errors import TlsError
from tests.support.pki import CLIENT, Authority

PAST = datetime.now(UTC) - timedelta(hours=2)
HOUR = timedelta(hours=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> TlsFiles:
    server = authority.server()
    return TlsFiles(server.certificate, server.key, authority.certificate)


def objection(files: TlsFiles) -> str:
    with pytest.raises(TlsError) as refused:
        read_credentials(files)
    return str(refused.value)


def test_good_files_are_read(files: TlsFiles, authority: Authority) -> None:
    mallory = authority.client("mallory")
    authority.revoke(mallory)
    crl = authority.write_crl(authority.directory / "crl.pem")
    credentials = read_credentials(replace(files, crl=crl))
    assert {serial for _, serial in credentials.trust.revoked} == {mallory.serial}
    assert len(credentials.trust.authorities) == 1


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("certificate", "the server's certificate"),
        ("key", "the server's key"),
        ("ca", "the CA certificate"),
        ("crl", "the revocation list"),
    ],
)
def test_a_missing_file_is_named(files: TlsFiles, name: str, meaning: str) -> None:
    missing = files.ca.with_name("missing.pem")
    said = objection(replace(files, **{name: missing}))
    assert said.startswith(f"cannot read {meaning} {missing}: No such file or directory")


def test_an_unreadable_file_is_named(files: TlsFiles) -> None:
    said = objection(replace(files, certificate=files.ca.parent))
    assert said == f"cannot read the server's certificate {files.ca.parent}: Is a directory"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("certificate", "certificate"),
        ("key", "private key"),
        ("ca", "certificate"),
        ("crl", "revocation list"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"no PEM\n", b"\xff\xfe\0"], ids=["empty", "text", "raw"])
def test_a_file_of_something_else_is_named(
    files: TlsFiles, tmp_path: Path, name: str, kind: str, content: bytes
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(content)
    wrong.chmod(0o600)
    said = objection(replace(files, **{name: wrong}))
    assert said.startswith(str(wrong))
    assert f"{kind} in PEM form" in said


@pytest.mark.parametrize("name", ["certificate", "ca"])
def test_a_damaged_certificate_is_named(files: TlsFiles, name: str) -> None:
    path: Path = getattr(files, name)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][::-1], *lines[2:], ""]))
    assert str(path) in objection(files)


def test_a_key_of_another_certificate_is_refused(files: TlsFiles, authority: Authority) -> None:
    other = authority.server()
    said = objection(replace(files, key=other.key))
    assert f"the key {other.key} does not belong to the certificate {files.certificate}" in said


def test_an_encrypted_key_is_refused(files: TlsFiles) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    assert f"the server's key {files.key} is encrypted" in objection(files)


def test_a_key_that_everybody_can_read_is_refused(files: TlsFiles) -> None:
    files.key.chmod(0o644)
    said = objection(files)
    assert "(mode 0644)" in said
    assert said.endswith(f"run `chmod 600 {files.key}`")


def test_an_expired_certificate_is_refused(files: TlsFiles, authority: Authority) -> None:
    old = authority.server(not_before=PAST, not_after=PAST + HOUR)
    said = objection(replace(files, certificate=old.certificate, key=old.key))
    assert f"the server's certificate {old.certificate} expired at" in said


def test_a_certificate_of_the_future_is_refused(files: TlsFiles, authority: Authority) -> None:
    early = authority.server(not_before=datetime.now(UTC) + HOUR)
    said = objection(replace(files, certificate=early.certificate, key=early.key))
    assert f"the server's certificate {early.certificate} is not valid before" in said
    assert "check this host's clock" in said


def test_a_clients_certificate_is_no_servers(files: TlsFiles, authority: Authority) -> None:
    client = authority.server(usages=[CLIENT])
    said = objection(replace(files, certificate=client.certificate, key=client.key))
    assert f"the certificate {client.certificate} is not for a server" in said


def test_an_authority_must_be_one(files: TlsFiles) -> None:
    said = objection(replace(files, ca=files.certificate))
    assert said == f"{files.certificate} holds a certificate that is no authority's: CN=localhost"


def test_a_list_of_another_authority_is_refused(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    # Of the same name, so that the signature alone can tell.
    crl = Authority(tmp_path / "other").write_crl(tmp_path / "other.crl")
    said = objection(replace(files, crl=crl))
    assert "CN=test authority is not signed by any authority in" in said


def test_an_expired_list_is_refused(files: TlsFiles, authority: Authority) -> None:
    crl = authority.write_crl(authority.directory / "crl.pem", next_update=PAST)
    assert f"the revocation list {crl} expired at" in objection(replace(files, crl=crl))


LOAD = """
import sys
from pathlib import Path
from jobworker.grpc_api.edge.credentials import TlsFiles
from jobworker.grpc_api.edge.tls import server_context
context = server_context(TlsFiles(*map(Path, sys.argv[1:])))
print([c["name"] for c in context.get_ciphers() if c["protocol"] == "TLSv1.3"])
"""


def run(files: TlsFiles, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if name != "OPENSSL_CONF"}
    paths = map(str, (files.certificate, files.key, files.ca))
    return subprocess.run(
        [sys.executable, "-c", LOAD, *paths],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_with_the_configuration_offers_one_suite(files: TlsFiles, tmp_path: Path) -> None:
    outcome = run(files, {"OPENSSL_CONF": str(write_openssl_config(tmp_path))})
    assert outcome.stdout == "['TLS_AES_256_GCM_SHA384']\n", outcome.stderr


def test_a_process_without_the_configuration_refuses_to_serve(files: TlsFiles) -> None:
    said = run(files, {}).stderr
    assert "TLS_CHACHA20_POLY1305_SHA256" in said
    assert "only TLS_AES_256_GCM_SHA384 is allowed" in said
    assert "(now: not set)" in said


def test_a_configuration_of_other_suites_refuses_to_serve(files: TlsFiles, tmp_path: Path) -> None:
    config = write_openssl_config(tmp_path)
    config.write_text(config.read_text().replace("AES_256_GCM_SHA384", "AES_128_GCM_SHA256"))
    said = run(files, {"OPENSSL_CONF": str(config)}).stderr
    assert "offers the TLS 1.3 suites TLS_AES_128_GCM_SHA256, and only" in said


def test_a_configuration_of_other_curves_is_told(files: TlsFiles, tmp_path: Path) -> None:
    config = write_openssl_config(tmp_path)
    assert "curves" not in run(files, {"OPENSSL_CONF": str(config)}).stderr
    config.write_text(config.read_text().replace("Groups = X25519:P-256\n", ""))
    said = run(files, {"OPENSSL_CONF": str(config)}).stderr
    assert "takes other curves than X25519 and P-256: run `jobworker serve --upgrade`" in said


def test_the_configuration_must_have_somewhere_to_go(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_openssl_config(tmp_path / "missing")


@pytest.mark.parametrize("use", [read_credentials, server_context])
def test_both_ways_in_check_the_files(files: TlsFiles, use: Callable[[TlsFiles], object]) -> None:
    files.key.chmod(0o644)
    with pytest.raises(TlsError, match="chmod 600"):
        use(files)
