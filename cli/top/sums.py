"""What jobs use now: measured twice, set against the time between, added up, and sorted."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jobworker.client.messages import JobStatus

BY = ("job", "user", "tenant")
SORTS = ("cpu", "memory", "disk", "processes", "time")


class Look(NamedTuple):
    """Jobs that had not ended at a moment of the monotonic clock, in seconds.

    `whole` says that there are no others that one may see.
    """

    moment: float
    jobs: "Sequence[JobStatus]"
    whole: bool


class Row(NamedTuple):
    """A job, or what a user's or a tenant's come to. None is for what is not known.

    `cpus` are CPUs, `read` and `written` bytes a second from and to disks, all since the
    look before; `seconds` how long the oldest runs.
    """

    key: str
    jobs: int
    pending: int
    cpus: float | None
    memory: float | None
    read: float | None
    written: float | None
    processes: float | None
    seconds: float
    # The one job that it is about.
    job: "JobStatus | None"

    @property
    def disk(self) -> float | None:
        """Bytes a second from and to disks."""
        return _sum((self.read, self.written))


def rows(now: Look, before: Look | None, by: str) -> list[Row]:
    """The rows of a look; `before` is the last one, for what is told a second."""
    earlier = {job.id: job for job in before.jobs} if before else {}
    apart = now.moment - before.moment if before else 0.0
    each = [_of_one(job, earlier.get(job.id), apart) for job in now.jobs]
    if by == "job":
        return each
    groups: dict[str, list[Row]] = {}
    for row in each:
        assert row.job is not None  # noqa: S101 - each is about one
        key = row.job.owner if by == "user" else row.job.tenant
        groups.setdefault(key, []).append(row)
    return [_together(key, some) for key, some in groups.items()]


def in_order(found: Iterable[Row], sort: str, *, backwards: bool = False) -> list[Row]:
    """Sorted by one of SORTS, what uses most first; what is not known comes last."""
    told: dict[str, Callable[[Row], float | None]] = {
        "cpu": lambda row: row.cpus,
        "memory": lambda row: row.memory,
        "disk": lambda row: row.disk,
        "processes": lambda row: row.processes,
        "time": lambda row: row.seconds,
    }
    of = told[sort]
    ordered = sorted(found, key=lambda row: row.key)
    known = [row for row in ordered if of(row) is not None]
    unknown = [row for row in ordered if of(row) is None]
    return [*sorted(known, key=lambda row: of(row) or 0.0, reverse=not backwards), *unknown]


def _of_one(job: "JobStatus", before: "JobStatus | None", apart: float) -> Row:
    now, then = _known(job), _known(before) if before else {}

    def rate(*fields: str) -> float | None:
        differences = [
            now[field] - then[field] for field in fields if field in now and field in then
        ]
        if len(differences) < len(fields) or apart <= 0:
            return None
        return max(0.0, sum(differences)) / apart

    return Row(
        key=job.id,
        jobs=1,
        pending=int(job.state == "pending"),
        cpus=rate("userSeconds", "systemSeconds"),
        memory=now.get("memoryBytes"),
        read=rate("readBytes"),
        written=rate("writtenBytes"),
        processes=now.get("processes"),
        seconds=now.get("wallSeconds", 0.0),
        job=job,
    )


def _known(job: "JobStatus") -> dict[str, float]:
    """What is known of its use, by the contract's names."""
    return {field.name: value for field, value in job.usage.ListFields()} if job.usage else {}


def _together(key: str, some: Sequence[Row]) -> Row:
    return Row(
        key=key,
        jobs=len(some),
        pending=sum(row.pending for row in some),
        cpus=_sum(row.cpus for row in some),
        memory=_sum(row.memory for row in some),
        read=_sum(row.read for row in some),
        written=_sum(row.written for row in some),
        processes=_sum(row.processes for row in some),
        seconds=max(row.seconds for row in some),
        job=None,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
