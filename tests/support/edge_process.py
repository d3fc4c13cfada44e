"""An edge with a small gRPC service behind it, in a process of its own, for tests.

As a program it serves, takes commands as JSON lines on its input, and answers
each with one on its output. The suite comes from OPENSSL_CONF, which OpenSSL
reads when a process first loads it, so no test could serve in its own process.
"""

import asyncio
import hashlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil

from jobworker.grpc_api.edge.admission import EdgeLimits
from jobworker.grpc_api.edge.credentials import TlsFiles
from jobworker.grpc_api.edge.tls import write_openssl_config
from jobworker.grpc_api.errors import ApiError, TurnedAway

DEADLINE = 30.0
PIECE = 65_536

_Context = grpc.aio.ServicerContext[Any, Any]


class EdgeProcess:
    """A running edge, seen from the test."""

    def __init__(self, process: "subprocess.Popen[str]", backend: Path) -> None:
        self._process = process
        self.backend = backend
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._log: queue.Queue[str] = queue.Queue()
        # The log's lines that `wait_for_log` has come by.
        self.seen: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_answers),
            threading.Thread(target=self._read_log),
        ]
        for thread in self._threads:
            thread.start()
        self.port: int = self._answer()["port"]

    @property
    def target(self) -> str:
        """What a gRPC client connects to."""
        return f"localhost:{self.port}"

    @property
    def system(self) -> psutil.Process:
        """The process as the system sees it."""
        return psutil.Process(self._process.pid)

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Have the process do something, and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": name, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def connections(self) -> list[dict[str, Any]]:
        """Return the connections that are being relayed."""
        listed: list[dict[str, Any]] = self.command("connections")["connections"]
        return listed

    def wait_for_log(self, text: str) -> str:
        """Return the next log line that holds `text`."""
        while True:
            try:
                line = self._log.get(timeout=DEADLINE)
            except queue.Empty:
                raise AssertionError(f"the edge never logged {text!r}") from None
            self.seen.append(line)
            if text in line:
                return line

    def close(self) -> None:
        """Kill the process and see it gone."""
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _answer(self) -> dict[str, Any]:
        return self._answers.get(timeout=DEADLINE)

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.put(line.rstrip())


@contextmanager
def running_edge(
    files: TlsFiles,
    directory: Path,
    limits: EdgeLimits | None = None,
    host: str = "127.0.0.1",
    open_files: int = 4096,
    service: bool = True,
) -> Iterator[EdgeProcess]:
    """Serve with `files` for as long as the block runs, with `directory` for its socket.

    Without `service` there is no gRPC behind it, and the test listens there itself.
    """
    backend = directory / "grpc.sock"
    settings = {
        "files": {name: path and str(path) for name, path in vars(files).items()},
        "backend": str(backend),
        "limits": vars(limits or EdgeLimits()),
        "host": host,
        "open_files": open_files,
        "service": service,
    }
    environment = {**os.environ, "OPENSSL_CONF": str(write_openssl_config(directory))}
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(settings)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    edge = EdgeProcess(process, backend)
    try:
        yield edge
    finally:
        edge.close()


# What follows runs in the process.


async def _main(settings: dict[str, Any]) -> None:
    from jobworker.grpc_api.edge.edge import Edge

    files = {name: path and Path(path) for name, path in settings["files"].items()}
    backend = Path(settings["backend"])
    edge = Edge(TlsFiles(**files), backend, EdgeLimits(**settings["limits"]))
    server = _server(edge)
    if settings["service"]:
        server.add_insecure_port(f"unix:{backend}")
        await server.start()
    _, port = await edge.start(settings["host"], 0)
    _say(port=port)
    await _obey(edge, server)


async def _obey(edge: Any, server: grpc.aio.Server) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        request = json.loads(line)
        name = request.pop("command")
        try:
            if name == "connections":
                _say(connections=[_shown(connection) for connection in edge.connections()])
            elif name == "reload":
                _say(ended=edge.reload())
            elif name == "close_serial":
                _say(ended=edge.close_serial(**request))
            elif name == "start":
                _say(address=list(await edge.start(**request)))
            elif name == "stop":
                await asyncio.gather(edge.stop(**request), server.stop(request["grace"]))
                _say(stopped=True)
        except ApiError as error:
            _say(error=str(error), kind=type(error).__name__)


def _shown(connection: Any) -> dict[str, Any]:
    return {
        "peer": connection.peer,
        "address": connection.address,
        "name": connection.identity and connection.identity.common_name,
        "serial": connection.serial,
    }


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def _server(edge: Any) -> grpc.aio.Server:
    async def who(request: bytes, context: _Context) -> bytes:
        del request
        return await _who(edge, context)

    server = grpc.aio.server()
    handlers = {
        "Who": grpc.unary_unary_rpc_method_handler(who),
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Download": grpc.unary_stream_rpc_method_handler(_download),
        "Upload": grpc.stream_unary_rpc_method_handler(_upload),
        "Park": grpc.unary_stream_rpc_method_handler(_park),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", handlers),))
    return server


async def _who(edge: Any, context: _Context) -> bytes:
    from jobworker.authz.identity import IdentityError

    try:
        identity = edge.identity_of(context.peer())
    except IdentityError as error:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
    except TurnedAway as error:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
    if identity is None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "nobody known")
    return f"{identity.common_name} {context.peer()}".encode()


async def _echo(request: bytes, context: _Context) -> bytes:
    del context
    return request


async def _download(request: bytes, context: _Context) -> AsyncIterator[bytes]:
    del context
    for piece in pieces(int(request)):
        yield piece


async def _upload(requests: AsyncIterator[bytes], context: _Context) -> bytes:
    del context
    digest = hashlib.sha256()
    async for piece in requests:
        digest.update(piece)
    return digest.hexdigest().encode()


async def _park(request: bytes, context: _Context) -> AsyncIterator[bytes]:
    del request, context
    yield b"parked"
    await asyncio.Event().wait()


def pieces(total: int) -> Iterator[bytes]:
    """Yield `total` bytes in pieces, each of which tells its place."""
    for start in range(0, total, PIECE):
        seed = hashlib.sha256(str(start).encode()).digest()
        yield (seed * (PIECE // len(seed)))[: min(PIECE, total - start)]


if __name__ == "__main__":
    import resource

    import uvloop

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    chosen = json.loads(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(chosen["open_files"], hard), hard))
    uvloop.run(_main(chosen))
