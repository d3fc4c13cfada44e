"""Who uses what now, of the jobs that one may see; and the host, for who may audit every job."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

from starlette.requests import Request
from starlette.responses import Response

from jobworker.cli.quantities import size_text, span_text
from jobworker.console.audits import audits_all
from jobworker.console.samples import Sample, cpu_seconds
from jobworker.console.site import Site
from jobworker.console.text import visible
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import JobSnapshot, State

_PAGE = 1000
# Of the jobs that have not ended so many are added up, and of all jobs' output.
MOST_JOBS = 5000
# So many are measured at a time.
_TOGETHER = 50


class Row(TypedDict):
    """What one user's jobs of one tenant use, or all of a tenant's, where `owner` is empty.

    All texts are visible characters; empty is what is not known.
    """

    key: str
    tenant: str
    owner: str
    running: str
    pending: str
    cpus: str
    cpu: str
    memory: str
    processes: str


@dataclass
class Sum:
    """What some jobs use together; None where it is known of none."""

    running: int = 0
    pending: int = 0
    cpus: float | None = None
    cpu: float | None = None
    memory: float | None = None
    processes: float | None = None

    def add(self, job: JobSnapshot, sample: Sample | None) -> None:
        """Count a job that has not ended; without a sample its number alone."""
        if job.state is State.PENDING:
            self.pending += 1
            return
        self.running += 1
        if sample is not None:
            self.cpus = _added(self.cpus, sample.point.cpus)
            self.cpu = _added(self.cpu, cpu_seconds(sample.usage))
            self.memory = _added(self.memory, sample.usage.memory)
            self.processes = _added(self.processes, sample.usage.processes)

    def row(self, tenant: str, owner: str) -> Row:
        """As it is shown."""
        return Row(
            key=f"{tenant}/{owner}",
            tenant=visible(tenant),
            owner=visible(owner),
            running=str(self.running),
            pending=str(self.pending),
            cpus="" if self.cpus is None else f"{self.cpus:.2f}",
            cpu="" if self.cpu is None else span_text(timedelta(seconds=self.cpu)),
            memory="" if self.memory is None else size_text(self.memory),
            processes="" if self.processes is None else f"{self.processes:g}",
        )


async def usage(site: Site, request: Request, caller: Caller) -> Response:
    """The sums of now, by tenant and by user; and what the output that is kept comes to."""
    asked = pb.ListRequest()
    async with site.calls.within("List", asked, caller):
        rows, whole = await sums(site, caller)
        kept, all_kept = await _kept(site, caller)
    everything = audits_all(site.calls.access.authority.policy, caller.identity)
    return site.page(
        request,
        caller,
        "usage.html",
        rows=rows,
        kept=kept,
        whole=whole,
        all_kept=all_kept,
        host=_host(site.places.state) if everything else {},
        most=MOST_JOBS,
        live="/live/usage",
    )


async def sums(site: Site, caller: Caller) -> tuple[list[Row], bool]:
    """The rows of now, within a block that List was decided for; and whether that is all.

    What a job uses is told to who may ask for its status.
    """
    jobs, whole = await _jobs(site, caller, running=True)
    found: dict[tuple[str, str], Sum] = {}
    for begin in range(0, len(jobs), _TOGETHER):
        some = jobs[begin : begin + _TOGETHER]
        samples = await asyncio.gather(*(_sample(site, caller, job) for job in some))
        for job, sample in zip(some, samples, strict=True):
            for place in ((job.tenant, ""), (job.tenant, job.owner)):
                found.setdefault(place, Sum()).add(job, sample)
    return [found[place].row(*place) for place in sorted(found)], whole


async def _sample(site: Site, caller: Caller, job: JobSnapshot) -> Sample | None:
    judged = site.calls.access.judge_found(caller.identity, "status", job)
    if job.state is State.PENDING or judged.error is not None:
        return None
    return await site.samples.of(job.id)


async def _kept(site: Site, caller: Caller) -> tuple[list[dict[str, str]], bool]:
    """What the kept output of all jobs comes to, by tenant and by user."""
    jobs, whole = await _jobs(site, caller, running=False)
    sizes: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        for place in ((job.tenant, ""), (job.tenant, job.owner)):
            sizes[place] += job.output_end - job.output_begin
    found = sorted(sizes.items())
    return [
        {"tenant": tenant, "owner": owner, "size": size_text(size)}
        for (tenant, owner), size in found
    ], whole


async def _jobs(site: Site, caller: Caller, *, running: bool) -> tuple[list[JobSnapshot], bool]:
    """The newest that the caller may list, and whether there are no others."""
    access = site.calls.access
    query = ipc.List(limit=_PAGE, running=running)
    found: list[JobSnapshot] = []
    while len(found) < MOST_JOBS:
        page = await access.jobs_of(caller.identity, ("list",), query)
        found += page
        if len(page) < _PAGE:
            return found, True
        query.before = page[-1].id
    return found, False


def _added(some: float | None, more: float | None) -> float | None:
    if more is None:
        return some
    return more if some is None else some + more


def _host(state: Path) -> dict[str, str]:
    """What this host has, and what of it is taken; without what it does not tell."""
    return dict(_host_facts(os.statvfs(state)))


def _host_facts(disk: os.statvfs_result) -> Iterator[tuple[str, str]]:
    yield "Name", os.uname().nodename
    yield "Processors", str(os.cpu_count() or "")
    yield "Load", " ".join(f"{load:.2f}" for load in os.getloadavg())
    memory = _memory(Path("/proc/meminfo").read_text().splitlines())
    if memory is not None:
        yield "Memory", "{} of {} in use".format(*map(size_text, memory))
    size = disk.f_blocks * disk.f_frsize
    used = size - disk.f_bavail * disk.f_frsize
    yield "Disk of the state", f"{size_text(used)} of {size_text(size)} in use"


def _memory(lines: Iterable[str]) -> tuple[int, int] | None:
    """Bytes in use, and all there are (proc_meminfo(5))."""
    told = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines)}
    try:
        total, free = (1024 * int(told[name]) for name in ("MemTotal", "MemAvailable"))
    except (KeyError, ValueError):
        return None
    return total - free, total
