"""How long a service that dies waits for its next start, and when it is given up."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor.keeper.backoff import (
    FIRST_SECONDS,
    HEALTHY_SECONDS,
    HOPELESS_FAILURES,
    LONGEST_SECONDS,
    Backoff,
)


@dataclass(frozen=True)
class Death:
    """How long a process lived, and whether it died of its own fault."""

    lived: float
    own_fault: bool


young = st.floats(0, HEALTHY_SECONDS, exclude_max=True)
old = st.floats(HEALTHY_SECONDS, 1e9)
deaths = st.lists(st.builds(Death, young | old, st.booleans()), max_size=40)
young_deaths = st.lists(st.builds(Death, young, st.booleans()), max_size=40)


def after(them: list[Death]) -> Backoff:
    """The count after these deaths."""
    backoff = Backoff()
    for death in them:
        backoff = backoff.after_death(death.lived, own_fault=death.own_fault)
    return backoff


@given(deaths)
def test_a_wait_is_never_longer_than_the_longest(them: list[Death]) -> None:
    assert 0 <= after(them).delay <= LONGEST_SECONDS


@given(deaths)
def test_a_first_death_costs_no_time(them: list[Death]) -> None:
    """Nor does one after a life in health, whatever came before."""
    assert after([*them, Death(HEALTHY_SECONDS, own_fault=True)]).delay == 0
    assert after(them[:1]).delay == 0
    if len(them) > 1 and all(death.lived < HEALTHY_SECONDS for death in them):
        assert after(them).delay >= FIRST_SECONDS


@given(young_deaths, st.builds(Death, young, st.booleans()))
def test_another_young_death_never_shortens_the_wait(them: list[Death], one: Death) -> None:
    before, now = after(them), after([*them, one])
    assert now.delay >= before.delay
    assert now.delay <= max(FIRST_SECONDS, 2 * before.delay)
    assert now.failures >= before.failures


@given(deaths)
def test_killing_alone_never_makes_it_hopeless(them: list[Death]) -> None:
    """An administrator, or chaos, may kill it as often as they like."""
    killed = [Death(death.lived, own_fault=False) for death in them]
    assert not after(killed).hopeless


@given(deaths, st.lists(young, min_size=HOPELESS_FAILURES, max_size=HOPELESS_FAILURES))
def test_so_many_failures_in_a_row_are_hopeless(them: list[Death], lives: list[float]) -> None:
    failures = [Death(lived, own_fault=True) for lived in lives]
    assert after([*them, *failures]).hopeless
    assert not after(failures[1:]).hopeless


def test_what_cannot_come_up_is_given_up_within_seconds() -> None:
    backoff, waited = Backoff(), 0.0
    while not backoff.hopeless:
        waited += backoff.delay
        backoff = backoff.after_death(0.0, own_fault=True)
    assert 1 < waited < 10
