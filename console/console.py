"""The console in the front: its own port, its own edge, and the application behind that."""

import logging
import socket
from collections.abc import Iterable
from pathlib import Path

from jobworker.console.app import application
from jobworker.console.calls import Calls
from jobworker.console.safety import Hosts
from jobworker.console.server import WebServer
from jobworker.console.site import Places, Site
from jobworker.console.streams import Streams
from jobworker.grpc_api.edge.edge import Edge

log = logging.getLogger(__name__)

# A supervisor that comes back tells of the jobs that have ended since; longer than it may take.
_OUTAGE_NS = 600 * 1_000_000_000


class Console:
    """Serves pages from `start` on until `close`; belongs to the event loop."""

    def __init__(
        self, edge: Edge, calls: Calls, hosts: Iterable[str], stall_seconds: float, places: Places
    ) -> None:
        """`edge` leads to the socket that is given to `start`; `hosts` are names beside its.

        A reader that takes nothing of an answer for `stall_seconds` is cut.
        """
        self.edge = edge
        self._streams = Streams(stall_seconds)
        site = Site(calls, edge, self._streams, places)
        calls.access.supervisor.observe(lambda: _OUTAGE_NS, site.news.told)
        self._server = WebServer(application(site, Hosts(lambda: edge.hosts, hosts)))

    async def start(
        self, backend: Path, address: tuple[str, int], kept: Iterable[socket.socket]
    ) -> None:
        """Listen. Raises ListenError."""
        await self._server.listen(backend)
        host, port = await self.edge.start(*address, kept)
        log.info("the console is at https://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def close(self, seconds: float) -> None:
        """Accept no more, and have what is open end."""
        await self.edge.close(seconds)
        self._streams.closing.set()
        self._server.close()

    async def stop(self, grace: float) -> None:
        """End what has not ended by itself after so many seconds."""
        self._server.close()
        await self.edge.stop(grace)
