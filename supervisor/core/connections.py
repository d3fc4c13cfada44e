"""Connections to ports of jobs: made by the engine, handed on to the client that asked."""

import asyncio
import logging
from pathlib import Path

from jobworker.supervisor.engine import Engine
from jobworker.supervisor.errors import SupervisorError, fitting
from jobworker.supervisor.ipc.handover import Handovers
from jobworker.supervisor.ipc.server import Client
from jobworker.supervisor.job import Job

log = logging.getLogger(__name__)


class Connections:
    """Those that are being made."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, engine: Engine, directory: Path, readers: int
    ) -> None:
        """They are handed over in the directory, also to the group `readers` (-1 for none)."""
        self._loop = loop
        self._engine = engine
        self._directory = directory
        self._handovers = Handovers(loop, directory, readers)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, client: Client, seq: int, job: Job, port: int) -> None:
        """Connect to a job's port, and answer with that or with why it cannot be."""
        task = self._loop.create_task(self._connect(client, seq, job, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: Client, seq: int, job: Job, port: int) -> None:
        try:
            made = await self._engine.connect(job, port)
            token = self._handovers.offer(made.detach())
        except SupervisorError as error:
            client.refuse(seq, error)
        except Exception as error:
            log.exception("job %s: no connection to port %d", job.id, port)
            client.refuse(seq, fitting(error))
        else:
            client.offer(seq, str(self._directory), token)

    def close(self) -> None:
        """Make none any more."""
        for task in self._tasks:
            task.cancel()
        self._handovers.close()
