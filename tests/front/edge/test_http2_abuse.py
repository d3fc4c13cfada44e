"""HTTP/2 from a client of bad will: others are answered, and the front stays within bounds."""

import contextlib
import ssl
from collections.abc import Callable, Iterator

import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.front.test_front_killed import front_of
from tests.support import http2
from tests.support.client import calling, start
from tests.support.server import Server
from tests.support.waiting import until

MEGABYTE = 1 << 20
ROUNDS = 4
# The front grew by 130 MiB, and stayed so.
PEAK, BOUND = 100 * MEGABYTE, 48 * MEGABYTE
SOME = 500


def send_all(tls: ssl.SSLSocket, frames: Iterator[bytes]) -> None:
    """Send frames, many at once. Raises OSError when the server ends the connection."""
    waiting = b""
    for one in frames:
        waiting += one
        if len(waiting) > 64 * 1024:
            tls.sendall(waiting)
            waiting = b""
    tls.sendall(waiting)


def rapid_resets(_: str) -> Iterator[bytes]:
    reset = (8).to_bytes(4)
    for stream in range(1, 40_001, 2):
        yield http2.call(stream, "WhoAmI", b"") + http2.frame(http2.RESET, stream, reset)


def headers_without_end(_: str) -> Iterator[bytes]:
    yield http2.frame(http2.HEADERS, 1, http2.headers(__method="POST"))
    for _number in range(20 * MEGABYTE // 8192):
        yield http2.frame(http2.CONTINUATION, 1, 64 * http2.headers(**{"x" * 62: "y" * 63}))


def open_streams(job_id: str) -> Iterator[bytes]:
    request = pb.WaitRequest(jobID=job_id).SerializeToString()
    for stream in range(1, 30_001, 2):
        yield http2.call(stream, "Wait", request)


def pings(_: str) -> Iterator[bytes]:
    for _number in range(100_000):
        yield http2.frame(http2.PING, 0, b"12345678")


@pytest.mark.parametrize("attack", [rapid_resets, headers_without_end, open_streams, pings])
def test_the_front_lives_on_within_bounds(
    fresh_server: Server, attack: Callable[[str], Iterator[bytes]]
) -> None:
    """20,000 rapid resets, 20 MB of headers and 15,000 streams had it grow from 67 to 197 MiB."""
    with calling(fresh_server, "alice") as worker:
        job_id = start(worker, "sleep", "1000")
        for _ in range(SOME):
            worker.WhoAmI(pb.WhoAmIRequest())
        front = front_of(fresh_server)
        before = front.memory_info().rss
        for _ in range(ROUNDS):
            with contextlib.suppress(OSError), http2.connection(fresh_server, "alice") as tls:
                with contextlib.suppress(OSError):
                    send_all(tls, attack(job_id))
                # Others are answered while it is there.
                with calling(fresh_server, "bob") as other:
                    assert other.WhoAmI(pb.WhoAmIRequest(), timeout=60).commonName == "bob"
            assert front.memory_info().rss - before < PEAK
        until(lambda: front.memory_info().rss - before < BOUND)
        assert worker.QueryStatus(pb.QueryStatusRequest(jobID=job_id)).JobStatus == pb.RUNNING
        assert front_of(fresh_server).pid == front.pid
