"""The host's clock is set while jobs start, run, write, stop and are kept: none of them minds."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobworker.supervisor import (
    AsyncJob,
    AsyncJobWorker,
    Chunk,
    Gap,
    Limits,
    Reason,
    Selection,
    State,
)
from tests.support.library import Site

DEADLINE_SECONDS = 60.0
HOUR = 3600.0
DAY = 24 * HOUR
YEAR_2040 = 2_208_988_800.0
WRITES = "echo one; until [ -e {gate} ]; do sleep 0.02; done; echo two"
IGNORES = "trap '' TERM; echo up; while :; do sleep 0.05; done"


@contextmanager
def clock_set_right_again() -> Iterator[None]:
    """Undo what the block does to the clock."""
    wall, monotonic = time.time(), time.monotonic()
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - monotonic)


def data(piece: Chunk | Gap) -> bytes:
    """A piece of output, of which nothing is lost."""
    assert isinstance(piece, Chunk)
    return piece.data


async def everything(job: AsyncJob, selection: Selection = Selection()) -> bytes:  # noqa: B008
    """The output up to its end, followed."""
    return b"".join([data(piece) async for piece in job.output(selection)])


async def through_a_step(worker: AsyncJobWorker, site: Site, gate: Path, to: float) -> None:
    """Jobs of every kind live through the clock's being set, and through a new supervisor."""
    begun = time.time()
    kept = await worker.start(["echo", "kept"])
    assert await everything(kept) == b"kept\n"
    long = await worker.start(["sleep", "1000"], limits=Limits(timeout=HOUR / 2))
    stubborn = await worker.start(["sh", "-c", IGNORES])
    async for _ in stubborn.output():
        break
    writer = await worker.start(["sh", "-c", WRITES.format(gate=gate)])
    followed = writer.output()
    assert data(await anext(followed)) == b"one\n"
    stopped = asyncio.ensure_future(stubborn.stop(0.5))
    short = await worker.start(["sleep", "1000"], limits=Limits(timeout=4))
    starting = [asyncio.ensure_future(worker.start(["true"])) for _ in range(5)]
    await asyncio.sleep(0)
    time.clock_settime(time.CLOCK_REALTIME, to)
    for start in starting:
        assert (await (await start).wait()).exit_code == 0
    site.signal_supervisor()
    assert (await stopped).signal == 9
    gate.touch()
    assert [data(piece) async for piece in followed] == [b"two\n"]
    # Where the clock was set back, what came before has a later time than that.
    since = await everything(writer, Selection(since_ns=int((to - 1) * 1e9)))
    assert since == (b"two\n" if to > begun else b"one\ntwo\n")
    assert (await short.wait()).reason is Reason.TIMED_OUT
    assert (await long.status()).state is State.RUNNING
    last = await worker.start(["true"])
    found = [job.id for job in await worker.list()]
    assert found[0] == last.id
    assert found[-1] == kept.id
    assert (await long.stop(0)).signal == 9


@pytest.mark.parametrize("site", ["auto"], indirect=True)
@pytest.mark.parametrize("step", [HOUR, -HOUR, 400 * DAY, -400 * DAY, None])
def test_the_clock_is_set(site: Site, tmp_path: Path, step: float | None) -> None:
    """Ended jobs were deleted by a step of +31 days, and others ended early or late."""

    async def scenario() -> None:
        settings = {"retention": {"seconds": 30 * DAY}}
        async with asyncio.timeout(DEADLINE_SECONDS):
            async with site.async_worker(**settings) as worker:
                to = YEAR_2040 if step is None else time.time() + step
                await through_a_step(worker, site, tmp_path / "gate", to)
                before = [job.id for job in await worker.list()]
            async with site.async_worker(**settings) as worker:
                assert [job.id for job in await worker.list()] == before

    with clock_set_right_again():
        asyncio.run(scenario())
