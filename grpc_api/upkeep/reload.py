"""Putting new policies, certificates and revocation lists in force while the server serves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Never

from jobworker.authz.policy.cases import cases_file
from jobworker.authz.policy.in_force import PolicyInForce
from jobworker.grpc_api.edge.credentials import TlsFiles
from jobworker.grpc_api.edge.edge import Edge
from jobworker.grpc_api.errors import TlsError
from jobworker.grpc_api.upkeep.file_watch import FileWatch

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Files that are only good together, and how what they say is put in force.

    `read` leaves in force what was, logs why and returns it as a sentence when
    the files are no good; None is for success.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[], Awaitable[str | None]]


# Called with a source's name and what is wrong with its files, None for nothing.
Tell = Callable[[str, str | None], Awaitable[None]]


async def keep_reloading(watch: FileWatch, sources: Sequence[Source], tell: Tell) -> Never:
    """Read each source again when one of its files has changed, until cancelled."""
    while True:
        changed = await watch.changes()
        for source in sources:
            if changed.intersection(source.files):
                await tell(source.name, await _read(source))


async def _read(source: Source) -> str | None:
    try:
        return await source.read()
    except Exception as fault:
        # Whatever is wrong with what is new, the old is still good.
        log.exception("reading the %s again failed", source.name)
        return f"a fault of the server: {fault!r}"


def policy_files(path: Path) -> tuple[Path, ...]:
    """The files of a policy: itself, and its cases, which need not be there."""
    return path, cases_file(path)


def policy_source(policy: PolicyInForce, review: Callable[[], None]) -> Source:
    """Reload a policy; `review` is called when another one is in force."""

    async def read() -> str | None:
        # Thousands of rules take a moment, in which calls go on to be served.
        outcome = await asyncio.to_thread(policy.reload)
        if outcome.changed:
            review()
        return outcome.error

    return Source("policy", policy_files(policy.path), read)


def tls_source(edges: Sequence[Edge], files: TlsFiles) -> Source:
    """Reload the edges' files, which ends the connections they no longer allow."""

    async def read() -> str | None:
        try:
            ended = sum(edge.reload() for edge in edges)
        except TlsError as error:
            log.error("certificates and revocation lists stay as they were: %s", error)
            return str(error)
        log.info("certificates and revocation lists were read again; connections ended: %d", ended)
        return None

    return Source("tls", files.all(), read)
