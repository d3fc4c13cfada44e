"""Output over a slow network: compressed on its way, the same bytes at its end."""

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.client.endpoint import Endpoint
from jobworker.client.output_connection import OutputConnection
from jobworker.client.pieces import Chunk
from jobworker.grpc_api.service.compression import (
    LEAST_BYTES,
    RETRY_BYTES,
    SLOW_LINK,
    UNHINDERED_BYTES,
    Compression,
    Gain,
    Link,
)
from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import calling, start, wait
from tests.support.relay import Relay, relay_to
from tests.support.server import JOBWORKER, PORT, Server

# 100 Mbit/s.
RATE = 12.5e6
# Text, then bytes that nothing makes smaller, then text.
SCRIPT = """
import random, sys
random.seed(7)
def text(lines):
    for number in range(lines):
        print(f"2026-01-01T00:00:{number % 60:02} worker {number % 7}: step {number} of many done")
text(400_000)
sys.stdout.flush()
sys.stdout.buffer.write(random.randbytes(3_000_000))
sys.stdout.flush()
text(400_000)
"""


class Clock:
    """Time as a test wants it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def job(server: Server) -> tuple[str, bytes]:
    """A job that has written much, and what."""
    written = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True).stdout
    with calling(server, "alice") as worker:
        job_id = start(worker, sys.executable, "-c", SCRIPT)
        assert wait(worker, job_id).outputBytes == len(written)
    return job_id, written


@pytest.fixture
def slow(server: Server) -> Iterator[Relay]:
    """A slow way to the server."""
    with relay_to((server.host, PORT), rate=RATE) as relay:
        yield relay


def received(server: Server, address: str, job_id: str) -> tuple[bytes, int]:
    """The output, and how many bytes of it came compressed."""
    files, ca = server.users["alice"], server.authority.certificate
    settings = Endpoint(address, ca, files.certificate, files.key)
    with OutputConnection(settings) as connection:
        pieces = connection.output(pb.GetOutputRequest(jobID=job_id))
        data = b"".join(bytes(piece.data) for piece in pieces if isinstance(piece, Chunk))
        return data, connection.encoded_bytes


def test_every_byte_crosses_a_slow_network_compressed(
    server: Server, slow: Relay, job: tuple[str, bytes]
) -> None:
    job_id, written = job
    data, encoded = received(server, slow.address, job_id)
    assert data == written
    assert encoded > 0
    assert slow.passed < len(written) / 2


def test_who_cannot_decode_gets_plain_bytes(
    server: Server, slow: Relay, job: tuple[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, written = job
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    data, encoded = received(server, slow.address, job_id)
    assert data == written
    assert encoded == 0
    assert slow.passed > len(written)


def test_a_fast_network_gets_plain_bytes(server: Server, job: tuple[str, bytes]) -> None:
    job_id, written = job
    data, encoded = received(server, server.address, job_id)
    assert data == written
    assert encoded < len(written) / 20


def test_logs_come_compressed(
    server: Server, slow: Relay, job: tuple[str, bytes], tmp_path: Path
) -> None:
    """Also where the network lets through less than what was once taken for a flood."""
    job_id, written = job
    into = tmp_path / "output"
    environment = {**server.environment("alice"), "JOBWORKER_SERVER": slow.address}
    with into.open("wb") as out:
        subprocess.run([JOBWORKER, "logs", job_id], stdout=out, env=environment, check=True)
    assert hashlib.sha256(into.read_bytes()).digest() == hashlib.sha256(written).digest()
    assert slow.passed < len(written) * 2 / 3


def test_a_link_is_measured_while_it_is_waited_for() -> None:
    clock = Clock()
    link = Link(clock)
    link.sent(1_000_000, waited=True)
    assert link.rate == 0, "nobody knows since when it was busy"
    clock.now += 0.5
    link.sent(1_000_000, waited=True)
    assert link.rate == 2_000_000
    # The job was silent for an hour.
    clock.now += 3600
    link.sent(1_000_000, waited=False)
    link.sent(1_000_000, waited=True)
    assert link.rate == 2_000_000


def test_a_link_that_nobody_waits_for_is_not_slow() -> None:
    link = Link(Clock(), rate=1_000_000)
    link.sent(UNHINDERED_BYTES, waited=False)
    assert link.rate
    link.sent(1, waited=False)
    assert not link.rate


def test_what_the_client_saw_decides_before_anything_was_sent() -> None:
    assert Compression(SLOW_LINK / 10).wanted(1_000_000)
    assert not Compression(SLOW_LINK * 2).wanted(1_000_000)


def busy(compression: Compression, clock: Clock, rate: float) -> None:
    """Let it see a link of so many bytes a second."""
    for _ in range(20):
        compression.link.sent(1_000_000, waited=True)
        clock.now += 1_000_000 / rate


def test_compression_is_for_slow_links_and_large_pieces() -> None:
    clock = Clock()
    compression = Compression(clock=clock)
    assert not compression.wanted(1_000_000), "nothing is known of the link"
    busy(compression, clock, SLOW_LINK * 2)
    assert not compression.wanted(1_000_000)
    busy(compression, clock, SLOW_LINK / 10)
    assert compression.wanted(1_000_000)
    assert not compression.wanted(LEAST_BYTES - 1)


def test_what_cannot_be_compressed_is_tried_seldom() -> None:
    clock = Clock()
    compression = Compression(clock=clock)
    busy(compression, clock, SLOW_LINK / 10)
    compression._gain = Gain(ratio=1.0, rate=500e6)
    tries = [compression.wanted(1024 * 1024) for _ in range(2 * RETRY_BYTES // 1024**2)]
    assert sum(tries) == 2


@pytest.mark.parametrize(
    ("link", "ratio", "rate", "worth_it"),
    [
        (12e6, 5.0, 300e6, True),
        (12e6, 1.1, 300e6, False),
        # The compressor would be what everything waits for.
        (140e6, 5.0, 100e6, False),
    ],
)
def test_the_slower_of_link_and_compressor_decides(
    link: float, ratio: float, rate: float, worth_it: bool
) -> None:
    assert Gain(ratio, rate).worth_it(link) is worth_it
