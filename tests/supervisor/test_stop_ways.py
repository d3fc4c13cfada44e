"""How a stop begins: with which signal, to whom; and signals to whole trees."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from jobworker.supervisor import AlreadyEnded, InvalidRequest, Job, Reason, StopMode, StopWay
from tests.supervisor.test_stop import all_output, written
from tests.support.library import Site, eventually

# A pool as celery or gunicorn are one: told to end, the main process has its workers
# end as it sees fit. A worker that is told from outside says so.
POOL = """
import os, signal, sys
def say(text):
    os.write(1, text + b"\\n")
workers = []
for _ in range(2):
    pid = os.fork()
    if not pid:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, lambda *_: (say(b"a worker was hit"), os._exit(9)))
        signal.signal(signal.SIGUSR1, lambda *_: (say(b"a worker ended"), os._exit(0)))
        say(b"up")
        while True:
            signal.pause()
    workers.append(pid)
def end(number, _):
    say(b"main got %d" % number)
    for pid in workers:
        os.kill(pid, signal.SIGUSR1)
    for _ in workers:
        os.wait()
    os._exit(7)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, end)
say(b"up")
while True:
    signal.pause()
"""
MAIN = StopMode.MAIN
# Below /home or /root, this one may not be there for a private job.
SYSTEM_PYTHON = Path("/usr/bin/python3")
PYTHON = str(SYSTEM_PYTHON) if SYSTEM_PYTHON.exists() else sys.executable


def lines(job: Job) -> list[bytes]:
    """What it wrote after it was up, sorted."""
    return sorted(line for line in all_output(job).splitlines() if line != b"up")


def orderly(number: int) -> list[bytes]:
    """What a pool says that may end its workers itself."""
    return [b"a worker ended", b"a worker ended", b"main got %d" % number]


@pytest.fixture(params=["none", "private"])
def isolated(request: pytest.FixtureRequest) -> dict[str, object]:
    """Settings with which jobs run in this profile."""
    if request.param == "private" and not (
        Path("/usr/bin/bwrap").exists() and SYSTEM_PYTHON.exists()
    ):
        pytest.skip("needs bubblewrap, and a Python outside of any home")
    return {"isolation": {"profile": request.param}}


def test_main_alone_is_told_first(site: Site, isolated: dict[str, object]) -> None:
    """A stop hit the workers of a pool at once, so that their work was lost."""
    with site.worker(**isolated) as worker:
        job = worker.start([PYTHON, "-SEc", POOL], stop=StopWay(mode=MAIN), grace=1000)
        written(job, b"up\n" * 3)
        ended = job.stop()
        assert lines(job) == orderly(signal.SIGTERM)
        assert (ended.exit_code, ended.reason, ended.gone) == (7, Reason.STOPPED, True)


def test_with_another_signal(site: Site, isolated: dict[str, object]) -> None:
    with site.worker(**isolated) as worker:
        way = StopWay(signal.SIGINT, MAIN)
        job = worker.start([PYTHON, "-SEc", POOL], stop=way, grace=1000)
        assert job.status().stop == way
        written(job, b"up\n" * 3)
        job.stop()
        assert lines(job) == orderly(signal.SIGINT)


def test_what_the_stop_says_comes_before_what_the_start_said(site: Site) -> None:
    with site.worker() as worker:
        job = worker.start([PYTHON, "-SEc", POOL], grace=1000)
        assert job.status().stop == StopWay(signal.SIGTERM, StopMode.TREE)
        written(job, b"up\n" * 3)
        job.stop(way=StopWay(signal.SIGQUIT, MAIN))
        assert lines(job) == orderly(signal.SIGQUIT)


def test_a_signal_to_the_whole_tree(site: Site) -> None:
    program = """
import os, signal
signal.signal(signal.SIGINT, lambda *_: (os.write(1, b"got it\\n"), os._exit(8)))
os.fork()
os.write(1, b"up\\n")
while True:
    signal.pause()
