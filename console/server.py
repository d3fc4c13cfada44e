"""HTTP and WebSockets for the console, on a unix socket that only the edge reaches: uvicorn."""

import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any, cast

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from uvicorn.server import ServerState

from jobworker.grpc_api.errors import ListenError

# Of one request's line and headers.
_HEADER_BYTES = 32 * 1024
# How long a connection may be idle between two requests.
_IDLE_SECONDS = 75
_BACKLOG = 512
# Of one message of a WebSocket's.
SOCKET_BYTES = 64 * 1024
# A WebSocket that does not answer for so long is closed.
_PING_SECONDS = 20.0


class WebServer:
    """Serves an ASGI application in the running event loop."""

    def __init__(self, app: ASGIApp) -> None:
        self._config = Config(
            cast(Any, app),
            http=_FromTheEdge,
            ws=_SocketFromTheEdge,
            ws_max_size=SOCKET_BYTES,
            ws_ping_interval=_PING_SECONDS,
            ws_ping_timeout=_PING_SECONDS,
            # What is typed is short, and what is compressed beside a secret tells of it (CRIME).
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_IDLE_SECONDS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
        self._config.load()
        # It tells of each request that is not HTTP, and of each answer that is cut short;
        # what is a fault, Safety tells.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        """Listen on a unix socket, in place of what an earlier front left there."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _FromTheEdge(self._config, self._state, {}), str(path), backlog=_BACKLOG
            )
        except OSError as error:
            raise ListenError(f"cannot listen on {path}: {error.strerror}") from error

    def close(self) -> None:
        """Accept no more; connections end when what they serve has ended."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()


class _FromTheEdge(H11Protocol):
    """Tells the application from which abstract address a connection of the edge's comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client = (_peer(transport.get_extra_info("socket")), 0)
        self.scheme = "https"
        # One that says nothing at all is not waited for.
        self.timeout_keep_alive_task = self.loop.call_later(
            _IDLE_SECONDS, self.timeout_keep_alive_handler
        )


class _SocketFromTheEdge(WSProtocol):
    """The same of a connection that has become a WebSocket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client = (_peer(transport.get_extra_info("socket")), 0)
        self.scheme = "wss"


def _peer(connection: socket.socket) -> str:
    """The name as Edge.identity_of takes it: what gRPC would report."""
    name = connection.getpeername()
    text = name.decode() if isinstance(name, bytes) else str(name)
    return f"unix-abstract:{text.removeprefix(chr(0))}"
