"""What the command says when it cannot talk to the server: which file, or what to check."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.pki import HOUR, Authority, Issued
from tests.support.relay import relay_to
from tests.support.server import JOBWORKER, PORT, Server


def whoami(server: Server, /, **changed: str | Path) -> tuple[int, str]:
    """Exit code and stderr of alice's whoami, with other settings than hers."""
    environment = server.environment("alice")
    environment |= {f"JOBWORKER_{name.upper()}": str(value) for name, value in changed.items()}
    done = subprocess.run(
        [JOBWORKER, "whoami"], env=environment, capture_output=True, timeout=60, check=False
    )
    return done.returncode, done.stderr.decode()


def as_client(server: Server, issued: Issued) -> tuple[int, str]:
    return whoami(server, cert=issued.certificate, key=issued.key)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that nobody here knows."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@contextmanager
def listener(reply: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server that answers whatever it is sent with `reply`.

    With `tls` it does the handshake, no more, as far as the client does.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(ssl.SSLError, ConnectionError):
                    if tls is not None:
                        tls.wrap_socket(connection, server_side=True).close()
                        continue
                    connection.recv(1)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"localhost:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_nothing_listens(server: Server) -> None:
    code, said = whoami(server, server=f"{server.host}:1")
    assert code == 5
    assert said == (
        f"jobworker: cannot talk to the server {server.host}:1: nothing listens there; "
        "check the port, and that `jobworker serve` runs\n"
    )


def test_the_host_is_not_known(server: Server) -> None:
    code, said = whoami(server, server="no-such-host.invalid")
    assert code == 5
    assert "no-such-host.invalid:50051: its host name is not known" in said


def test_something_else_listens(server: Server) -> None:
    with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        code, said = whoami(server, server=address)
    assert code == 5
    assert "does not speak TLS 1.3" in said


def test_the_servers_certificate_is_of_another_ca(server: Server, stranger: Authority) -> None:
    code, said = whoami(server, ca=stranger.certificate)
    assert code == 5
    assert f"its certificate is not signed by the CA in {stranger.certificate}" in said


def test_the_servers_certificate_is_for_another_name(server: Server) -> None:
    with relay_to((server.host, PORT)) as relay:
        code, said = whoami(server, server=f"127.0.0.1:{relay.port}")
    assert code == 5
    assert "its certificate is not for 127.0.0.1" in said


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "its certificate expired at 2026-01-02 04:00:00 UTC"),
        (datetime(2099, 1, 2, tzinfo=UTC), "its certificate is valid only from 2099-01-02 00:00"),
    ],
)
def test_the_servers_certificate_is_not_valid_now(
    server: Server, begin: datetime, said: str
) -> None:
    """It was told without the date."""
    own = server.authority.server("localhost", not_before=begin, not_after=begin + HOUR)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    with listener(b"", context) as address:
        code, told = whoami(server, server=address)
    assert code == 5
    assert said in told


def not_accepted(issued: Issued) -> str:
    return f"jobworker: the server does not accept the certificate {issued.certificate}: "


def test_ones_own_certificate_is_of_another_ca(server: Server, stranger: Authority) -> None:
    """What was refused for the certificate ended with 5, not with 4 as documented."""
    issued = stranger.client()
    assert as_client(server, issued) == (
        4,
        f"{not_accepted(issued)}it is signed by a CA that the server does not trust\n",
    )


def test_ones_own_certificate_has_expired(server: Server) -> None:
    """It ended with 5, and without the date."""
    end = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    issued = server.authority.client(not_before=end - HOUR, not_after=end)
    assert as_client(server, issued) == (
        4,
        f"{not_accepted(issued)}it expired at 2026-01-02 03:04:05 UTC; get a new one\n",
    )


def test_ones_own_certificate_is_not_valid_yet(server: Server) -> None:
    """It was told as one that the server's log says more of."""
    begin = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)
    issued = server.authority.client(not_before=begin, not_after=begin + HOUR)
    assert as_client(server, issued) == (
        4,
        f"{not_accepted(issued)}it is valid only from 2099-01-02 03:04:05 UTC on; "
        "check this host's clock\n",
    )


def test_ones_own_certificate_has_a_short_key(server: Server) -> None:
    """The key file was told to be damaged."""
    issued = server.authority.client(key=rsa.generate_private_key(65537, 1024))
    code, said = as_client(server, issued)
    assert code == 4
    assert said.startswith(f"{not_accepted(issued)}its key is too short; get one with ")


def test_ones_own_certificate_is_a_servers(server: Server) -> None:
    issued = server.authority.client(usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert as_client(server, issued) == (
        4,
        f"{not_accepted(issued)}it is not for clients; get one that is\n",
    )


def test_the_key_is_anothers(server: Server) -> None:
    key = server.users["bob"].key
    code, said = whoami(server, key=key)
    assert code == 2
    assert f"the key {key} does not belong to the certificate" in said


@pytest.mark.parametrize("variable", ["https_proxy", "grpc_proxy", "http_proxy", "HTTPS_PROXY"])
def test_a_proxy_is_not_used(server: Server, variable: str) -> None:
    """GRPC went to the proxy of the environment, while output connections went directly."""
    environment = server.environment("alice") | {variable: "http://127.0.0.1:9"}
    done = subprocess.run(
        [JOBWORKER, "whoami"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("setting", ["ca", "cert", "key"])
def test_a_file_is_not_there(server: Server, setting: str) -> None:
    code, said = whoami(server, **{setting: "/nonexistent/file"})
    assert code == 2
    assert "/nonexistent/file: No such file or directory" in said


@pytest.mark.parametrize("setting", ["ca", "cert", "key"])
def test_a_file_is_something_else(server: Server, setting: str) -> None:
    code, said = whoami(server, **{setting: "/etc/passwd"})
    assert code == 2
    assert "/etc/passwd is not one in PEM form" in said


@pytest.mark.parametrize("setting", ["ca", "cert", "key"])
def test_a_file_is_damaged(server: Server, setting: str, tmp_path: Path) -> None:
    path = Path(server.environment("alice")[f"JOBWORKER_{setting.upper()}"])
    head, *_, foot = path.read_text().splitlines()
    damaged = tmp_path / "damaged"
    damaged.touch(mode=0o600)
    damaged.write_text(f"{head}\nAAAA\n{foot}\n")
    code, said = whoami(server, **{setting: damaged})
    assert code == 2
    assert f"{damaged} is damaged" in said


def test_the_key_is_encrypted(server: Server, tmp_path: Path) -> None:
    key = load_pem_private_key(server.users["alice"].key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    code, said = whoami(server, key=encrypted)
    assert code == 2
    assert f"the client key {encrypted} is encrypted" in said


def test_a_key_that_others_can_read_is_warned_of(server: Server) -> None:
    issued = server.authority.client()
    issued.key.chmod(0o640)
    code, said = as_client(server, issued)
    assert code == 0
    assert said == (
        f"jobworker: warning: others can read the key {issued.key} (mode 0640); "
        f"run `chmod 600 {issued.key}`\n"
    )
