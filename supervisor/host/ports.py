"""Connecting to a port at which a process of a job listens, and to nothing else on the host.

That it listens there is looked for before, and who has taken the connection
after: between the two the port may have changed hands. Nothing is sent before.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from jobworker.supervisor.errors import Exhausted, NothingListens
from jobworker.supervisor.host.job_sockets import Listening, Owner, listening_at
from jobworker.supervisor.host.tcp_sockets import (
    CLOSE_WAIT,
    ESTABLISHED,
    SYN_RECEIVED,
    Address,
    endpoint,
)

log = logging.getLogger(__name__)

# Connections to a job that are being made at once; others wait for their turn.
AT_ONCE = 16
# For how long one may wait for its turn, and for the job to take it: together less than the
# client of the supervisor waits for an answer.
ACCEPT_SECONDS = 10.0
FIRST_LOOK_SECONDS = 0.0005
LONGEST_LOOK_SECONDS = 0.25
# Between accept(2) giving a socket its inode and a program its descriptor there is a moment.
MOST_MISSES = 10

_T = TypeVar("_T")


class _NotTheJobs(Exception):
    """Somebody else has taken the connection."""


@dataclass
class _UnderWay:
    """The connections to a job that are being made; only one of them looks at its processes."""

    count: int = 0
    turns: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, AT_ONCE))
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Ports:
    """Makes connections to jobs' ports. `seconds` is how long a job may take to accept one."""

    def __init__(self, seconds: float = ACCEPT_SECONDS) -> None:
        self._seconds = seconds
        self._jobs: dict[str, _UnderWay] = {}

    async def connect(self, owner: Owner, port: int) -> socket.socket:
        """A socket connected to the port, which does not block.

        Raises NothingListens and Exhausted.
        """
        under_way = self._jobs.setdefault(owner.job_id, _UnderWay())
        under_way.count += 1
        try:
            async with asyncio.timeout(self._seconds):
                await under_way.turns.acquire()
            try:
                return await _Way(owner, port, under_way.looking, self._seconds).connect()
            finally:
                under_way.turns.release()
        except TimeoutError:
            raise Exhausted(
                f"too many connections to job {owner.job_id} wait to be accepted: try again later"
            ) from None
        finally:
            under_way.count -= 1
            if not under_way.count:
                del self._jobs[owner.job_id]


@dataclass(frozen=True)
class _Way:
    """One connection to a job's port."""

    owner: Owner
    port: int
    looking: asyncio.Lock
    seconds: float

    async def connect(self) -> socket.socket:
        job, port = self.owner.job_id, self.port
        nothing = NothingListens(f"no process of job {job} listens at the TCP port {port}")
        try:
            listening = await self._look(partial(listening_at, self.owner, port))
        except (FileNotFoundError, ProcessLookupError):
            raise nothing from None
        if listening is None:
            raise nothing
        with contextlib.closing(listening):
            for way in listening.ways:
                try:
                    return await self._by(listening, way)
                except TimeoutError:
                    raise NothingListens(
                        f"job {job} listens at the TCP port {port}, and took no connection "
                        f"within {self.seconds:g} s"
                    ) from None
                except _NotTheJobs:
                    log.warning("job %s: port %d is another's, by %s", job, port, way)
                    raise nothing from None
                except OSError as error:
                    log.info("job %s: port %d cannot be reached: %s", job, port, error)
        raise nothing

    async def _by(self, listening: Listening, way: Address) -> socket.socket:
        made = await self._look(partial(listening.socket_to, way))
        try:
            made.setblocking(False)
            async with asyncio.timeout(self.seconds):
                address = (str(way), self.port)
                await asyncio.get_running_loop().sock_connect(made, address)
            await self._be_taken(listening, way, made)
        except BaseException:
            made.close()
            raise
        return made

    async def _be_taken(self, listening: Listening, way: Address, made: socket.socket) -> None:
        """Wait until the job has taken the connection. Raises _NotTheJobs if another has.

        Raises TimeoutError when it does not.
        """
        own = endpoint(*made.getsockname()[:2])
        deadline = asyncio.get_running_loop().time() + self.seconds
        misses, pause = 0, FIRST_LOOK_SECONDS
        while True:
            other = await self._look(partial(listening.other_end, way, own))
            if other is None:
                # The table is read piece by piece, and what changes meanwhile may be left out.
                misses += 1
            elif other.inode:
                if await self._look(partial(listening.owner.has, other.inode)):
                    return
                misses += 1
            elif other.state not in (ESTABLISHED, SYN_RECEIVED, CLOSE_WAIT):
                # Taken and closed again, as by a server that only says something: nobody has
                # it any more. It was the job's if nobody else could take it all the while.
                if await self._look(partial(listening.still, way)):
                    return
                misses = MOST_MISSES
            if misses >= MOST_MISSES:
                raise _NotTheJobs
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError
            await asyncio.sleep(pause)
            pause = min(LONGEST_LOOK_SECONDS, pause * 1.5)

    async def _look(self, look: Callable[[], _T]) -> _T:
        """What may take long, where it does not hold up the supervisor, nor other jobs' turns."""
        async with self.looking:
            return await asyncio.to_thread(look)
