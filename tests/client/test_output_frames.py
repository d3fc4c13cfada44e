"""The client's end of an output connection, against frames and networks of every shape."""

import random
import socket
import ssl
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import CallFailed
from jobworker.client.output_connection import PROTOCOL, OutputConnection
from jobworker.client.pieces import Chunk, Gap
from jobworker.grpc_api.edge.session import TlsSession
from jobworker.proto import workerservice_pb2 as pb
from tests.support.pki import Authority, Issued

DEADLINE_SECONDS = 60
LENGTH = struct.Struct(">I")
RECORD = 16 * 1024
MIB = 1024 * 1024

# Around all the sizes at which something changes: none, a record, what the
# client wakes up for, a piece.
sizes = st.integers(0, 3 * RECORD) | st.builds(
    int.__add__, st.sampled_from([RECORD, 896 * 1024, MIB, 2 * MIB]), st.integers(-300, 300)
)


@dataclass(frozen=True)
class Site:
    """Where a test's server listens, and what it and its client show."""

    listener: socket.socket
    context: ssl.SSLContext
    authority: Authority
    client: Issued

    @property
    def settings(self) -> Endpoint:
        address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        ca = self.authority.certificate
        return Endpoint(address, ca, self.client.certificate, self.client.key)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory: Path = tmp_path_factory.mktemp("pki")
    authority = Authority(directory)
    own = authority.server("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.set_alpn_protocols([PROTOCOL])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Site(listener, context, authority, authority.client())


def take(connection: socket.socket, session: TlsSession) -> None:
    """Wait for some of what the client sends."""
    ciphertext = connection.recv(RECORD)
    assert ciphertext, "the client hung up"
    session.feed(memoryview(ciphertext))


def request(connection: socket.socket, session: TlsSession) -> pb.GetOutputRequest:
    """Do the handshake and take the request, which is one record."""
    while not session.handshake():
        connection.sendall(session.outgoing())
        take(connection, session)
    connection.sendall(session.outgoing())
    while not (received := b"".join(session.decrypt())):
        take(connection, session)
    return pb.GetOutputRequest.FromString(received[LENGTH.size :])


def frames(output: list[bytes | int]) -> Iterator[tuple[pb.OutputFrame, bytes]]:
    """The frames of an output, each with its data: bytes are data, numbers are gaps."""
    offset = 0
    for part in output:
        if isinstance(part, int):
            yield pb.OutputFrame(offset=offset, gapBytes=part), b""
            offset += part
        else:
            yield pb.OutputFrame(offset=offset, dataBytes=len(part)), part
            offset += len(part)
    yield pb.OutputFrame(end=pb.OutputEnd()), b""


def serve(site: Site, output: list[bytes | int], cut: int, seed: int, lost: int) -> None:
    """Serve one connection, in pieces of up to `cut` bytes; the last `lost` bytes never come."""
    connection, _ = site.listener.accept()
    with connection:
        connection.settimeout(DEADLINE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = TlsSession(site.context)
        assert request(connection, session).jobID == "job"
        whole = bytearray()
        for frame, data in frames(output):
            head = frame.SerializeToString()
            whole += session.encrypt(LENGTH.pack(len(head)) + head, data)
        left = memoryview(whole)[: max(0, len(whole) - lost)]
        chance = random.Random(seed)
        while left:
            length = chance.randint(1, cut)
            connection.sendall(left[:length])
            left = left[length:]


def received(site: Site) -> Iterator[bytes | int]:
    """What the client is told: bytes, and the lengths of gaps, without a hole between them."""
    offset = 0
    with OutputConnection(site.settings) as connection:
        for piece in connection.output(pb.GetOutputRequest(jobID="job")):
            assert piece.offset == offset
            offset = piece.end
            if isinstance(piece, Chunk):
                assert len(piece.data) > 0
                yield bytes(piece.data)
            else:
                assert isinstance(piece, Gap)
                yield piece.length


def joined(parts: list[bytes | int]) -> list[bytes | int]:
    """The same output with neighbouring data in one."""
    found: list[bytes | int] = []
    for part in parts:
        if isinstance(part, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += part
        elif part:
            found.append(part)
    return found


@contextmanager
def served(site: Site, *arguments: object) -> Iterator[None]:
    """Serve one connection within the block; the server must end well, too."""
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(serve, site, *arguments)
        yield
        server.result(DEADLINE_SECONDS)


written = sizes.map(lambda size: random.Random(size).randbytes(size))
outputs = st.lists(written | st.integers(1, 10**12), min_size=1, max_size=8)
cuts = st.sampled_from([2_000, 50_000, MIB])
quickly = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@quickly
@given(outputs, cuts, st.integers())
def test_whatever_comes_is_told_as_it_is(
    site: Site, output: list[bytes | int], cut: int, seed: int
) -> None:
    with served(site, output, cut, seed, 0):
        assert joined(list(received(site))) == joined(output)


@quickly
@given(outputs, cuts, st.integers(), st.integers(1, 2 * MIB))
def test_a_broken_connection_is_told_after_what_came(
    site: Site, output: list[bytes | int], cut: int, seed: int, lost: int
) -> None:
    found: list[bytes | int] = []
    with served(site, output, cut, seed, lost):
        with pytest.raises(CallFailed) as caught:
            found.extend(received(site))
        assert caught.value.code == "UNAVAILABLE"
    # All but what was lost, and of that at most the record it ended in.
    whole = b"".join(part for part in output if isinstance(part, bytes))
    came = b"".join(part for part in found if isinstance(part, bytes))
    assert whole.startswith(came)
    assert len(came) >= len(whole) - lost - RECORD
    complete = joined(found)[:-1]
    assert complete == joined(output)[: len(complete)]
