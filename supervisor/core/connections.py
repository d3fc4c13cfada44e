"""Connections to ports of jobs, and to porters: made by the engine, handed on to who asked."""

import asyncio
import logging
from pathlib import Path

from jobworker.supervisor.core.contact import Way
from jobworker.supervisor.errors import SupervisorError, fitting
from jobworker.supervisor.ipc.handover import Handovers
from jobworker.supervisor.ipc.server import Client
from jobworker.supervisor.job import Job

log = logging.getLogger(__name__)


class Connections:
    """Those that are being made."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path, readers: int) -> None:
        """They are handed over in the directory, also to the group `readers` (-1 for none)."""
        self._loop = loop
        self._directory = directory
        self._handovers = Handovers(loop, directory, readers)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, client: Client, seq: int, job: Job, making: Way) -> None:
        """Make a connection for a job, and answer with that or with why it cannot be."""
        task = self._loop.create_task(self._connect(client, seq, job, making))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: Client, seq: int, job: Job, making: Way) -> None:
        try:
            made = await making
            token = self._handovers.offer(made.detach())
        except SupervisorError as error:
            client.refuse(seq, error)
        except Exception as error:
            log.exception("job %s: no connection", job.id)
            client.refuse(seq, fitting(error))
        else:
            client.offer(seq, str(self._directory), token)

    def close(self) -> None:
        """Make none any more."""
        for task in self._tasks:
            task.cancel()
        self._handovers.close()
