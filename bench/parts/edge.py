"""What the TLS edge costs: the same calls to gRPC's own TLS and through the edge.

Client and server are two processes on this machine; the server answers from
memory. The ways in take turns, round by round, and each number is the median
of the rounds. Run in the repository as `PYTHONPATH=. python bench/parts/edge.py`.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import grpc

from jobworker.grpc_api.edge.credentials import TlsFiles
from jobworker.grpc_api.edge.tls import write_openssl_config

ROUNDS = 5
CALLS = 1_000
STREAM_BYTES = 128 * 1024 * 1024
SMALL, LARGE = 64 * 1024, 1024 * 1024
WAYS = ("native", "edge")
OPTIONS = (("grpc.max_receive_message_length", 4 * LARGE),)

_Context = grpc.aio.ServicerContext[Any, Any]


class Measured(NamedTuple):
    """One round: microseconds a call, and megabytes a second."""

    call_p50: float
    call_p99: float
    down_small: float
    down_large: float
    up_small: float


TITLES = ("call p50 µs", "call p99 µs", "down 64 KiB MB/s", "down 1 MiB MB/s", "up 64 KiB MB/s")


def main() -> None:
    """Measure and print the table."""
    from tests.support.pki import Authority

    rounds: dict[str, list[Measured]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as name:
        directory = Path(name)
        authority = Authority(directory)
        server = authority.server()
        files = TlsFiles(server.certificate, server.key, authority.certificate)
        client = authority.client()
        credentials = grpc.ssl_channel_credentials(
            authority.certificate.read_bytes(),
            client.key.read_bytes(),
            client.certificate.read_bytes(),
        )
        for _ in range(ROUNDS):
            for way in WAYS:
                with served(way, files, directory) as port:
                    rounds[way].append(measure(port, credentials))
    print(f"{'':18}" + "".join(f"{way:>10}" for way in WAYS) + f"{'ratio':>8}")
    for column, title in enumerate(TITLES):
        values = [statistics.median(one[column] for one in rounds[way]) for way in WAYS]
        cells = "".join(f"{value:>10.0f}" for value in values)
        print(f"{title:18}{cells}{values[1] / values[0]:>8.2f}")


def measure(port: int, credentials: grpc.ChannelCredentials) -> Measured:
    """Measure one server."""
    with grpc.secure_channel(f"localhost:{port}", credentials, OPTIONS) as channel:
        echo = channel.unary_unary("/Bench/Echo", None, None)
        message = os.urandom(50)
        for _ in range(100):
            echo(message)
        times = sorted(timed(lambda: echo(message)) for _ in range(CALLS))
        down = channel.unary_stream("/Bench/Down", None, None)
        up = channel.stream_unary("/Bench/Up", None, None)
        piece = os.urandom(SMALL)

        def rate(transfer: Callable[[], None]) -> float:
            return STREAM_BYTES / timed(transfer) / 1e6

        return Measured(
            times[CALLS // 2] * 1e6,
            times[CALLS * 99 // 100] * 1e6,
            rate(lambda: drain(down(str(SMALL).encode()))),
            rate(lambda: drain(down(str(LARGE).encode()))),
            rate(lambda: up(iter([piece] * (STREAM_BYTES // SMALL)))),
        )


def timed(action: Callable[[], object]) -> float:
    """Return the seconds an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def drain(messages: Iterable[bytes]) -> None:
    """Read a stream and see that all of it came."""
    received = sum(map(len, messages))
    if received != STREAM_BYTES:
        raise RuntimeError(f"{received} bytes came in place of {STREAM_BYTES}")


@contextmanager
def served(way: str, files: TlsFiles, directory: Path) -> Iterator[int]:
    """Run a server in its own process and give its port."""
    config = write_openssl_config(directory)
    arguments = [files.certificate, files.key, files.ca, directory / f"{way}.sock"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.parts.edge", way, *map(str, arguments)],
        env={**os.environ, "OPENSSL_CONF": str(config)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


async def serve(way: str, files: TlsFiles, backend: Path) -> None:
    """Serve one of WAYS until killed, and print the port."""
    from jobworker.grpc_api.edge.edge import Edge

    server = grpc.aio.server(options=OPTIONS)
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Down": grpc.unary_stream_rpc_method_handler(_down),
        "Up": grpc.stream_unary_rpc_method_handler(_up),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Bench", handlers),))
    if way == "native":
        pair = (files.key.read_bytes(), files.certificate.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], files.ca.read_bytes(), True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
    else:
        server.add_insecure_port(f"unix:{backend}")
        await server.start()
        _, port = await Edge(files, backend).start("127.0.0.1", 0)
    print(port, flush=True)
    await server.wait_for_termination()


async def _echo(request: bytes, context: _Context) -> bytes:
    del context
    return request


async def _down(request: bytes, context: _Context) -> AsyncIterator[bytes]:
    del context
    piece = os.urandom(int(request))
    for _ in range(STREAM_BYTES // len(piece)):
        yield piece


async def _up(requests: AsyncIterator[bytes], context: _Context) -> bytes:
    del context
    async for _ in requests:
        pass
    return b""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        import uvloop

        way, *paths, backend = sys.argv[1:]
        uvloop.run(serve(way, TlsFiles(*map(Path, paths)), Path(backend)))
    else:
        main()