"""
    with site.worker() as worker:
        job = worker.start([PYTHON, "-SEc", program], stop=StopWay(signal.SIGINT), grace=1000)
        written(job, b"up\n" * 2)
        assert job.stop().exit_code == 8
        assert lines(job) == [b"got it"] * 2


LEAVING = "trap 'exit 4' TERM; sh -c '{child}' & echo up; while :; do sleep 0.05; done"


def test_what_main_leaves_is_told_when_main_has_ended(site: Site) -> None:
    child = 'trap "echo asked; exit" TERM; echo up; while :; do sleep 0.05; done'
    with site.worker() as worker:
        job = worker.start(["sh", "-c", LEAVING.format(child=child)], grace=1000)
        written(job, b"up\nup\n")
        ended = job.stop(way=StopWay(mode=MAIN))
        assert (ended.exit_code, ended.gone) == (4, True)
        assert b"asked" in lines(job)


def test_what_ignores_it_is_killed_though_main_has_gone(site: Site) -> None:
    child = 'trap "" TERM; echo up; while :; do sleep 0.05; done'
    with site.worker() as worker:
        job = worker.start(["sh", "-c", LEAVING.format(child=child)])
        written(job, b"up\nup\n")
        ended = job.stop(0.5, StopWay(mode=MAIN))
        assert (ended.exit_code, ended.gone) == (4, True)
        assert ended.reason is Reason.STOPPED


def test_main_that_ignores_it_is_killed_with_all(site: Site, isolated: dict[str, object]) -> None:
    script = "trap '' TERM; sleep 1000 & echo up; while :; do sleep 0.05; done"
    with site.worker(**isolated) as worker:
        job = worker.start(["sh", "-c", script])
        written(job, b"up\n")
        ended = job.stop(0.3, StopWay(mode=MAIN))
        assert ended.gone
        assert ended.signal == signal.SIGKILL


def test_a_second_stop_by_another_way_is_told_at_once(site: Site) -> None:
    script = "trap '' TERM; trap 'exit 5' INT; echo up; while :; do sleep 0.05; done"

    async def scenario() -> None:
        async with site.async_worker() as worker:
            job = await worker.start(["sh", "-c", script], grace=1000)
            async for _ in job.output():
                break
            await worker.client.stop(job.id)
            assert (await job.stop(way=StopWay(signal.SIGINT))).exit_code == 5

    asyncio.run(scenario())


def test_stopped_processes_are_woken(site: Site) -> None:
    with site.worker() as worker:
        script = "trap 'exit 6' TERM; echo up; kill -STOP $$; while :; do sleep 0.05; done"
        job = worker.start(["sh", "-c", script], stop=StopWay(mode=MAIN), grace=1000)
        written(job, b"up\n")
        assert job.stop().exit_code == 6


# -- signals -----------------------------------------------------------------------------

LISTENING = """
import os, signal
signal.signal(signal.SIGUSR2, lambda *_: os.write(1, b"got it\\n"))
{fork}
os.write(1, b"up\\n")
while True:
    signal.pause()
"""


def test_a_signal_reaches_main_alone_or_all(site: Site, isolated: dict[str, object]) -> None:
    """Signal reached the main process alone."""
    with site.worker(**isolated) as worker:
        program = LISTENING.format(fork="os.fork(); os.fork()")
        job = worker.start([PYTHON, "-SEc", program])
        written(job, b"up\n" * 4)
        job.signal(signal.SIGUSR2)
        written(job, b"got it\n")
        job.signal(signal.SIGUSR2, to_all=True)
        written(job, b"got it\n" * 5)
        job.stop(0)
        assert lines(job) == [b"got it"] * 5


def test_all_are_what_main_has_left(site: Site, tmp_path: Path) -> None:
    with site.worker() as worker:
        gone = tmp_path / "gone"
        program = LISTENING.format(fork="if os.fork(): os._exit(0)").replace(
            'os.write(1, b"got it\\n")', f"(open({str(gone)!r}, 'w').close(), os._exit(0))"
        )
        job = worker.start([PYTHON, "-SEc", f"import os; os.dup2(2, 1)\n{program}"])
        written(job, b"up\n")
        assert job.wait().exit_code == 0
        with pytest.raises(AlreadyEnded):
            job.signal(signal.SIGUSR2)
        job.signal(signal.SIGUSR2, to_all=True)
        eventually("what was left has ended", gone.exists)
        all_output(job)


def test_nothing_is_left_to_signal(site: Site) -> None:
    with site.worker() as worker:
        job = worker.start(["true"])
        job.wait()
        all_output(job)
        with pytest.raises(AlreadyEnded):
            job.signal(signal.SIGTERM, to_all=True)


@pytest.mark.parametrize("number", [-1, 65, 2**31 - 1])
def test_what_is_no_signal(site: Site, number: int) -> None:
    with site.worker() as worker, pytest.raises(InvalidRequest, match="between 1 and 64"):
        worker.start(["true"], stop=StopWay(number))
