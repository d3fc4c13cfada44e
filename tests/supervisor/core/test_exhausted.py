"""What the system refuses once, at any place of a turn: nobody waits for ever, nothing is lost."""

import asyncio
import errno
import resource
from pathlib import Path
from typing import Never

import pytest

from jobworker.supervisor import (
    AsyncJobWorker,
    CannotExecute,
    Chunk,
    Exhausted,
    State,
    library,
)
from jobworker.supervisor.host import descriptors
from tests.support import dying_supervisor
from tests.support.library import Site

DEADLINE_SECONDS = 60.0
# The first so many calls of each function fail, each in a job's life of its own.
CALLS = 3
# What EAGAIN may come from without saying that there is nothing to do yet.
MAY_NOT_NOW = {"listdir", "memfd_create", "pidfd_open", "pipe2", "scandir", "socketpair"}

both = pytest.mark.parametrize("site", ["auto", "off"], indirect=True)


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that has a call of the supervisors of later workers fail."""
    path = tmp_path / "fault"
    path.touch()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("FAILS_AT", str(path))
    monkeypatch.setattr(library, "SUPERVISOR_TARGET", dying_supervisor.FAILING)
    return path


async def live(worker: AsyncJobWorker) -> None:
    """A job's whole life: its start is refused in words, or it is stopped with all its output."""
    try:
        job = await worker.start(["sh", "-c", "echo out; sleep 1000 & exec sleep 1000"])
    except (Exhausted, CannotExecute):
        return
    async for piece in job.output():
        assert isinstance(piece, Chunk)
        assert piece.data == b"out\n"
        break
    try:
        await job.stop(0)
    except Exhausted:
        await job.stop(0)
    ended = await job.wait()
    assert (ended.state, ended.signal) == (State.ENDED, 9)
    read = [piece async for piece in job.output()]
    assert b"".join(piece.data for piece in read if isinstance(piece, Chunk)) == b"out\n"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN])
@both
def test_a_call_that_fails_once_costs_one_start_at_most(
    site: Site, fault: Path, number: int
) -> None:
    """EMFILE in the end of a turn was caught by nobody: from then on every start and stop hung.

    What was running then outlived the service.
    """

    async def all_of_them() -> None:
        async with site.async_worker() as worker:
            for name in dying_supervisor.CALLS:
                if number == errno.EAGAIN and name not in MAY_NOT_NOW:
                    continue
                for call in range(CALLS):
                    fault.write_text(f"{name};{call};{number}")
                    async with asyncio.timeout(DEADLINE_SECONDS):
                        await live(worker)
                    fault.write_text("")
            job = await worker.start(["true"])
            assert (await job.wait()).exit_code == 0
            assert not await worker.list(running=True)

    asyncio.run(all_of_them())


@both
def test_out_of_descriptors_a_start_is_refused_and_the_rest_goes_on(site: Site) -> None:
    """With 512 descriptors and 100 jobs that block, every call hung after the last start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def fill() -> None:
        async with site.async_worker() as worker, asyncio.timeout(DEADLINE_SECONDS):
            supervisor = site.supervisor()
            assert supervisor is not None
            resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (512, most))
            starts = (worker.start(["sleep", "1000"]) for _ in range(100))
            jobs = await asyncio.gather(*starts, return_exceptions=True)
            refused = [job for job in jobs if isinstance(job, BaseException)]
            assert refused
            assert all(isinstance(error, Exhausted) for error in refused)
            assert "ulimit -n" in str(refused[-1])
            running = [job for job in jobs if not isinstance(job, BaseException)]
            assert len(running) > 20
            for job in running:
                assert (await job.status()).state is State.RUNNING
            for job in running[:20]:
                assert (await job.stop(0)).signal == 9
            assert (await (await worker.start(["true"])).wait()).exit_code == 0

    asyncio.run(fill())


async def start_without_end(worker: AsyncJobWorker) -> Never:
    """Start jobs that block, one by one."""
    while True:
        await worker.start(["sleep", "1000"])


@both
def test_the_keeper_keeps_descriptors_for_another_supervisor(site: Site) -> None:
    """Jobs started little by little took the keeper's last, which holds more for each."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def fill() -> None:
        async with site.async_worker() as worker, asyncio.timeout(DEADLINE_SECONDS):
            supervisor = site.supervisor()
            assert supervisor is not None
            keeper = site.keeper()
            for process in (supervisor, keeper):
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, limits[1]))
            with pytest.raises(Exhausted, match="of 256 files open"):
                await start_without_end(worker)
            assert keeper.num_fds() <= 256 - descriptors.RESERVE
            site.signal_supervisor()
            for job in await worker.list(limit=10):
                assert (await worker.job(job.id).stop(0)).signal == 9
            assert (await (await worker.start(["true"])).wait()).exit_code == 0

    asyncio.run(fill())
