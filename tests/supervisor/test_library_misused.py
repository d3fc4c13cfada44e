"""The library used as it is not meant to be: one clear error each, at once."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobworker.supervisor import AsyncJobWorker, Chunk, Job, JobWorker, NotOpen
from tests.support.library import Site
from tests.support.server import DEADLINE_SECONDS, leaving_no_process

USES: dict[str, Callable[[JobWorker], object]] = {
    "start": lambda worker: worker.start(["true"]),
    "list": lambda worker: worker.list(),
    "status": lambda worker: worker.job("0").status(),
    "wait": lambda worker: worker.job("0").wait(),
    "output": lambda worker: list(worker.job("0").output()),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("use", USES)
def test_without_a_block(site: Site, use: str) -> None:
    """Start without `with` hung for ever."""
    with pytest.raises(NotOpen, match=r"not open yet: use it within a block, `with JobWorker"):
        USES[use](site.worker())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("use", USES)
def test_after_the_block(site: Site, use: str) -> None:
    """It ended in "Event loop is closed" and a coroutine that was never awaited."""
    with site.worker() as worker:
        pass
    with pytest.raises(NotOpen, match="ended with its `with` block"):
        USES[use](worker)


def test_a_block_is_entered_once(site: Site) -> None:
    with site.worker() as worker, pytest.raises(NotOpen, match="entered once"):
        worker.__enter__()
    with pytest.raises(NotOpen, match="entered once"):
        worker.__enter__()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("sleep 1", "argv is a list such as ['sleep', '1'], not the one text 'sleep 1'"),
        (b"ls", "argv is a list such as ['ls'], not the one text b'ls'"),
        ([1], "argv[0] is 1, of type int: it must be a text"),
        (["echo", None], "argv[1] is None, of type NoneType: it must be a text"),
    ],
)
def test_what_is_no_command(site: Site, argv: list[str], words: str) -> None:
    """start("sleep 1") ran `s`, and start([1]) was a TypeError of the C library's."""
    with site.worker() as worker:
        with pytest.raises(TypeError) as raised:
            worker.start(argv)
        assert words in str(raised.value)
        with pytest.raises(TypeError, match="the variable A is 1, of type int"):
            worker.start(["true"], env={"A": 1})  # type: ignore[dict-item]
        assert worker.list() == []


def test_paths_and_bytes_are_texts(site: Site, tmp_path: Path) -> None:
    with site.worker() as worker:
        job = worker.start(
            [Path("/bin/sh"), b"-c", 'printf "$A"; pwd'], env={"A": b"\xff"}, cwd=tmp_path
        )
        assert output(job) == b"\xff" + os.fsencode(tmp_path) + b"\n"


def output(job: Job) -> bytes:
    return b"".join(piece.data for piece in job.output() if isinstance(piece, Chunk))


# -- event loops ---------------------------------------------------------------------------


def test_within_a_running_loop(site: Site) -> None:
    """As in a notebook, whose cells run within one."""

    async def cell() -> None:
        with site.worker() as worker:
            assert output(worker.start(["echo", "here"])) == b"here\n"

    asyncio.run(cell())


def test_on_another_loop(site: Site) -> None:
    async def once(worker: AsyncJobWorker) -> None:
        with pytest.raises(NotOpen, match="belongs to the event loop it was entered on"):
            await worker.start(["true"])

    async def scenario() -> None:
        async with site.async_worker() as worker:
            await asyncio.to_thread(asyncio.run, once(worker))

    asyncio.run(scenario())


def test_who_waits_while_the_block_ends_is_told(site: Site) -> None:
    """It waited for ever."""
    told: list[BaseException] = []
    waiting = threading.Event()

    def wait(job: Job) -> None:
        try:
            waiting.set()
            job.wait()
        except NotOpen as error:
            told.append(error)

    with site.worker(grace_seconds=0.1) as worker:
        job = worker.start(["sleep", "1000"])
        thread = threading.Thread(target=wait, args=(job,))
        thread.start()
        assert waiting.wait(DEADLINE_SECONDS)
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert len(told) == 1


def test_a_task_that_waits_while_the_block_ends_is_told(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_worker(grace_seconds=0.1) as worker:
            job = await worker.start(["sleep", "1000"])
            waiter = asyncio.ensure_future(job.wait())
            await job.status()
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(Exception, match="the connection was closed"):
                await waiter

    asyncio.run(scenario())


# -- signals and forks ---------------------------------------------------------------------

INTERRUPTED = """
import sys
from jobworker.supervisor import JobWorker
try:
    with JobWorker(sys.argv[1], grace_seconds=0.1) as worker:
        job = worker.start(["sh", "-c", "echo up; exec sleep 1000"])
        next(job.output())
        print("up", flush=True)
        job.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
INTERRUPTED_LOOP = """
import asyncio, sys
from jobworker.supervisor import AsyncJobWorker
async def main():
    async with AsyncJobWorker(sys.argv[1], grace_seconds=0.1) as worker:
        job = await worker.start(["sh", "-c", "echo up; exec sleep 1000"])
        async for piece in job.output():
            print("up", flush=True)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


# However the tests were started: the shell's & leaves the signal ignored.
AS_FROM_A_TERMINAL = ("env", "--default-signal=INT")


@pytest.mark.parametrize("program", [INTERRUPTED, INTERRUPTED_LOOP], ids=["threads", "asyncio"])
def test_ctrl_c_ends_the_block(tmp_path: Path, program: str) -> None:
    with leaving_no_process():
        running = subprocess.Popen(
            [*AS_FROM_A_TERMINAL, sys.executable, "-W", "error", "-c", program, tmp_path / "state"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGINT)
        said, errors = running.communicate(timeout=DEADLINE_SECONDS)
    assert (said, errors) == ("interrupted\n", "")


FORKED = """
import os, sys
from jobworker.supervisor import JobWorker, NotOpen
with JobWorker(sys.argv[1]) as worker:
    job = worker.start(["sh", "-c", "echo up; read line < " + sys.argv[2]])
    next(job.output())
    child = os.fork()
    if not child:
        try:
            job.status()
        except NotOpen as error:
            print(error, flush=True)
        # The end of the block is the parent's.
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not job.status().ended
    open(sys.argv[2], "w").close()
    print(job.wait().exit_code, flush=True)
"""


def test_a_fork_is_told_that_the_worker_is_its_parents(tmp_path: Path) -> None:
    """It waited for ever for a thread that it does not have."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with leaving_no_process():
        done = subprocess.run(
            [sys.executable, "-c", FORKED, str(tmp_path / "state"), str(fifo)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    said, code = done.stdout.splitlines()
    assert said.startswith("this process was forked from the one that opened the worker")
    # read(1) at the end of a file.
    assert code == "1"


OUTLIVED = """
import os, sys
from jobworker.supervisor import JobWorker
with JobWorker(sys.argv[1], grace_seconds=0.1) as worker:
    worker.start(["sleep", "1000"])
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
    print("up", flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_fork_that_outlives_it_keeps_no_service_alive(tmp_path: Path) -> None:
    with leaving_no_process():
        running = subprocess.Popen(
            [sys.executable, "-c", OUTLIVED, str(tmp_path / "state")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert running.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        # The directory is free when the service has ended, though the fork still reads.
        deadline = threading.Event()
        timer = threading.Timer(DEADLINE_SECONDS, deadline.set)
        timer.start()
        while True:
            try:
                with JobWorker(tmp_path / "state") as worker:
                    assert worker.list(running=True) == []
                break
            except Exception:  # noqa: BLE001 - as long as another service has the directory
                assert not deadline.is_set()
        timer.cancel()
        running.communicate()
