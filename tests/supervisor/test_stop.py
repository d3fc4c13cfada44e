"""Stopping jobs: the whole tree, however it spreads and hides, with its grace and no longer."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobworker.supervisor import (
    AsyncJob,
    AsyncJobWorker,
    CannotExecute,
    Chunk,
    Gap,
    Job,
    NoSuchJob,
    Reason,
    State,
)
from tests.support.file_systems import Hanging, hanging_copy
from tests.support.library import TREES, Sign, Site, eventually, spread


@pytest.fixture
def sign() -> Iterator[Sign]:
    made = Sign()
    yield made
    for process in made.processes():
        process.kill()


def written(job: Job, what: bytes) -> None:
    """Wait until the job has written this."""
    seen = b""
    for piece in job.output():
        assert isinstance(piece, Chunk)
        seen += piece.data
        if what in seen:
            return
    pytest.fail(f"the job ended with {seen!r}")


def test_a_tree_that_ends_on_sigterm_is_gone_before_its_grace(site: Site) -> None:
    with site.worker() as worker:
        for tree in TREES:
            sign = Sign()
            job = spread(worker, sign, tree)
            began = time.monotonic()
            ended = job.stop(1000)
            assert sign.processes() == [], tree
            assert time.monotonic() - began < 60, tree
            assert (ended.state, ended.gone) == (State.ENDED, True), tree
            if "exit 3" in TREES[tree][0]:
                assert (ended.exit_code, ended.reason) == (3, Reason.EXITED), tree
            else:
                assert (ended.signal, ended.reason) == (signal.SIGTERM, Reason.STOPPED), tree


def test_a_tree_that_ignores_sigterm_is_killed_after_its_grace(site: Site) -> None:
    with site.worker() as worker:
        for tree in TREES:
            sign = Sign()
            job = spread(worker, sign, tree, before="trap '' TERM; ")
            began = time.monotonic()
            ended = job.stop(0.3)
            assert sign.processes() == [], tree
            assert time.monotonic() - began >= 0.3, tree
            if "exit 3" not in TREES[tree][0]:
                assert (ended.signal, ended.reason) == (signal.SIGKILL, Reason.STOPPED), tree


def test_without_grace_nothing_is_asked(site: Site, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with site.worker() as worker:
        for tree in TREES:
            sign = Sign()
            job = spread(worker, sign, tree, before=f"trap 'echo >> {asked}' TERM; ")
            ended = job.stop(0)
            assert sign.processes() == [], tree
            if "exit 3" not in TREES[tree][0]:
                assert (ended.signal, ended.reason) == (signal.SIGKILL, Reason.STOPPED), tree
    assert not asked.exists()


def test_the_end_of_the_worker_ends_every_tree(site: Site) -> None:
    signs = {tree: Sign() for tree in TREES}
    with site.worker() as worker:
        for tree, sign in signs.items():
            spread(worker, sign, tree)
    assert {tree for tree, sign in signs.items() if sign.processes()} == set()


# -- the order of things -------------------------------------------------------------------

# Each process of it says that it was asked to end, and does so a while later.
POLITE = """
import os, signal, sys, time
def end(*_):
    os.write(1, b"asked\\n")
    time.sleep(0.3)
    os.write(1, b"ending\\n")
    os._exit(7)
signal.signal(signal.SIGTERM, end)
for place in ("child", "grandchild", "daemon"):
    if os.fork():
        break
    os.setsid()
os.write(1, b"up\\n")
while True:
    signal.pause()
"""


def all_output(job: Job) -> bytes:
    """The output to its end."""
    return b"".join(piece.data for piece in job.output() if isinstance(piece, Chunk))


def test_every_process_is_asked_and_may_take_its_time(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        job = worker.start([sys.executable, "-SEc", POLITE, sign.number])
        written(job, b"up\n" * 4)
        ended = job.stop(1000)
        assert sign.processes() == []
        assert (ended.exit_code, ended.reason) == (7, Reason.STOPPED)
        output = all_output(job)
        assert (output.count(b"asked\n"), output.count(b"ending\n")) == (4, 4)


def test_a_grace_that_is_not_given_is_the_jobs_own(site: Site, sign: Sign) -> None:
    with site.worker(grace_seconds=1000) as worker:
        script = "trap '' TERM; echo up; while :; do sleep 1; done"
        job = worker.start(["sh", "-c", script, "sh", sign.number], grace=0.4)
        written(job, b"up\n")
        began = time.monotonic()
        assert job.stop().signal == signal.SIGKILL
        assert 0.4 <= time.monotonic() - began < 60


def test_a_second_stop_only_ever_hastens(site: Site, sign: Sign) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"
            job = await worker.start(["sh", "-c", script, "sh", sign.number])
            output = job.output()
            await until_written(output, b"up")
            began = time.monotonic()
            stops = [asyncio.ensure_future(job.stop(0.7))]
            await until_written(output, b"asked")
            stops.append(asyncio.ensure_future(job.stop(1000)))
            ends = await asyncio.gather(*stops)
            assert 0.7 <= time.monotonic() - began < 60
            assert {end.signal for end in ends} == {signal.SIGKILL}
            # No second SIGTERM, and nothing but that.
            assert [piece async for piece in output] == []

            slow = await worker.start(["sh", "-c", script, "sh", sign.number])
            await until_written(slow.output(), b"up")
            waiting = asyncio.ensure_future(slow.stop(1000))
            while (await slow.status()).state is not State.STOPPING:
                await asyncio.sleep(0)
            assert (await slow.stop(0)).signal == signal.SIGKILL
            assert (await waiting).signal == signal.SIGKILL

    asyncio.run(scenario())
    assert sign.processes() == []


async def until_written(output: AsyncIterator[Chunk | Gap], what: bytes) -> None:
    """Read on until this has been written."""
    seen = b""
    while what not in seen:
        piece = await anext(output)
        assert isinstance(piece, Chunk)
        seen += piece.data


def test_many_are_stopped_at_once(site: Site) -> None:
    signs = [Sign() for _ in range(30)]

    async def scenario() -> None:
        async with site.async_worker() as worker:
            script = "setsid -f sleep $1; exec sleep $1"
            jobs = await asyncio.gather(
                *(worker.start(["sh", "-c", script, "sh", sign.number]) for sign in signs)
            )
            bystander = await worker.start(["sleep", "1000"])
            ends = await asyncio.gather(*(job.stop(1000) for job in jobs))
            assert {(end.signal, end.reason) for end in ends} == {(15, Reason.STOPPED)}
            assert not any(sign.processes() for sign in signs)
            assert not (await bystander.status()).ended

    asyncio.run(scenario())


# -- what forks while it is being killed -----------------------------------------------------

# Every process forks its successor and ends, over and over; some of them leave the session.
HOPPERS = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"up")
for _ in range(3):
    if not os.fork():
        break
while True:
    if os.fork():
        os._exit(0)
    if sys.argv[2] == "setsid":
        os.setsid()
"""
# Every process makes others without end, and all of them stay, in sessions of their own.
BOMB = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"up")
for _ in range(3):
    os.fork()
