"""What jobs use, measured once for all pages that show it; and how that was before."""

import time
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from jobworker.supervisor import JobSnapshot, NoSuchJob, SupervisorClient, Usage

# A sample may be so old when it is shown.
FRESH_SECONDS = 0.9
# Of two that are further apart no rate is told: it would not be that of now.
_MOST_APART_SECONDS = 60.0
_MOST_KEPT = 4096
# So many jobs' earlier samples are kept, and so many points of each: then every second
# one goes, and the next come half as often.
MOST_SERIES = 256
MOST_POINTS = 600


class Point(NamedTuple):
    """What a job used at a time (Unix time, in seconds); None for what is not known.

    CPUs, and bytes a second from and to disks, are of the time since the point before.
    """

    time: float
    cpus: float | None
    memory: float | None
    read: float | None
    written: float | None
    processes: float | None


class Sample(NamedTuple):
    """What a job had used at a moment of the monotonic clock; `point` is the same for a plot."""

    moment: float
    usage: Usage
    point: Point


class Series:
    """The points of one job, the first first, thinned as they become many."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        # Between two of them there are to be so many seconds at least.
        self._apart = 0.0

    def add(self, point: Point) -> None:
        """Keep it, unless it is too close to the one before."""
        if self.points and point.time - self.points[-1].time < self._apart:
            return
        self.points.append(point)
        if len(self.points) > MOST_POINTS:
            lasted = self.points[-1].time - self.points[0].time
            self._apart = 2 * lasted / MOST_POINTS
            del self.points[1::2]


class Samples:
    """The last sample of each job that is shown; belongs to the event loop."""

    def __init__(self, supervisor: SupervisorClient) -> None:
        self._supervisor = supervisor
        self._last: dict[str, Sample] = {}
        self._series: dict[str, Series] = {}

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

    async def watch(self, job_id: str) -> Sample | None:
        """As `of`; from now on earlier samples of the job are kept, too."""
        series = self._series.pop(job_id, None) or Series()
        # The one that nobody has looked at for longest is the first.
        self._series[job_id] = series
        while len(self._series) > MOST_SERIES:
            del self._series[next(iter(self._series))]
        return await self.of(job_id)

    def series(self, job_id: str) -> list[Point]:
        """What is kept of a job."""
        found = self._series.get(job_id)
        return list(found.points) if found else []

    def _take(self, job: JobSnapshot, last: Sample | None) -> Sample:
        sample = _sample(job, last)
        # The one that was taken longest ago is the first.
        self._last.pop(job.id, None)
        self._last[job.id] = sample
        while len(self._last) > _MOST_KEPT:
            del self._last[next(iter(self._last))]
        if (series := self._series.get(job.id)) is not None and not job.ended:
            series.add(sample.point)
        return sample


def cpu_seconds(usage: Usage) -> float | None:
    """User and system time together, None where it is not known."""
    if usage.user_seconds is None or usage.system_seconds is None:
        return None
    return usage.user_seconds + usage.system_seconds


def _sample(job: JobSnapshot, last: Sample | None) -> Sample:
    now, usage = time.monotonic(), job.usage

    def rate(of: Callable[[Usage], float | None]) -> float | None:
        if last is None or now - last.moment > _MOST_APART_SECONDS:
            return None
        before, after = of(last.usage), of(usage)
        if before is None or after is None:
            return None
        return max(0.0, after - before) / (now - last.moment)

    point = Point(
        time=time.time(),
        cpus=rate(cpu_seconds),
        memory=usage.memory,
        read=rate(attrgetter("read")),
        written=rate(attrgetter("written")),
        processes=usage.processes,
    )
    return Sample(now, usage, point)
