"""How long a client waits between attempts, and when it gives up."""

import pytest

from jobworker.client.outage import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, Outage


class Clock:
    """A clock that moves only by being slept on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_delays_double_to_the_longest_and_end_with_patience() -> None:
    clock = Clock()
    outage = Outage(patience=60, clock=clock, sleep=clock.sleep)
    while outage.wait():
        assert outage.lasting
    assert 60 <= clock.now < 60 + LONGEST_DELAY_SECONDS
    expected = FIRST_DELAY_SECONDS
    for slept in clock.slept:
        assert 0.8 * expected <= slept <= expected
        expected = min(expected * 2, LONGEST_DELAY_SECONDS)
    assert expected == LONGEST_DELAY_SECONDS


def test_a_success_begins_anew() -> None:
    clock = Clock()
    outage = Outage(patience=10, clock=clock, sleep=clock.sleep)
    while outage.wait():
        pass
    outage.over()
    assert not outage.lasting
    assert outage.wait()
    assert clock.slept[-1] == pytest.approx(FIRST_DELAY_SECONDS, rel=0.2)
