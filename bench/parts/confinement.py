"""What a user, a cgroup, limits and isolation cost a start.

All on the supervisor alone, without gRPC: two of them, one that confines its
jobs and one that does not, in turns. Without root, and where cgroups have no
controllers, less is measured: the table says what. All of it then is measured
in user-mode Linux as well, where there is that: the times are long, as each
system call is, but it is the ratio that counts.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import uuid_utils

from bench.measure import Measure, interleaved
from bench.report import Row, table
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import AsyncJobWorker
from jobworker.supervisor.host.cgroup import JobCgroups
from tests.support.user_mode_linux import NoGuest, run_in_guest

# A Unix user of every Debian host.
_USER = "games"
_STARTS = 100
_LIMITED = frozenset({"cpu", "memory", "pids"})
# In user-mode Linux, where a start takes some 50 ms.
_GUEST_STARTS = 15
_GUEST_SECONDS = 600.0


def main() -> None:
    """Measure and print the table; also the guest's, where this host cannot keep the limits."""
    if _measure(_STARTS) >= _LIMITED:
        return
    words = ["-m", "bench.parts.confinement", str(_GUEST_STARTS)]
    with TemporaryDirectory(prefix="bench-") as name:
        try:
            output = run_in_guest(words, Path(name), _GUEST_SECONDS)
        except NoGuest as error:
            output = f"not measured with controllers: {error}"
    print(f"\nIn user-mode Linux: {output.strip()}")


def _measure(starts: int) -> frozenset[str]:
    """Measure and print the table; the controllers that took part."""
    with TemporaryDirectory(prefix="bench-") as name, asyncio.Runner() as runner:
        directory = Path(name)
        directory.chmod(0o711)
        users: dict[str, object] = {"names": {"bench": _USER}}
        as_user = {"users": users} if os.geteuid() == 0 else {}
        controllers = _controllers(directory)
        limits = pb.Limits(
            openFiles=100,
            **({"memoryBytes": 2**28} if "memory" in controllers else {}),
            **({"processes": 100} if "pids" in controllers else {}),
            **({"cpus": 1.0} if "cpu" in controllers else {}),
        )
        plain = AsyncJobWorker(directory / "plain", cgroup="off")
        confined = AsyncJobWorker(directory / "confined", **as_user)
        runner.run(plain.__aenter__())
        runner.run(confined.__aenter__())
        private = partial(pb.StartRequest, isolation=pb.ISOLATION_PRIVATE)
        ways: dict[str, Measure] = {
            "user, cgroup and limits": _p50(
                starts, runner, confined, partial(pb.StartRequest, limits=limits)
            ),
            "none of them": _p50(starts, runner, plain, pb.StartRequest),
            "user, cgroup and bubblewrap": _p50(starts, runner, confined, private),
        }
        figures = interleaved(ways)
        runner.run(plain.__aexit__(None, None, None))
        runner.run(confined.__aexit__(None, None, None))
    kept = ", ".join(sorted(controllers)) or "none"
    who = f"Unix user {_USER}" if as_user else "the same Unix user"
    goal = 1.5 * figures["none of them"].median * 1e3
    row = Row("Start p50, 1 caller", "ms", figures, scale=1e3, goal=round(goal, 2))
    print(table(f"What confinement costs ({who}; controllers: {kept})", [row]))
    return controllers


def _controllers(directory: Path) -> frozenset[str]:
    cgroups = JobCgroups.prepare(directory)
    if cgroups is None:
        return frozenset()
    cgroups.dissolve()
    return cgroups.controllers


def _p50(
    starts: int,
    runner: asyncio.Runner,
    worker: AsyncJobWorker,
    request: Callable[..., pb.StartRequest],
) -> Measure:
    async def start_all() -> float:
        taken = []
        for _ in range(starts):
            asked = ipc.Start(
                id=str(uuid_utils.uuid7()),
                owner="bench",
                request=request(rawArguments=[b"true"]),
            )
            begin = time.perf_counter()
            await worker.client.start(asked)
            taken.append(time.perf_counter() - begin)
        while await worker.client.list(ipc.List(running=True, limit=1)):
            pass
        return sorted(taken)[len(taken) // 2]

    return lambda: runner.run(start_all())


if __name__ == "__main__":
    _measure(int(sys.argv[1]))