while True:
    if not os.fork():
        os.setsid()
        while True:
            signal.pause()
    signal.sigtimedwait([], 0.02)
"""


@pytest.mark.parametrize("grace", [0, 0.2])
@pytest.mark.parametrize("leave", ["setsid", "stay"])
def test_hopping_from_process_to_process_is_no_way_out(
    site: Site, sign: Sign, leave: str, grace: float
) -> None:
    with site.worker() as worker:
        job = worker.start([sys.executable, "-SEc", HOPPERS, sign.number, leave])
        written(job, b"up")
        assert job.stop(grace).ended
        # Whoever writes to its output would keep that open.
        assert all_output(job) == b"up"
        assert sign.processes() == []


def test_a_fork_bomb_is_no_way_out(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        job = worker.start([sys.executable, "-SEc", BOMB, sign.number])
        written(job, b"up")
        eventually("it has grown", lambda: len(sign.processes()) > 100)
        assert job.stop(0).signal == signal.SIGKILL
        assert all_output(job) == b"up"
        assert sign.processes() == []


# -- what has ended, and what has not begun --------------------------------------------------


def test_stopping_what_has_ended_and_left_nothing_changes_nothing(site: Site) -> None:
    with site.worker() as worker:
        job = worker.start(["sh", "-c", "echo out; exit 9"])
        job.wait()
        assert all_output(job) == b"out\n"
        before = job.status()
        for grace in (0, 1000, None):
            after = job.stop(grace)
            assert (after.exit_code, after.reason, after.gone) == (9, Reason.EXITED, True)
            assert after.ended_ns == before.ended_ns
        with pytest.raises(NoSuchJob):
            worker.job("01890000-0000-7000-8000-000000000000").stop()


def test_what_outlives_a_job_lives_on_until_it_is_stopped(site: Site, sign: Sign) -> None:
    with site.worker() as worker:
        job = spread(worker, sign, "only a daemon with a cleared environment")
        # It holds the output open, too, which has not ended therefore.
        assert not job.status().output_complete
        assert len(sign.processes()) == 1
        job.stop(1000)
        assert sign.processes() == []
        eventually("the output is complete", lambda: job.status().output_complete)


def test_a_later_worker_stops_nothing_of_anybody_else(site: Site, sign: Sign) -> None:
    """The PIDs of a job that ended long ago may be another's by now."""
    with site.worker() as worker:
        job = worker.start(["true"])
        job.wait()
    with site.worker() as worker:
        other = spread(worker, sign, "sessions of their own")
        assert worker.job(job.id).stop(0).exit_code == 0
        assert len(sign.processes()) == TREES["sessions of their own"][1]
        assert not other.status().ended


async def starting(worker: AsyncJobWorker, *argv: str) -> tuple[AsyncJob, "asyncio.Task[AsyncJob]"]:
    """A start that hangs, and its job."""
    task = asyncio.ensure_future(worker.start(argv))
    while not (found := await worker.list()):
        await asyncio.sleep(0)
    return worker.job(found[0].id), task


def test_the_stop_of_a_start_that_hangs_ends_it_after_the_grace(
    site: Site, hanging: Hanging
) -> None:
    async def scenario() -> None:
        async with site.async_worker(start_seconds=1000) as worker:
            job, task = await starting(worker, hanging.name)
            began = time.monotonic()
            with pytest.raises(NoSuchJob):
                await job.stop(0.4)
            assert time.monotonic() - began >= 0.4
            with pytest.raises(CannotExecute, match="stopped before it began to execute"):
                await task
            assert await worker.list() == []

    asyncio.run(scenario())


def test_a_stop_while_starting_is_a_stop_of_what_starts(site: Site, tmp_path: Path) -> None:
    async def scenario() -> None:
        with hanging_copy(tmp_path / "slow", "/bin/sleep") as slow:
            async with site.async_worker(start_seconds=1000) as worker:
                job, task = await starting(worker, slow.name, "1000")
                stop = asyncio.ensure_future(job.stop(1000))
                # It is watched before it is stopped: the second answer comes after both.
                for _ in range(3):
                    await worker.list()
                slow.release()
                ended = await stop
                assert (ended.signal, ended.reason) == (signal.SIGTERM, Reason.STOPPED)
                assert (await task).id == job.id

    asyncio.run(scenario())
