"""What is left of somebody who may do nothing here any more: jobs, schedules, output."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from jobworker.grpc_api.admin.jobs import ended, listed
from jobworker.grpc_api.errors import ApiError
from jobworker.proto import admin_pb2 as admin
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import JobSnapshot, NoSuchJob, NoSuchSchedule, SupervisorClient

# What was about to be started when the certificate was refused is there by the second.
_ROUNDS = 5

# Has an act put on record: its name, what it is about, and its words.
Record = Callable[[str, JobSnapshot | None, str], None]


async def offboard(
    supervisor: SupervisorClient,
    asked: admin.Offboard,
    record: Record,
    reread: Callable[[], None],
) -> AsyncIterator[admin.Offboarded]:
    """End all that is a user's, and yield each thing that was done, or would be (`dry`).

    `reread` puts the revocation list of now in force, so that nothing is begun meanwhile.
    Raises ApiError and SupervisorError.
    """
    if not asked.user:
        raise ApiError("say whose jobs and schedules these are")
    if asked.dry:
        record("offboard?", None, asked.user)
        async for told in _plan(supervisor, asked):
            yield told
        return
    reread()
    record("offboard", None, f"{asked.user}: {asked.words}")
    async for told in _end_schedules(supervisor, asked):
        yield told
    async for told in _end_jobs(supervisor, asked.user, record):
        yield told
    if asked.remove:
        async for job in listed(supervisor, admin.List(owner=asked.user)):
            record("remove", job, "")
            with suppress(NoSuchJob):
                await supervisor.remove(job.id)
            yield admin.Offboarded(job=job.id, done=admin.Offboarded.REMOVED)


async def _end_jobs(
    supervisor: SupervisorClient, user: str, record: Record
) -> AsyncIterator[admin.Offboarded]:
    running = admin.List(running=True, owner=user)
    for _ in range(_ROUNDS):
        found = [job async for job in listed(supervisor, running)]
        for job in found:
            record("stop", job, "")
        async for job in ended(supervisor, found, None):
            yield admin.Offboarded(job=job.id, done=admin.Offboarded.STOPPED)
        if not found:
            return


async def _plan(
    supervisor: SupervisorClient, asked: admin.Offboard
) -> AsyncIterator[admin.Offboarded]:
    done = _of_schedule(asked)
    for schedule in await supervisor.schedules(asked.user):
        if asked.remove or not schedule.paused:
            yield admin.Offboarded(schedule=schedule.name, done=done)
    async for job in listed(supervisor, admin.List(owner=asked.user)):
        if not job.ended:
            yield admin.Offboarded(job=job.id, done=admin.Offboarded.STOPPED)
        if asked.remove:
            yield admin.Offboarded(job=job.id, done=admin.Offboarded.REMOVED)


async def _end_schedules(
    supervisor: SupervisorClient, asked: admin.Offboard
) -> AsyncIterator[admin.Offboarded]:
    """Remove them, or pause them: each run would be refused."""
    change = pb.SCHEDULE_CHANGE_REMOVE if asked.remove else pb.SCHEDULE_CHANGE_PAUSE
    for schedule in await supervisor.schedules(asked.user):
        if schedule.paused and not asked.remove:
            continue
        wanted = ipc.ChangeSchedule(
            owner=asked.user, name=schedule.name, change=pb.ScheduleChange.Name(change)
        )
        with suppress(NoSuchSchedule):
            await supervisor.change_schedule(wanted)
            yield admin.Offboarded(schedule=schedule.name, done=_of_schedule(asked))


def _of_schedule(asked: admin.Offboard) -> "admin.Offboarded.Done":
    return admin.Offboarded.REMOVED if asked.remove else admin.Offboarded.STOPPED
