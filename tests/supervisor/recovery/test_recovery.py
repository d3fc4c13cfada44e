"""SIGKILL of the supervisor at every stage of a job's life: nothing is lost, nothing done twice."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jobworker.supervisor import (
    CannotExecute,
    Chunk,
    Job,
    Limits,
    NoSuchJob,
    Reason,
    State,
    library,
)
from tests.support import dying_supervisor
from tests.support.file_systems import Hanging
from tests.support.library import POLL_SECONDS, Site, eventually

HERE = "jobworker.supervisor."
# A start's stages, in the order of a supervisor's program.
START = {
    "placed, not on record": "local.engine:LocalEngine.prepare after",
    "about to be committed": "journal.journal:Journal.insert after",
    "on record, not ordered": "local.engine:LocalEngine.launch before",
    "ordered, not on the disk": "local.engine:LocalEngine.launch after",
    "made, not heard of": "local.engine:LocalEngine.made before",
    "made, not noted": "local.launches:Launches.made after",
    "executing, not noticed": "local.launches:Launches.settle before",
    "noticed, not answered": "core.supervisor:Supervisor._started after",
}
END = {
    "told, not on record": "local.engine:LocalEngine._main_exited before",
    "about to be committed": "core.progress:Progress._record_exit after",
    "on record, still with the keeper": "local.keeper_link:KeeperLink.recorded before",
    "output about to be complete": "local.engine:LocalEngine._pipes_ended before",
    "about to be forgotten": "live.live_jobs:LiveJobs.forget before",
}
STOP = {
    "asked": "core.supervisor:Supervisor.stop before",
    "about to be asked to end": "local.stops:Stops.begin before",
    "looked at": "local.stops:Stops._look before",
    "gone": "core.progress:Progress.stopped before",
}
# From a stop's record to its signal, each with whether the stop is on record by then.
STOP_SIGNAL = {
    "about to be recorded": ("journal.journal:Journal.commit before", False),
    "recorded, not signalled": ("local.stops:_Stop.tell before", True),
    "signalled": ("local.stops:_Stop.tell after", True),
    "killed": ("local.stops:Stops._advance after", True),
}
# How often each supervisor in turn dies at the point.
DEATHS = 2

Dying = Callable[[str], None]
# For what no cgroup has a part in.
without_cgroup = pytest.mark.parametrize("site", ["off"], indirect=True)


@pytest.fixture
def deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of deaths still to come; supervisors are found by the keeper."""
    path = tmp_path / "deaths"
    path.touch()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("DIES_COUNT", str(path))
    return path


@pytest.fixture
def dying(deaths: Path, monkeypatch: pytest.MonkeyPatch) -> Dying:
    """What has the supervisors of later workers die at a point."""

    def at(point: str) -> None:
        monkeypatch.setattr(library, "SUPERVISOR_TARGET", dying_supervisor.TARGET)
        monkeypatch.setenv("DIES_AT", HERE + point)
        deaths.write_text("x" * DEATHS)

    return at


def output(job: Job) -> bytes:
    """All output of a job, which is complete."""
    pieces = list(job.output())
    assert all(isinstance(piece, Chunk) for piece in pieces)
    return b"".join(piece.data for piece in pieces if isinstance(piece, Chunk))


@pytest.mark.parametrize("point", [*START.values(), *END.values()], ids=[*START, *END])
def test_a_job_runs_once_and_to_its_end(
    site: Site, dying: Dying, deaths: Path, tmp_path: Path, point: str
) -> None:
    ran = tmp_path / "ran"
    script = f"echo ran >> {ran}; echo out; echo err >&2; exit 42"
    dying(point)
    with site.worker() as worker:
        job = worker.start(["sh", "-c", script])
        status = job.wait()
        assert (status.exit_code, status.reason) == (42, Reason.EXITED)
        assert sorted(output(job).splitlines()) == [b"err", b"out"]
        assert [found.id for found in worker.list()] == [job.id]
        # The keeper lets go of it, and so does the next supervisor.
        eventually("the job is gone", lambda: job.stop(0).gone)
        # Where it is the keeper that remembers, the next death is another start's.
        assert worker.start(["true"]).wait().exit_code == 0
        eventually("every death has been died", lambda: deaths.read_text() == "")
    assert ran.read_text() == "ran\n"


