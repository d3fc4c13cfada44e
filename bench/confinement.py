"""What a user, a cgroup, limits and isolation cost a start.

All on the supervisor alone, without gRPC: two of them, one that confines its
jobs and one that does not, in turns. Without root, and where cgroups have no
controllers, less is measured: the table says what.
"""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import uuid_utils

from bench.measure import Measure, interleaved
from bench.report import Row, table
from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor import AsyncJobWorker
from jobworker.supervisor.cgroup import JobCgroups

# A Unix user of every Debian host.
_USER = "games"
_STARTS = 100


def main() -> None:
    """Measure and print the table."""
    with TemporaryDirectory(prefix="bench-") as name, asyncio.Runner() as runner:
        directory = Path(name)
        directory.chmod(0o711)
        users: dict[str, object] = {"names": {"bench": _USER}}
        as_user = {"users": users} if os.geteuid() == 0 else {}
        controllers = _controllers(directory)
        limits = ipc.Limits(
            open_files=100,
            **({"memory_bytes": 2**28} if "memory" in controllers else {}),
            **({"processes": 100} if "pids" in controllers else {}),
            **({"cpus": 1.0} if "cpu" in controllers else {}),
        )
        plain = AsyncJobWorker(directory / "plain", cgroup="off")
        confined = AsyncJobWorker(directory / "confined", **as_user)
        runner.run(plain.__aenter__())
        runner.run(confined.__aenter__())
        private = partial(ipc.Start, isolation=ipc.ISOLATION_PRIVATE)
        ways: dict[str, Measure] = {
            "user, cgroup and limits": _p50(runner, confined, partial(ipc.Start, limits=limits)),
            "none of them": _p50(runner, plain, ipc.Start),
            "user, cgroup and bubblewrap": _p50(runner, confined, private),
        }
        figures = interleaved(ways)
        runner.run(plain.__aexit__(None, None, None))
        runner.run(confined.__aexit__(None, None, None))
    kept = ", ".join(sorted(controllers)) or "none"
    who = f"Unix user {_USER}" if as_user else "the same Unix user"
    goal = 1.5 * figures["none of them"].median * 1e3
    row = Row("Start p50, 1 caller", "ms", figures, scale=1e3, goal=round(goal, 2))
    print(table(f"What confinement costs ({who}; controllers: {kept})", [row]))


def _controllers(directory: Path) -> frozenset[str]:
    cgroups = JobCgroups.prepare(directory)
    if cgroups is None:
        return frozenset()
    cgroups.dissolve()
    return cgroups.controllers


def _p50(
    runner: asyncio.Runner, worker: AsyncJobWorker, request: Callable[..., ipc.Start]
) -> Measure:
    async def start_all() -> float:
        taken = []
        for _ in range(_STARTS):
            asked = request(id=str(uuid_utils.uuid7()), owner="bench", argv=["true"])
            begin = time.perf_counter()
            await worker.client.start(asked)
            taken.append(time.perf_counter() - begin)
        while await worker.client.list(ipc.List(running=True, limit=1)):
            pass
        return sorted(taken)[len(taken) // 2]

    return lambda: runner.run(start_all())
