"""Hundreds of jobs while the service's processes are killed, or frozen, at random."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from tests.support.chaos import Expected, Freezer, Killer, run_one
from tests.support.client import calling
from tests.support.server import Server

CALLERS = 12


def survive(server: Server, disturber: Killer) -> int:
    """Run the workload for as long as there is disturbance; returns how many jobs it had."""
    ran = server.directory / "ran"
    ran.mkdir()
    numbers = count()
    jobs: list[int] = []

    def caller() -> None:
        while disturber.is_alive():
            number = next(numbers)
            run_one(worker, Expected(number, pieces=number % 37), ran)
            jobs.append(number)

    with calling(server, "alice") as worker, ThreadPoolExecutor(CALLERS) as pool:
        disturber.start()
        try:
            for done in [pool.submit(caller) for _ in range(CALLERS)]:
                done.result()
        finally:
            disturber.end()
    print(f"{len(jobs)} jobs, struck: {disturber.kills}")
    return len(jobs)


@pytest.mark.timeout(300)
def test_a_few_kills(fresh_server: Server) -> None:
    killer = Killer(fresh_server, kills=12, pause=(0.1, 0.8))
    assert survive(fresh_server, killer) >= CALLERS


@pytest.mark.timeout(300)
def test_a_few_freezes(fresh_server: Server) -> None:
    freezer = Freezer(fresh_server, kills=10, pause=(0.1, 0.5))
    assert survive(fresh_server, freezer) >= CALLERS


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_hundred_kills(fresh_server: Server) -> None:
    killer = Killer(fresh_server, kills=100, pause=(0.05, 1.5))
    assert survive(fresh_server, killer) > 300


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_hundred_freezes(fresh_server: Server) -> None:
    freezer = Freezer(fresh_server, kills=100, pause=(0.05, 1.0))
    assert survive(fresh_server, freezer) > 300