@without_cgroup
@pytest.mark.parametrize("stage", [stage for stage in START if stage != "noticed, not answered"])
def test_a_start_that_fails_leaves_no_job(
    site: Site, dying: Dying, deaths: Path, stage: str
) -> None:
    dying(START[stage])
    with site.worker() as worker:
        with pytest.raises(CannotExecute):
            worker.start(["/no/such/program"])
        assert deaths.read_text() == ""
        assert worker.list() == []
        assert worker.start(["true"]).wait().exit_code == 0
    assert not list((site.state / "output").iterdir())


@pytest.mark.parametrize("point", STOP.values(), ids=STOP)
def test_a_stop_is_gone_on_with(site: Site, dying: Dying, deaths: Path, point: str) -> None:
    script = (
        "exec 2>&-; trap 'exit 9' TERM; setsid -f sleep 1000; echo up; while :; do sleep 0.05; done"
    )
    dying(point)
    with site.worker() as worker:
        job = worker.start(["sh", "-c", script])
        next(job.output())
        ended = job.stop(1000)
        assert (ended.exit_code, ended.reason, ended.gone) == (9, Reason.STOPPED, True)
        assert output(job) == b"up\n"
        # Whoever comes after a death at the end of the stop may have none to go on with.
        assert len(deaths.read_text()) <= (1 if point == STOP["gone"] else 0)


@without_cgroup
@pytest.mark.parametrize("stage", STOP_SIGNAL)
def test_why_a_job_ends_is_on_record_before_its_signal(
    site: Site, dying: Dying, deaths: Path, stage: str
) -> None:
    """Else a job that was stopped would have ended by a signal of nobody's."""
    point, recorded = STOP_SIGNAL[stage]
    grace = 0 if "killed" in stage else 1000
    dying(point)
    deaths.write_text("")

    async def scenario() -> None:
        async with site.async_worker() as worker:
            job = await worker.start(["sleep", "1000"])
            keeper, supervisor = site.keeper(), site.supervisor()
            assert supervisor is not None
            # There is no other supervisor yet, which would be asked again.
            keeper.suspend()
            deaths.write_text("x")
            asking = asyncio.ensure_future(worker.client.stop(job.id, grace))
            while supervisor.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(POLL_SECONDS)
            asking.cancel()
            await asyncio.wait([asking])
            keeper.resume()
            if not recorded:
                assert (await job.status()).state is State.RUNNING
                await job.stop(grace)
            ended = await job.wait()
            assert ended.reason is Reason.STOPPED
            assert ended.signal in (signal.SIGTERM, signal.SIGKILL)
            assert deaths.read_text() == ""

    asyncio.run(scenario())


def test_a_grace_is_not_forgotten(site: Site) -> None:
    """What ignores SIGTERM is killed by the supervisor that comes after."""
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"

    async def scenario() -> None:
        async with site.async_worker() as worker:
            job = await worker.start(["sh", "-c", script], grace=0.5)
            await anext(job.output())
            began = time.monotonic()
            await worker.client.stop(job.id)
            site.signal_supervisor()
            ended = await job.wait()
            assert (ended.signal, ended.reason) == (signal.SIGKILL, Reason.STOPPED)
            assert 0.5 <= time.monotonic() - began < 60

    asyncio.run(scenario())


