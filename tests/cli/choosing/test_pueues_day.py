"""A day as users of pueue have it: two groups of jobs, pauses, priorities, and one after all.

pueue's groups are queues with `parallel` here, and labels to act on them.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import POLICY, USERS
from tests.support.server import Server, running_server
from tests.support.waiting import until

AS_ROOT = "users: {jobs_run_as_root: true}, " if os.geteuid() == 0 else ""
QUEUES = f"jobs: {{{AS_ROOT}queues: {{cpu: {{parallel: 3}}, gpu: {{parallel: 1}}}}}}\n"
GATE = "until [ -e {} ]; do sleep 0.02; done"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path, USERS, POLICY, QUEUES) as up:
        yield up


def add(server: Server, group: str, script: str, *options: str) -> str:
    words = (f"--queue={group}", "--label", f"group={group}", *options)
    return server.ask("alice", "start", *words, "--", "sh", "-c", script)


def jobs(server: Server, *words: str) -> list[dict[str, object]]:
    told = server.ask("alice", "list", "-o", "json", "-n", "0", *words)
    return [json.loads(line) for line in told.splitlines()]


def test_a_day(server: Server, tmp_path: Path) -> None:
    open_cpu, open_gpu, order = tmp_path / "cpu", tmp_path / "gpu", tmp_path / "order"
    cpu = [add(server, "cpu", GATE.format(open_cpu)) for _ in range(15)]
    gpu = []
    for number in range(14):
        script = f"{GATE.format(open_gpu)}; echo {number} >> {order}"
        gpu.append(add(server, "gpu", script, "--priority", str(number % 2)))
    last = add(server, "cpu", f"cat {order}", *(f"--after={job}" for job in gpu))

    # Each group runs as many as it may, whatever the other does.
    until(lambda: len(jobs(server, "--label", "group=cpu", "--state", "running")) == 3)
    until(lambda: len(jobs(server, "--label", "group=gpu", "--state", "running")) == 1)
    assert [one["id"] for one in jobs(server, "--label", "group=gpu", "--state", "running")] == [
        gpu[0]
    ]
    assert len(jobs(server, "--state", "pending")) == 12 + 13 + 1
    table = server.ask("alice", "list", "--state", "pending", "--columns", "id,queue,state")
    assert table.count("gpu") == 13

    # What runs of a group stands still, and goes on.
    paused = server.ask("alice", "pause", "--label", "group=cpu", "--state", "running").split()
    assert len(paused) == 3
    server.ask("alice", "resume", "--state", "paused")

    # One is taken out, and one put in again.
    server.ask("alice", "stop", cpu[-1])
    assert server.run("alice", "wait", cpu[-1]).returncode == 125
    stopped, cpu[-1] = cpu[-1], server.ask("alice", "again", cpu[-1])
    assert server.ask("alice", "rm", stopped) == stopped

    open_gpu.touch()
    assert server.run("alice", "wait", *gpu).returncode == 0
    # The first was running; of those that waited the higher priority came first, then the older.
    ran = [int(line) for line in order.read_text().split()]
    assert ran == [0, *range(1, 14, 2), *range(2, 14, 2)]

    open_cpu.touch()
    assert server.run("alice", "wait", "--label", "group=cpu").returncode == 0
    assert [int(line) for line in server.ask("alice", "logs", last).split()] == ran
    assert jobs(server, "--running") == []
    assert jobs(server, "--failed") == []
    done = server.run("alice", "rm", "--label", "group")
    assert (done.returncode, len(done.stdout.split())) == (0, 30)
