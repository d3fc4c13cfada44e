"""Taking turns: every way of doing a thing is measured in every round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

ROUNDS = 5

T = TypeVar("T")

# Measures once and returns the number.
Measure = Callable[[], float]


@dataclass(frozen=True)
class Figure:
    """One number of each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """What counts."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The lowest of the rounds."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The highest of the rounds."""
        return max(self.values)


def repeated(ways: Mapping[str, Callable[[], T]], rounds: int = ROUNDS) -> dict[str, list[T]]:
    """Do A B A B ..., so that what else the machine does hits every way alike.

    One more round comes first and does not count: it warms things up.
    """
    taken: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, measure in ways.items():
            value = measure()
            if number:
                taken[name].append(value)
    return taken


def interleaved(ways: Mapping[str, Measure], rounds: int = ROUNDS) -> dict[str, Figure]:
    """The same, of one number each."""
    return {name: Figure(tuple(values)) for name, values in repeated(ways, rounds).items()}


def timed(action: Callable[[], object]) -> float:
    """The seconds an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def p50(action: Callable[[], object], times: int) -> float:
    """The median of the seconds an action takes, done so many times one after another."""
    return statistics.median(timed(action) for _ in range(times))


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` (0 to 1) of the values do not exceed; nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]