def test_what_happens_while_there_is_no_supervisor_is_not_lost(site: Site, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"until [ -e {gate} ]; do sleep 0.01; done; head -c 500000 /dev/zero; exit 5"
    with site.worker() as worker:
        job = worker.start(["sh", "-c", script])
        main = psutil.Process(job.status().pid)
        keeper = site.keeper()
        keeper.suspend()
        site.signal_supervisor()
        gate.touch()
        # Nobody reaps it yet.
        eventually("it has ended", lambda: main.status() == psutil.STATUS_ZOMBIE)
        keeper.resume()
        assert (job.wait().exit_code, len(output(job))) == (5, 500_000)


def test_a_start_that_hangs_is_gone_on_with(site: Site, hanging: Hanging) -> None:
    async def scenario() -> None:
        async with site.async_worker(start_seconds=60) as worker:
            starting = asyncio.ensure_future(worker.start([hanging.name]))
            while not (found := await worker.list()) or not found[0].pid:
                await asyncio.sleep(0)
            site.signal_supervisor()
            hanging.release()
            job = await starting
            assert job.id == found[0].id
            assert (await job.status()).pid == found[0].pid
            assert (await job.wait()).exit_code == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("kills", [0, 1])
def test_a_timeout_counts_from_the_start(site: Site, kills: int) -> None:
    """Also over the death of a supervisor, which has set the clock."""
    with site.worker() as worker:
        script = "exec 2>&-; trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"
        job = worker.start(["sh", "-c", script], limits=Limits(timeout=1.5), grace=0.3)
        untimed = worker.start(["sleep", "1000"])
        next(job.output())
        for _ in range(kills):
            site.signal_supervisor()
        ended = job.wait()
        assert (ended.signal, ended.reason) == (signal.SIGKILL, Reason.TIMED_OUT)
        lived = (ended.ended_ns - ended.created_ns) / 1e9
        assert 1.8 <= lived < 30
        assert output(job) == b"up\nasked\n"
        assert untimed.status().state is State.RUNNING


@without_cgroup
@pytest.mark.parametrize(
    "point",
    [
        "live.turn:Turn.delete after",
        "journal.journal:Journal.delete after",
        "core.retention:Retention._doom before",
    ],
)
def test_a_removal_that_was_cut_short_is_finished(
    site: Site, dying: Dying, deaths: Path, point: str
) -> None:
    dying(point)

    async def scenario() -> None:
        async with site.async_worker() as worker:
            kept, job = [await worker.start(["echo", "out"]) for _ in range(2)]
            for one in (kept, job):
                assert [piece async for piece in one.output()]
                await one.stop(0)
            # When its answer is lost, there may be nothing to remove the second time.
            with contextlib.suppress(NoSuchJob):
                await worker.client.remove(job.id)
            assert [found.id for found in await worker.list()] == [kept.id]
            output = site.state / "output"
            eventually("its output is removed", lambda: os.listdir(output) == [kept.id])
            eventually("and nothing of it", lambda: not os.listdir(site.state / "removed"))
            assert [piece async for piece in kept.output()]
            # The last that is told to die there does so now at the latest.
            with contextlib.suppress(NoSuchJob):
                await worker.client.remove(kept.id)
            eventually("every death has been died", lambda: deaths.read_text() == "")
            eventually("all is removed", lambda: os.listdir(output) == [])

    asyncio.run(scenario())


@without_cgroup
def test_output_that_is_about_to_be_removed_is_still_a_jobs(site: Site, dying: Dying) -> None:
    """A crash before the removal is on record undoes it."""
    with site.worker() as worker:
        job = worker.start(["echo", "out"])
        job.stop(1000)
    (site.state / "output" / job.id).rename(site.state / "removed" / job.id)
    with site.worker() as worker:
        assert output(worker.job(job.id)) == b"out\n"


@pytest.mark.parametrize("site", ["auto"], indirect=True)
def test_supervisors_that_die_leave_no_cgroups(site: Site) -> None:
    with site.worker() as worker:
        job = worker.start(["sh", "-c", "setsid -f sleep 1000; exit 3"])
        assert job.wait().exit_code == 3
        for _ in range(3):
            site.signal_supervisor()
            assert worker.start(["true"]).wait().exit_code == 0
        job.stop(0)
        eventually("none are left", lambda: not site.cgroups())
