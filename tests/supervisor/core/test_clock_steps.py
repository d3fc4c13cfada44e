"""The wall clock is set while jobs run: nothing is deleted, ended early or late, or misread."""

import asyncio
import time
from pathlib import Path
from uuid import UUID

import pytest
import uuid_utils

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    Chunk,
    Job,
    JobSnapshot,
    KeyTaken,
    Limits,
    Reason,
    Selection,
    State,
    library,
)
from jobworker.supervisor.ipc import job_ids
from tests.support import dying_supervisor
from tests.support.library import Site, eventually

DEADLINE_SECONDS = 60.0
HOUR = 3600
DAY = 24 * HOUR
YEAR_2040 = 2_208_988_800
steps = pytest.mark.parametrize("step", [HOUR, -HOUR, 400 * DAY, -400 * DAY, YEAR_2040 - DAY])
without_cgroup = pytest.mark.parametrize("site", ["off"], indirect=True)
KEEP = {"retention": {"seconds": 30.0 * DAY}}


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the step of the clock of later workers' supervisors."""
    path = tmp_path / "step"
    path.write_text("0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("CLOCK_STEP", str(path))
    monkeypatch.setattr(library, "SUPERVISOR_TARGET", dying_supervisor.STEPPED)
    return path


def text(job: Job, selection: Selection) -> bytes:
    return b"".join(piece.data for piece in job.output(selection) if isinstance(piece, Chunk))


@steps
@without_cgroup
def test_retention_deletes_nothing(site: Site, clock: Path, step: int) -> None:
    """One step of +31 days had every ended job and its output deleted."""
    with site.worker(**KEEP) as worker:
        old = worker.start(["echo", "old"])
        assert old.wait().exit_code == 0
        eventually("its output is complete", lambda: old.status().output_complete)
        clock.write_text(str(step))
        new = worker.start(["echo", "new"])
        assert new.wait().exit_code == 0
        site.signal_supervisor()
        assert [found.id for found in worker.list()] == [new.id, old.id]
    # A whole service later, which looks through the record as it begins.
    with site.worker(**KEEP) as worker:
        assert [found.id for found in worker.list()] == [new.id, old.id]
        assert text(worker.job(old.id), Selection()) == b"old\n"


@pytest.mark.parametrize("step", [-HOUR, -400 * DAY])
def test_ids_ascend_whatever_the_clock_is_set_to(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a step back, new jobs were listed as the oldest."""
    before = [str(uuid_utils.uuid7()) for _ in range(3)]
    real = uuid_utils.uuid7

    def stepped(nanoseconds: int | None = None) -> object:
        return real(nanoseconds=nanoseconds or time.time_ns() + step * 10**9)

    monkeypatch.setattr(job_ids, "uuid7", stepped)
    ids = job_ids.JobIDs()
    for job_id in before:
        ids.follow(job_id)
    after = [ids.next() for _ in range(1000)]
    assert before + after == sorted(before + after)
    assert len(set(after)) == 1000
    assert all(UUID(one).version == 7 for one in after)


def test_the_newest_is_listed_first_after_a_step_back(site: Site) -> None:
    """A job of a clock that was ahead stayed the newest."""
    with site.worker() as worker:
        worker.start(["true"]).wait()

    async def ahead() -> str:
        async with site.async_worker() as worker:
            job_id = str(uuid_utils.uuid7(nanoseconds=time.time_ns() + 400 * DAY * 10**9))
            request = pb.StartRequest(rawArguments=[b"true"])
            order = ipc.Start(id=job_id, owner=library.OWNER, request=request)
            return (await worker.client.start(order)).id

    newest = asyncio.run(ahead())
    with site.worker() as worker:
        later = [worker.start(["true"]).id for _ in range(3)]
        assert [found.id for found in worker.list()][:4] == [*reversed(later), newest]


@steps
@without_cgroup
def test_a_timeout_is_as_long_as_was_asked(site: Site, clock: Path, step: int) -> None:
    """After a restart of the supervisor a step ended jobs early, or an hour late."""
    with site.worker() as worker:
        long = worker.start(["sleep", "1000"], limits=Limits(timeout=30 * 60))
        short = worker.start(["sleep", "1000"], limits=Limits(timeout=2))
        clock.write_text(str(step))
        site.signal_supervisor()
        assert short.wait().reason is Reason.TIMED_OUT
        assert long.status().state is State.RUNNING


@steps
@without_cgroup
def test_a_key_is_known_for_a_day(site: Site, clock: Path, step: int) -> None:
    """After a step of a day the key of a removed job started a second one."""

    def nightly() -> ipc.Start:
        request = pb.StartRequest(rawArguments=[b"true"], requestID="nightly")
        return ipc.Start(id=str(uuid_utils.uuid7()), owner="someone", request=request)

    async def scenario() -> None:
        async with site.async_worker() as worker:
            job = await worker.client.start(nightly())
            async with worker.client.watch(job.id) as watched:
                await watched.until(lambda job: job.ended and job.output_complete)
            await worker.client.remove(job.id)
            clock.write_text(str(step))
            site.signal_supervisor()
            with pytest.raises(KeyTaken, match="has been removed since"):
                await worker.client.start(nightly())

    asyncio.run(scenario())


@steps
@without_cgroup
def test_pruning_by_age_takes_what_is_that_old(site: Site, clock: Path, step: int) -> None:
    """`prune --older-than 7d` took every job after a step of more, and none after one back."""

    async def scenario() -> None:
        async with site.async_worker() as worker:
            job = await worker.start(["true"])
            async with worker.client.watch(job.id) as watched:
                await watched.until(lambda job: job.ended and job.output_complete)
            clock.write_text(str(step))
            old = await worker.client.list(ipc.List(limit=9, ended_ago_ns=7 * DAY * 10**9))
            assert old == []
            (found,) = await worker.client.list(ipc.List(limit=9, ended_ago_ns=1))
            assert found.id == job.id

    asyncio.run(scenario())


@steps
@without_cgroup
def test_how_long_a_job_was_is_no_difference_of_times(site: Site, clock: Path, step: int) -> None:
    """A job that lived through a step had run for 400 days, or not at all."""
    with site.worker() as worker:
        job = worker.start(["sleep", "1000"])
        clock.write_text(str(step))
        during = job.status().lived_ns
        ended = job.stop(0)
        assert 0 < during < ended.lived_ns < HOUR * 10**9 / 2
        site.signal_supervisor()
        assert job.status().lived_ns == ended.lived_ns


@steps
@without_cgroup
def test_who_observes_is_told_of_the_last_minute(site: Site, clock: Path, step: int) -> None:
    """The audit log missed ends after a step back: they were before what it had asked for."""

    async def scenario() -> None:
        async with site.async_worker() as worker:
            job = await worker.start(["true"])
            assert (await job.wait()).exit_code == 0
            clock.write_text(str(step))
            told: asyncio.Queue[JobSnapshot] = asyncio.Queue()
            worker.client.observe(lambda: 60 * 10**9, told.put_nowait)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (seen := await told.get()).id != job.id or not seen.ended:
                    pass

    asyncio.run(scenario())
