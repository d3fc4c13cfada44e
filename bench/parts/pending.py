"""Jobs that wait for their turn: what one more costs beside many, and how soon room is filled.

All on the supervisor alone, without gRPC. The one place of the queue is taken, so
that all wait; then its job is stopped again and again.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil
import uuid_utils

from bench.measure import Figure
from bench.parts.memory import pss
from bench.report import Row, table
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import AsyncJobWorker, JobSnapshot, State

_WAITING = 100_000
_AT_ONCE = 64
_SUBMITS = 500
_TURNS = 20
_MIB = 2.0**-20


class Measured(NamedTuple):
    """Seconds, and bytes of the supervisor's memory."""

    alone: float
    beside: float
    rate: float
    filled: list[float]
    memory_before: int
    memory: int


def main() -> None:
    """Measure and print the table."""
    with TemporaryDirectory(prefix="bench-") as name:
        measured = asyncio.run(_measure(Path(name)))
    print(table(f"{_WAITING:,} jobs that wait", _rows(measured)))


def _rows(found: Measured) -> Iterator[Row]:
    def one(value: float) -> Figure:
        return Figure((value,))

    submits = {"beside them": one(found.beside), "with none": one(found.alone)}
    yield Row("A job more, p50, 1 caller", "ms", submits, scale=1e3, goal=found.alone * 1.5e3)
    yield Row(f"A job more, {_AT_ONCE} callers", "1/s", {"all": one(found.rate)}, more=True)
    filled = Figure(tuple(found.filled))
    yield Row("From an end to the next job's execution", "ms", {"it": filled}, scale=1e3, goal=50)
    memory = {"with them": one(found.memory), "with none": one(found.memory_before)}
    yield Row("Memory of the supervisor", "MiB", memory, scale=_MIB)


async def _measure(directory: Path) -> Measured:
    queues = {"default": {"parallel": 1}}
    async with AsyncJobWorker(directory / "state", queues=queues) as worker:
        first = await _submit(worker)
        alone = await _p50(worker)
        supervisor = _supervisor()
        before = pss(supervisor)
        began = time.perf_counter()
        await asyncio.gather(*(_submit_many(worker, _WAITING // _AT_ONCE) for _ in range(_AT_ONCE)))
        rate = _WAITING / (time.perf_counter() - began)
        beside = await _p50(worker)
        filled = [await _filled(worker) for _ in range(_TURNS)]
        memory = pss(supervisor)
        assert (await worker.client.get(first)).ended
    return Measured(alone, beside, rate, filled, before, memory)


async def _submit(worker: AsyncJobWorker) -> str:
    asked = pb.StartRequest(rawArguments=[b"sleep", b"infinity"], queue="default", graceSeconds=0.1)
    order = ipc.Start(id=str(uuid_utils.uuid7()), owner="bench", request=asked)
    return (await worker.client.start(order)).id


async def _submit_many(worker: AsyncJobWorker, count: int) -> None:
    for _ in range(count):
        await _submit(worker)


async def _p50(worker: AsyncJobWorker) -> float:
    taken = []
    for _ in range(_SUBMITS):
        begin = time.perf_counter()
        await _submit(worker)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


async def _filled(worker: AsyncJobWorker) -> float:
    """Stop the one that runs; how long it takes from its end until the next executes."""
    told: asyncio.Queue[tuple[float, JobSnapshot]] = asyncio.Queue()
    running = await _running(worker)
    worker.client.observe(lambda: 1, lambda job: told.put_nowait((time.perf_counter(), job)))
    await worker.client.end(running)
    ended = 0.0
    while True:
        when, job = await told.get()
        if job.id == running and job.ended:
            ended = when
        elif ended and job.id != running and job.state is State.RUNNING:
            return when - ended


async def _running(worker: AsyncJobWorker) -> str:
    before = ""
    while True:
        page = await worker.client.list(ipc.List(running=True, limit=1000, before=before))
        for job in page:
            if job.pid:
                return job.id
        before = page[-1].id


def _supervisor() -> psutil.Process:
    found = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.cmdline()[:1] == ["jobworker: supervisor"]
    ]
    return found[0]
