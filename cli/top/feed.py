"""Looks at the jobs again and again, in a thread, while the terminal is attended to."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobworker.cli.selection import PAGE, pages
from jobworker.cli.top.sums import Look
from jobworker.client.errors import ClientError, NoSuchJob, Refused

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.client.messages import JobStatus
    from jobworker.proto import workerservice_pb2 as pb

# So many are asked about at a time: over a slow network one after another takes too long.
_TOGETHER = 16


def look(service: "Service", asked: "pb.ListRequest", calls: ThreadPoolExecutor) -> Look:
    """What the jobs of a list use now; the newest PAGE of them. Raises ClientError."""
    from jobworker.client.messages import read_job

    asked.pageToken = ""
    listed = list(pages(service, asked, PAGE))

    def measured(message: "pb.QueryStatusResponse") -> "JobStatus":
        try:
            return read_job(service.status(message.jobID))
        except (NoSuchJob, Refused):
            # One that one may list, and no more; or it has ended, and is removed.
            return read_job(message)

    jobs = [job for job in calls.map(measured, listed) if not job.ended]
    return Look(time.monotonic(), jobs, whole=not asked.pageToken)


class Feed:
    """The newest look, or why there is none; `woken` can be read from when there is another."""

    def __init__(self, service: "Service", asked: "pb.ListRequest", interval: float) -> None:
        self._service = service
        self._asked = asked
        self._interval = interval
        self.woken, self._wake = os.pipe()
        self._over = threading.Event()
        self._found: list[Look | ClientError] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look within the block."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()

    def take(self) -> "list[Look | ClientError]":
        """What has been found since, the oldest first."""
        os.read(self.woken, 4096)
        found, self._found = self._found, []
        return found

    def _run(self) -> None:
        with ThreadPoolExecutor(_TOGETHER) as calls:
            while not self._over.is_set():
                begun = time.monotonic()
                try:
                    self._found.append(look(self._service, self._asked, calls))
                except ClientError as error:
                    self._found.append(error)
                os.write(self._wake, b"!")
                self._over.wait(max(0.0, begun + self._interval - time.monotonic()))
