"""Jobs that wait, over random submits, ends, stops, answers, quotas and crashes: the real core."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from uuid_utils import uuid7

from jobworker.supervisor.errors import CannotExecute
from jobworker.supervisor.ipc import requests
from jobworker.supervisor.job import (
    ONCE,
    AfterOutcome,
    Job,
    Request,
    Restart,
    RestartWhen,
    Waiting,
)
from jobworker.supervisor.quotas import Kind, Quota
from tests.supervisor.core.world import TENANTS, World, clock, passes

POLICIES = [
    ONCE,
    ONCE,
    Restart(RestartWhen.ON_FAILURE, 2, 0.5, 1.0, 1e9),
    Restart(RestartWhen.ALWAYS, 1, 0.5, 1.0, 1e9, (3,)),
    Restart(RestartWhen.NEVER, 3, 0.5, 1.0, 1e9, persist=True),
    Restart(RestartWhen.ON_FAILURE, 1, 0.5, 1.0, 1e9, persist=True),
]


def ops() -> st.SearchStrategy[tuple[Any, ...]]:
    submit = st.tuples(
        st.just("submit"),
        st.sampled_from(sorted(TENANTS)),
        st.sampled_from(["default", "narrow", ""]),
        st.integers(-1, 1),
        st.sampled_from(["", "", "one", "other"]),
        st.lists(st.integers(0, 99), max_size=2),
        st.sampled_from(AfterOutcome),
        st.sampled_from(POLICIES),
    )
    end = st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from([0, 0, 3]))
    return st.one_of(
        submit,
        submit,
        submit,
        end,
        end,
        st.tuples(st.just("stop"), st.integers(0, 99)),
        st.tuples(st.just("answer"), st.integers(1, 9)),
        st.tuples(st.just("quota"), st.sampled_from(["red", "blue"]), st.integers(1, 3)),
        st.tuples(st.just("refuse"), st.sampled_from(sorted(TENANTS))),
        st.tuples(st.just("front dies")),
        st.tuples(st.just("crash")),
        st.tuples(st.just("host dies")),
        st.tuples(st.just("pass"), st.floats(0, 3)),
    )


async def _do(world: World, op: tuple[Any, ...]) -> None:
    match op:
        case ("submit", owner, queue, priority, name, numbers, outcome, restart):
            known = sorted(one for one in world.asked_for if world.job(one) is not None)
            after = [known[number % len(known)] for number in numbers if known]
            # As the door has it: what comes after others waits in a queue.
            queue = queue or ("default" if after else "")
            world.submit(owner, queue, priority, name, after, outcome, restart)
        case ("end", number, code) if world.engine.running:
            running = sorted(world.engine.running)
            world.engine.end(running[number % len(running)], code)
        case ("stop", number) if world.asked_for:
            jobs = sorted(world.asked_for)
            world.stop(jobs[number % len(jobs)])
        case ("answer", count):
            world.answer(count)
        case ("quota", tenant, most):
            world.quota[tenant] = most
        case ("refuse", owner):
            world.refused ^= {owner}
        case ("front dies",):
            world.front_dies()
        case ("crash",):
            world.crash()
        case ("host dies",):
            world.host_dies()
    await passes(op[1] if op[0] == "pass" else 0.0)
    world.check()


async def _all_of_it(world: World, happening: list[tuple[Any, ...]]) -> None:
    await passes()
    for op in happening:
        await _do(world, op)
    # In the end each has its turn.
    for _ in range(12 * len(world.asked_for) + 12):
        world.answer(len(world.front.asked))
        await passes(1.0)
        for job_id in sorted(world.engine.running):
            world.engine.end(job_id)
        await passes(1.0)
        if not world.waiting() and not world.engine.running:
            break
    assert not world.waiting()
    world.check()
    world.close()


@given(st.lists(ops(), min_size=10, max_size=60))
@settings(max_examples=150, deadline=None)
def test_none_is_lost_or_started_twice_or_out_of_bounds(happening: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as directory, clock() as runner:

        async def run() -> None:
            await _all_of_it(World(Path(directory)), happening)

        runner.run(run())


def test_a_start_that_fails_is_let_go_before_it_is_repeated(tmp_path: Path) -> None:
    """Repeated in the very turn in which it failed, it was told to have succeeded.

    The keeper makes one process for an ID, and still had that of the start before.
    """
    with clock() as runner:

        async def run() -> list[str]:
            world = World(tmp_path)
            order: list[str] = []
            request = Request(str(uuid7()), "ann", "red", ("true",))
            again = requests.Start(request, {})

            def launch(job: Job) -> None:
                order.append("launch")
                world.engine.reports.failed(job, CannotExecute("no", 2, program=True))
                if len(order) == 1:
                    world.handle(again)

            world.engine.launch = launch  # type: ignore[method-assign]
            world.engine.forget = lambda _: order.append("forget")
            world.handle(again)
            await passes()
            world.close()
            return order

        assert runner.run(run()) == ["launch", "forget", "launch", "forget"]


def test_a_turn_that_comes_before_the_job_is_on_record(tmp_path: Path) -> None:
    """Asked for in the very turn in which there was room, it waited until the next supervisor."""
    with clock() as runner:

        async def run() -> None:
            world = World(tmp_path)
            for _ in range(3):
                world.submit("ann", "default", 0)
            await passes()
            world.answer(2)
            await passes()
            # Before the end of the turn, as anything that has ended may have it done.
            world._supervisor.pending.look_soon()
            world.submit("cis", "default", 0)
            await passes()
            world.answer(9)
            await passes()
            world.check()
            assert len(world.starts) == 3
            world.close()

        runner.run(run())


def test_a_long_chain_whose_head_fails(tmp_path: Path) -> None:
    """Each ends for the one before, and nothing runs out of stack."""
    with clock() as runner:

        async def run() -> None:
            world = World(tmp_path)
            world.submit("ann", "default", 0)
            await passes()
            world.answer(9)
            last = world.starts[0] if world.starts else next(iter(world.asked_for))
            for _ in range(1500):
                world.submit("ann", "default", 0, after=[last])
                last = max(world.asked_for)
            await passes()
            assert len(world.waiting()) == 1500
            world.engine.end(world.starts[0], 3)
            for _ in range(200):
                await passes()
            assert not world.waiting()
            world.check()
            world.close()

        runner.run(run())


def test_what_was_removed_is_waited_for_no_more_by_the_next_supervisor(tmp_path: Path) -> None:
    with clock() as runner:

        async def run() -> None:
            world = World(tmp_path)
            world.quota["red"] = 9
            for _ in range(2):
                world.submit("ann", "default", 0)
                await passes()
                world.answer(9)
                await passes()
            first, second = world.starts
            world.submit("ann", "default", 0, after=[first, second])
            await passes()
            world.engine.end(first)
            await passes(1.0)
            world.handle(requests.Remove(first))
            await passes(1.0)
            world.crash()
            await passes()
            assert len(world.waiting()) == 1
            world.engine.end(second)
            await passes(1.0)
            world.answer(9)
            await passes(1.0)
            assert len(world.starts) == 3
            world.close()

        runner.run(run())


def test_a_job_that_is_asked_for_twice_in_a_turn_waits_once(tmp_path: Path) -> None:
    """By its ID, or by its owner's key, before it is on record: the commit would have failed."""
    with clock() as runner:

        async def run() -> None:
            world = World(tmp_path)
            for _ in range(2):
                world.submit("ann", "default", 0)
            await passes()
            request = Request(
                str(uuid7()), "ann", "red", ("true",), request_id="k", waiting=Waiting("default")
            )
            other = replace(request, id=str(uuid7()))
            for again in (request, request, other):
                world.asked_for[again.id] = again
                world.handle(requests.Start(again, {Kind.TENANT: Quota(running=2)}))
            world.handle(requests.Start(replace(other, argv=("false",), asked="x"), {}))
            await passes()
            assert world.waiting() == {request.id}
            assert world.job(other.id) is None
            world.close()

        runner.run(run())
