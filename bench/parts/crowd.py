"""Many jobs at once: do all start, run and end, how soon, and what memory do they take?

Memory is the proportional set size (proc(5), smaps_rollup): a page that several
processes share counts in parts. Only the services' own processes are counted,
not the jobs.
"""

import os
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.caller import Caller, callers
from bench.measure import Figure, repeated, timed
from bench.report import Row, table
from bench.site import Site, running_site
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub

_JOBS = 500
_AT_ONCE = 16
_MIB = 2.0**-20
# Tells its number, waits for a line at the gate, tells it again and ends with it.
_SCRIPT = "echo begin $1; read line < $2; echo end $1; exit $(($1 % 256))"


class Crowd(NamedTuple):
    """One round: seconds until all run, and from the gate's opening until all have ended.

    `memory` is in bytes while all run, by process.
    """

    started: float
    ended: float
    memory: dict[str, int]


class JobLost(Exception):
    """A job did not end as it should have."""


def main() -> None:
    """Measure and print the table."""
    with running_site() as site, callers(site.login, 1) as (caller,):
        gate = site.directory / "gate"
        os.mkfifo(gate)
        ways: dict[str, Callable[[], Crowd]] = {
            "job-worker": partial(_ours, site, caller, gate),
            "ssh, one connection": partial(_ssh, site, gate),
        }
        idle = _memory(_our_processes(site))
        rounds = repeated(ways)
    title = f"{_JOBS} jobs at once; in every round all outputs and exit codes were right"
    print(table(title, _rows(rounds, idle)))


def _rows(rounds: dict[str, list[Crowd]], idle: dict[str, int]) -> Iterator[Row]:
    def of_all(value: Callable[[Crowd], float]) -> dict[str, Figure]:
        return {way: Figure(tuple(map(value, crowds))) for way, crowds in rounds.items()}

    yield Row("Until all run", "s", of_all(lambda crowd: crowd.started))
    yield Row("Until all have ended and been read", "s", of_all(lambda crowd: crowd.ended))
    for process, resident in idle.items():
        figures = {
            "with the jobs": Figure(tuple(c.memory[process] for c in rounds["job-worker"])),
            "before any job": Figure((resident,)),
        }
        yield Row(f"Memory of the {process}", "MiB", figures, _MIB)
    total = of_all(lambda crowd: sum(crowd.memory.values()))
    yield Row("Memory of all processes with the jobs", "MiB", total, _MIB)


def _ours(site: Site, caller: Caller, gate: Path) -> Crowd:
    with _gate(gate) as open_gate:
        jobs: list[str] = []
        started = timed(lambda: jobs.extend(caller.run(start_all, str(gate))))
        memory = _memory(_our_processes(site))
        open_gate()
        ended = timed(lambda: caller.run(end_all, jobs))
    return Crowd(started, ended, memory)


def _ssh(site: Site, gate: Path) -> Crowd:
    with _gate(gate) as open_gate, ThreadPoolExecutor(_AT_ONCE) as pool:
        clients: list[subprocess.Popen[bytes]] = []
        started = timed(
            lambda: clients.extend(pool.map(partial(_ssh_start, site, gate), range(_JOBS)))
        )
        memory = _memory({"sshd": _tree(site.ssh.server, "sshd")})
        open_gate()
        ended = timed(lambda: _ssh_end(clients))
    return Crowd(started, ended, memory)


def _ssh_start(site: Site, gate: Path, number: int) -> "subprocess.Popen[bytes]":
    command = site.ssh.held(shlex.join(_command(number, str(gate))))
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert client.stdout is not None
    _check(number, client.stdout.readline(), b"begin %d\n" % number)
    return client


def _ssh_end(clients: Iterable["subprocess.Popen[bytes]"]) -> None:
    for number, client in enumerate(clients):
        rest, _ = client.communicate()
        _check(number, rest, b"end %d\n" % number)
        _check(number, client.returncode, number % 256)


@contextmanager
def _gate(gate: Path) -> Iterator[Callable[[], object]]:
    """A FIFO at which all jobs wait until what this gives is called."""
    # Both its ends, so that no job waits to open it.
    descriptor = os.open(gate, os.O_RDWR)
    try:
        yield lambda: os.write(descriptor, b"\n" * _JOBS)
    finally:
        os.close(descriptor)


def _our_processes(site: Site) -> dict[str, list[psutil.Process]]:
    keeper = psutil.Process(site.server.process.pid)
    titles = {child.cmdline()[0]: child for child in keeper.children()}
    return {
        "front": [titles["jobworker: front"]],
        "supervisor": [titles["jobworker: supervisor"]],
        "keeper": [keeper],
    }


def _tree(pid: int, name: str) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *(child for child in root.children(recursive=True) if child.name() == name)]


def _memory(processes: dict[str, list[psutil.Process]]) -> dict[str, int]:
    return {
        name: sum(process.memory_full_info().pss for process in group)
        for name, group in processes.items()
    }


def _command(number: int, gate: str) -> list[str]:
    return ["sh", "-c", _SCRIPT, "sh", str(number), gate]


def _check(number: int, found: bytes | int, expected: bytes | int) -> None:
    if found != expected:
        raise JobLost(f"job {number}: {found!r} in place of {expected!r}")


# What follows runs in the caller's process.


def start_all(stub: WorkerServiceStub, gate: str) -> list[str]:
    """Start the jobs, so many at once; returns their IDs in order."""

    def start(number: int) -> str:
        program, *arguments = _command(number, gate)
        return str(stub.Start(pb.StartRequest(commandName=program, Arguments=arguments)).jobID)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(start, range(_JOBS)))


def end_all(stub: WorkerServiceStub, jobs: Sequence[str]) -> None:
    """Read all outputs to their ends; raises JobLost if one or an exit code is not right."""

    def end(number: int) -> None:
        request = pb.GetOutputRequest(jobID=jobs[number], raw=True)
        output = b"".join(message.data for message in stub.GetOutput(request))
        _check(number, output, b"begin %d\nend %d\n" % (number, number))
        ended = stub.Wait(pb.WaitRequest(jobID=jobs[number]))
        _check(number, ended.exitCode, number % 256)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(end, range(_JOBS)))
