"""Pausing jobs: the whole tree stands still, however it spreads, until a resume or a stop."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobworker.supervisor import (
    AlreadyEnded,
    Chunk,
    Job,
    JobWorker,
    Limits,
    NoSuchJob,
    NotRunning,
    Reason,
    State,
    StopMode,
    StopWay,
    library,
)
from tests.support import dying_supervisor
from tests.support.library import TREES, Sign, Site, eventually, spread

HERE = "jobworker.supervisor."
Dying = Callable[[str], None]
# Everything it does shows in its processor time, and no process of it sleeps.
BUSY = "echo up; while :; do :; done"
BUSY_TREES = {
    "one process": (BUSY, 1),
    "children": (f"({BUSY}) & ({BUSY}) & {BUSY}", 3),
    "sessions of their own": (f"setsid sh -c '{BUSY}' sh $1 & {BUSY}", 2),
    "a daemon with a cleared environment": (
        f"setsid -f env -i /bin/sh -c '{BUSY}' sh $1; {BUSY}",
        2,
    ),
}
# All processes but the first fork their successors and end, over and over.
HOPPERS = """
import os, signal, sys
for _ in range(3):
    if not os.fork():
        break
else:
    os.write(1, b"up")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        signal.pause()
while True:
    if os.fork():
        os._exit(0)
    if sys.argv[2] == "setsid":
        os.setsid()
