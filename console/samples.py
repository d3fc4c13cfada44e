"""What jobs use, measured once for all pages that show it."""

import time
from typing import NamedTuple

from jobworker.supervisor import JobSnapshot, NoSuchJob, SupervisorClient, Usage

# A sample may be so old when it is shown.
FRESH_SECONDS = 0.9
# Of two that are further apart no rate is told: it would not be that of now.
_MOST_APART_SECONDS = 60.0
_MOST_KEPT = 4096


class Sample(NamedTuple):
    """What a job had used at a moment (of the monotonic clock), and how many CPUs it takes now.

    `cpus` is None where there is no sample of a little before.
    """

    moment: float
    usage: Usage
    cpus: float | None


class Samples:
    """The last sample of each job that is shown; belongs to the event loop."""

    def __init__(self, supervisor: SupervisorClient) -> None:
        self._supervisor = supervisor
        self._last: dict[str, Sample] = {}

    async def of(self, job_id: str) -> Sample | None:
        """A sample of now, None for a job that has gone meanwhile."""
        last = self._last.get(job_id)
        if last is not None and time.monotonic() - last.moment < FRESH_SECONDS:
            return last
        try:
            job = await self._supervisor.get(job_id)
        except NoSuchJob:
            self._last.pop(job_id, None)
            return None
        return self._take(job, last)

    def _take(self, job: JobSnapshot, last: Sample | None) -> Sample:
        now = time.monotonic()
        sample = Sample(now, job.usage, _rate(last, now, job.usage))
        # The one that was taken longest ago is the first.
        self._last.pop(job.id, None)
        self._last[job.id] = sample
        while len(self._last) > _MOST_KEPT:
            del self._last[next(iter(self._last))]
        return sample


def cpu_seconds(usage: Usage) -> float | None:
    """User and system time together, None where it is not known."""
    if usage.user_seconds is None or usage.system_seconds is None:
        return None
    return usage.user_seconds + usage.system_seconds


def _rate(last: Sample | None, now: float, usage: Usage) -> float | None:
    if last is None or now - last.moment > _MOST_APART_SECONDS:
        return None
    before, after = cpu_seconds(last.usage), cpu_seconds(usage)
    if before is None or after is None:
        return None
    return max(0.0, after - before) / (now - last.moment)
