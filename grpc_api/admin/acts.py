"""What the administrator's socket is for: listing and stopping jobs, draining, usage, leaving."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from jobworker.grpc_api.admin.drain import MAX_WORDS, Drain
from jobworker.grpc_api.admin.jobs import ended, listed
from jobworker.grpc_api.admin.offboard import Record, offboard
from jobworker.grpc_api.errors import ApiError
from jobworker.grpc_api.guard.access import PART_PAGE
from jobworker.grpc_api.guard.references import MIN_PART, Named, Part, Whole, candidates, reference
from jobworker.grpc_api.service.messages import status_message
from jobworker.proto import admin_pb2 as admin
from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor import JobSnapshot, NoSuchJob, SupervisorClient

_MAX_GRACE_SECONDS = 86400.0
# st_blocks of stat(2) counts these.
_BLOCK_BYTES = 512


@dataclass(frozen=True)
class Acts:
    """Does what it is asked, without asking whether that is allowed."""

    supervisor: SupervisorClient
    drain: Drain
    # Where the directories with the jobs' output are.
    output: Path
    # Puts the certificates and revocation lists that are in the files now in force.
    reread: Callable[[], None]

    async def perform(self, request: admin.Request, record: Record) -> AsyncIterator[admin.Reply]:
        """Yield the replies, without the end. Raises ApiError and SupervisorError."""
        match request.WhichOneof("act"):
            case "list":
                record("list", None, _about(request.list.owner, request.list.tenant))
                async for job in listed(self.supervisor, request.list):
                    yield admin.Reply(job=status_message(job))
            case "stop":
                async for job in self._stop(request.stop, record):
                    yield admin.Reply(job=status_message(job))
            case "drain":
                self._drain(request.drain, record)
                words = self.drain.words
                yield admin.Reply(drain=admin.Drain(drained=bool(words), words=words))
            case "usage":
                record("usage", None, "")
                for usage in await self._usage():
                    yield admin.Reply(usage=usage)
            case "offboard":
                told = offboard(self.supervisor, request.offboard, record, self.reread)
                async for one in told:
                    yield admin.Reply(offboarded=one)
            case _:
                raise ApiError("this server does not know the request; it is older")

    # -- stopping ----------------------------------------------------------------

    async def _stop(self, asked: admin.Stop, record: Record) -> AsyncIterator[JobSnapshot]:
        """Stop all at once; yield each when nothing is left of it."""
        if not (asked.jobs or asked.owner or asked.tenant):
            raise ApiError("say which jobs to stop: by ID, owner or tenant")
        grace = asked.grace_seconds if asked.HasField("grace_seconds") else None
        if grace is not None and not 0 <= grace <= _MAX_GRACE_SECONDS:
            raise ApiError(f"a grace period is 0 to {_MAX_GRACE_SECONDS:g} seconds")
        found = [job async for job in self._to_stop(asked)]
        for job in found:
            record("stop", job, "")
        async for job in ended(self.supervisor, found, grace):
            yield job

    async def _to_stop(self, asked: admin.Stop) -> AsyncIterator[JobSnapshot]:
        filters = admin.List(running=True, owner=asked.owner, tenant=asked.tenant)
        if not asked.jobs:
            async for job in listed(self.supervisor, filters):
                yield job
        for name in asked.jobs:
            job = await self._find(name)
            fits = asked.owner in {"", job.owner} and asked.tenant in {"", job.tenant}
            # What a job that has ended has left behind ends, too.
            if fits:
                yield job

    async def _find(self, name: str) -> JobSnapshot:
        match reference(name, ""):
            case Whole(text) | Part(text):
                queries = [ipc.List(prefix=text), ipc.List(ending=text)]
            case Named(owner, of_one) if owner:
                queries = [ipc.List(owner=owner, name=of_one)]
            case _:
                raise ApiError(
                    f"{name[:64]!r} is no job: give its ID, {MIN_PART} characters or more that "
                    "the ID begins or ends with, or OWNER/NAME"
                )
        found: dict[str, JobSnapshot] = {}
        for query in queries:
            query.limit = 1 if query.name else PART_PAGE
            found |= {job.id: job for job in await self.supervisor.list(query)}
        if len(found) > 1:
            raise ApiError(candidates(name, list(found.values())))
        for job in found.values():
            return job
        raise ApiError(f"there is no job {name[:64]}")

    # -- draining ----------------------------------------------------------------

    def _drain(self, asked: admin.Drain, record: Record) -> None:
        if not asked.HasField("drained"):
            record("drain?", None, "")
            return
        words = asked.words.strip()
        if asked.drained and not 0 < len(words) <= MAX_WORDS:
            raise ApiError(f"say why in 1 to {MAX_WORDS} characters")
        record("drain" if asked.drained else "drain off", None, words)
        try:
            if asked.drained:
                self.drain.begin(words)
            else:
                self.drain.end()
        except OSError as error:
            raise ApiError(f"that cannot be kept on disk: {error.strerror}") from error

    # -- usage -------------------------------------------------------------------

    async def _usage(self) -> list[admin.TenantUsage]:
        """What each tenant's jobs have and use, by the tenant's name."""
        tenants: dict[str, admin.TenantUsage] = {}
        of_job: dict[str, str] = {}
        async for job in listed(self.supervisor, admin.List()):
            of_job[job.id] = job.tenant
            usage = tenants.setdefault(job.tenant, admin.TenantUsage(tenant=job.tenant))
            usage.jobs += 1
            usage.output_bytes += job.output_end - job.output_begin
            if not job.ended:
                usage.running += 1
                await self._add_running(usage, job.id)
        for job_id, size in (await asyncio.to_thread(self._disk, list(of_job))).items():
            tenants[of_job[job_id]].disk_bytes += size
        return [tenants[name] for name in sorted(tenants)]

    async def _add_running(self, usage: admin.TenantUsage, job_id: str) -> None:
        try:
            used = (await self.supervisor.get(job_id)).usage
        except NoSuchJob:
            return
        usage.cpu_seconds += (used.user_seconds or 0) + (used.system_seconds or 0)
        usage.memory_bytes += used.memory or 0
        usage.processes += used.processes or 0

    def _disk(self, jobs: list[str]) -> dict[str, int]:
        """What the output of each job takes on the disk."""
        sizes = {}
        for job_id in jobs:
            try:
                files = list((self.output / job_id).iterdir())
                sizes[job_id] = sum(file.stat().st_blocks for file in files) * _BLOCK_BYTES
            except OSError:
                # It is removed, or rotated, right now.
                sizes[job_id] = 0
        return sizes


def _about(owner: str, tenant: str) -> str:
    return f"{tenant or '*'}/{owner or '*'}"
