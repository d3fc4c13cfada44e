"""Turns among pipes: nothing that came is left waiting, and nobody starves."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import wraps

import pytest

from jobworker.supervisor.output.pump import TURN_SECONDS, Pump

DEADLINE_SECONDS = 30.0


def in_a_loop(test: Callable[[], Coroutine[object, object, None]]) -> Callable[[], None]:
    """Run a test in an event loop of its own."""

    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, for the block."""
    ours, theirs = os.pipe()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def taking(taken: "asyncio.Queue[bytes]") -> Callable[[int], bool]:
    """A move that takes what is there, a little at a time."""

    def move(descriptor: int) -> bool:
        try:
            taken.put_nowait(os.read(descriptor, 3))
        except BlockingIOError:
            return False
        return True

    return move


async def take(taken: "asyncio.Queue[bytes]", count: int) -> bytes:
    """So many bytes, as they come."""
    data = b""
    while len(data) < count:
        data += await asyncio.wait_for(taken.get(), DEADLINE_SECONDS)
    return data


def flood(_: int) -> bool:
    """A move that takes a whole turn, and has more at once."""
    end = time.monotonic() + 2 * TURN_SECONDS
    while time.monotonic() < end:
        pass
    return True


@in_a_loop
async def test_all_that_comes_is_moved_in_order() -> None:
    taken: asyncio.Queue[bytes] = asyncio.Queue()
    with closing(Pump(asyncio.get_running_loop())) as pump, pipe() as (ours, theirs):
        os.write(theirs, b"before")
        pump.add(ours, taking(taken))
        assert await take(taken, 6) == b"before"
        os.write(theirs, b"after")
        assert await take(taken, 5) == b"after"


@in_a_loop
async def test_one_that_fails_keeps_no_other_waiting() -> None:
    loop = asyncio.get_running_loop()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    taken: asyncio.Queue[bytes] = asyncio.Queue()

    def fail(_: int) -> bool:
        raise OSError("broken")

    with closing(Pump(loop)) as pump, pipe() as (bad, to_bad), pipe() as (good, to_good):
        os.write(to_bad, b"x")
        os.write(to_good, b"good")
        pump.add(bad, fail)
        pump.add(good, taking(taken))
        assert await take(taken, 4) == b"good"
    assert [str(failure) for failure in failures] == ["broken"]


@in_a_loop
async def test_a_descriptor_used_again_is_another_pipe() -> None:
    """Also when the first one was removed while it waited for its turn."""
    taken: asyncio.Queue[bytes] = asyncio.Queue()
    with ExitStack() as stack:
        pump = stack.enter_context(closing(Pump(asyncio.get_running_loop())))
        for _ in range(2):
            busy, to_busy = stack.enter_context(pipe())
            os.write(to_busy, b"x")
            pump.add(busy, flood)
            pump.again(busy)
        ours, _ = stack.enter_context(pipe())
        pump.add(ours, lambda _: pytest.fail("moved after it was removed"))
        pump.again(ours)
        pump.remove(ours)
        other, to_other = stack.enter_context(pipe())
        os.dup2(other, ours)
        os.write(to_other, b"other")
        pump.add(ours, taking(taken))
        assert await take(taken, 5) == b"other"


@in_a_loop
async def test_a_flood_leaves_turns_to_others() -> None:
    """While one pipe always has more, others and the event loop have their turns."""
    taken: asyncio.Queue[bytes] = asyncio.Queue()
    floods = 0

    def counted(descriptor: int) -> bool:
        nonlocal floods
        floods += 1
        return flood(descriptor)

    with (
        closing(Pump(asyncio.get_running_loop())) as pump,
        pipe() as (bad, to_bad),
        pipe() as (good, to_good),
    ):
        os.write(to_bad, b"x")
        pump.add(bad, counted)
        pump.add(good, taking(taken))
        for _ in range(20):
            before = floods
            os.write(to_good, b"one")
            assert await take(taken, 3) == b"one"
            assert floods - before < 20