"""


@pytest.fixture
def sign() -> Iterator[Sign]:
    made = Sign()
    yield made
    for process in made.processes():
        process.kill()


def used(sign: Sign) -> dict[int, float]:
    """The processor time of each process of a job."""
    times: dict[int, float] = {}
    for one in sign.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            times[one.pid] = sum(one.cpu_times()[:2])
    return times


def stands_still(sign: Sign) -> bool:
    """Whether its processes are the same, and have done nothing, for as long as another works.

    The clock of processor time ticks a hundred times a second.
    """
    before = used(sign)
    own = psutil.Process()
    end = sum(own.cpu_times()[:2]) + 0.1
    while sum(own.cpu_times()[:2]) < end:
        pass
    return used(sign) == before


def moves(sign: Sign) -> None:
    """Wait until it does something."""
    before = used(sign)
    eventually("it goes on", lambda: used(sign) != before)


def busy(worker: JobWorker, sign: Sign, tree: str = "one process", before: str = "") -> Job:
    """Start a job that is busy in all of its processes, and wait until they are there."""
    script, processes = BUSY_TREES[tree]
    job = worker.start(["sh", "-c", f"{before}{script}", "sh", sign.number])
    # A shell that was forked a moment ago may not have let go of its parent's traps yet.
    said = 0
    for piece in job.output():
        assert isinstance(piece, Chunk)
        said += piece.data.count(b"up\n")
        if said == processes:
            return job
    pytest.fail("the job has ended")


@pytest.mark.parametrize("tree", BUSY_TREES)
def test_a_whole_tree_stands_still_and_goes_on(site: Site, sign: Sign, tree: str) -> None:
    with site.worker() as worker:
        job = busy(worker, sign, tree)
        for _ in range(2):
            # Twice is as once.
            for _ in range(2):
                job.pause()
                assert job.status().state is State.PAUSED
            assert stands_still(sign)
            for _ in range(2):
                job.resume()
                assert job.status().state is State.RUNNING
            moves(sign)
        assert job.stop(0).reason is Reason.STOPPED


@pytest.mark.parametrize("leave", ["setsid", "stay"])
def test_what_forks_all_the_time_stands_still(site: Site, sign: Sign, leave: str) -> None:
    with site.worker() as worker:
        job = worker.start([sys.executable, "-SEc", HOPPERS, sign.number, leave])
        next(job.output())
        job.pause()
        assert len(sign.processes()) >= 4
        assert stands_still(sign)
        job.resume()
        before = set(used(sign)) - {job.status().pid}
        eventually("it forks on", lambda: not before & set(used(sign)))
        job.pause()
        assert job.stop(0).reason is Reason.STOPPED
        assert sign.processes() == []


def test_who_waits_goes_on_waiting(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            script = f"trap 'exit 5' USR1; {BUSY}"
            job = await worker.start(["sh", "-c", script])
            await anext(job.output())
            waiting = asyncio.ensure_future(job.wait())
            async with worker.client.watch(job.id) as watched:
                await job.pause()
                await watched.until(lambda one: one.state is State.PAUSED)
                # It waits for its turn, too.
                await job.signal(signal.SIGUSR1)
                assert not waiting.done()
                await job.resume()
            assert (await waiting).exit_code == 5

    asyncio.run(scenario())


# -- stops, timeouts, ends ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", [StopMode.TREE, StopMode.MAIN])
def test_a_stop_lets_a_paused_job_end_by_itself(site: Site, sign: Sign, mode: StopMode) -> None:
    with site.worker() as worker:
        for tree in BUSY_TREES:
            job = busy(worker, sign, tree, before="trap 'exit 9' TERM; ")
            job.pause()
            ended = job.stop(1000, StopWay(mode=mode))
            assert (ended.exit_code, ended.reason) == (9, Reason.STOPPED), tree
            assert sign.processes() == [], tree


def test_a_stop_kills_a_paused_job_that_does_not(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        for tree in TREES:
            for grace in (0, 0.3):
                job = spread(worker, sign, tree, before="trap '' TERM; ")
                if job.status().ended:
                    job.stop(0)
                    continue
                job.pause()
                assert job.stop(grace).signal == signal.SIGKILL, tree
                assert sign.processes() == [], tree


def test_a_timeout_goes_on(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        script = f"trap 'exit 9' TERM; {BUSY}"
        job = worker.start(["sh", "-c", script, "sh", sign.number], limits=Limits(timeout=1.5))
        next(job.output())
        job.pause()
        ended = job.wait()
        assert (ended.exit_code, ended.reason) == (9, Reason.TIMED_OUT)


def test_the_end_of_the_worker_ends_a_paused_job(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        busy(worker, sign, "children").pause()
    assert sign.processes() == []


def test_what_a_job_leaves_goes_on_when_that_was_killed_in_a_pause(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        job = busy(worker, sign, "a daemon with a cleared environment")
        job.pause()
        with pytest.raises(NotRunning, match="resume it"):
            job.signal(signal.SIGCONT)
        assert stands_still(sign)
        job.signal(signal.SIGKILL)
        ended = job.wait()
        assert (ended.signal, ended.reason) == (signal.SIGKILL, Reason.SIGNALED)
        moves(sign)
        job.stop(0)


def test_only_what_runs_is_paused(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        job = worker.start(["true"])
        job.wait()
        left = spread(worker, sign, "only a daemon with a cleared environment")
        for ended in (job, left):
            for act in (ended.pause, ended.resume):
                with pytest.raises(AlreadyEnded, match="has ended"):
                    act()
        assert len(sign.processes()) == 1
        left.stop(0)
        nothing = worker.job("01890000-0000-7000-8000-000000000000")
        for act in (nothing.pause, nothing.resume):
            with pytest.raises(NoSuchJob):
                act()


def test_a_stop_wins(site: Site, sign: Sign) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            script = f"trap '' TERM; {BUSY}"
            job = await worker.start(["sh", "-c", script, "sh", sign.number])
            await anext(job.output())
            pausing = [asyncio.ensure_future(job.pause()) for _ in range(2)]
            stopping = asyncio.ensure_future(job.stop(1000))
            await asyncio.gather(*pausing)
            while (await job.status()).state is not State.STOPPING:
                await asyncio.sleep(0)
            for act in (job.pause, job.resume):
                with pytest.raises(NotRunning, match="being stopped"):
                    await act()
            assert (await job.stop(0)).signal == signal.SIGKILL
            await stopping

    asyncio.run(scenario())


# -- whatever dies ---------------------------------------------------------------------------

PAUSE = {
    "asked": "core.pauses:Pauses.pause after",
    "on record": "local.pauses:Pauses.begin before",
    "begun": "local.pauses:Pauses._look before",
    "not answered": "core.pauses:Pauses.settled before",
}
RESUME = {
    "asked": "core.pauses:Pauses.resume before",
    "about to go on": "local.engine:LocalEngine.resume before",
    "not on record": "local.engine:LocalEngine.resume after",
    "about to be recorded": "core.pauses:Pauses.resume after",
}


@pytest.fixture
def deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of deaths still to come; supervisors are found by the keeper."""
    path = tmp_path / "deaths"
    path.touch()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("DIES_COUNT", str(path))
    return path


@pytest.mark.parametrize("point", [*PAUSE.values(), *RESUME.values()], ids=[*PAUSE, *RESUME])
def test_a_supervisor_killed_on_the_way(
    site: Site, sign: Sign, deaths: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setattr(library, "SUPERVISOR_TARGET", dying_supervisor.TARGET)
    monkeypatch.setenv("DIES_AT", HERE + point)
    with site.worker() as worker:
        job = busy(worker, sign, "a daemon with a cleared environment")
        if point in PAUSE.values():
            deaths.write_text("xx")
        job.pause()
        assert job.status().state is State.PAUSED
        assert stands_still(sign)
        if point in RESUME.values():
            deaths.write_text("xx")
        job.resume()
        assert job.status().state is State.RUNNING
        moves(sign)
        assert deaths.read_text() == ""
        job.stop(0)


def test_a_pause_outlives_supervisors(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        job = busy(worker, sign, "children")
        job.pause()
        for _ in range(2):
            site.signal_supervisor()
            assert job.status().state is State.PAUSED
            assert stands_still(sign)
        site.signal_supervisor()
        job.resume()
        moves(sign)
        job.pause()
        site.signal_supervisor()
        assert job.stop(1000).signal == signal.SIGTERM
        assert sign.processes() == []
