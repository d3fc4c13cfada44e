"""Figures as a table for people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.measure import Figure

_WIDTHS = (44, 10, 21, 8)


@dataclass(frozen=True)
class Row:
    """What was measured, in which unit, in which ways; the first way is job-worker's own.

    The figures are multiplied by `scale` to be in `unit`. `more` says that more
    is better. A `goal` is what job-worker's median is to reach, in `unit`.
    """

    what: str
    unit: str
    figures: Mapping[str, Figure]
    scale: float = 1.0
    more: bool = False
    goal: float | None = None

    def reached(self) -> bool:
        """Whether job-worker's median is within the goal."""
        if self.goal is None:
            return True
        own = next(iter(self.figures.values())).median * self.scale
        return own >= self.goal if self.more else own <= self.goal


def table(title: str, rows: Iterable[Row]) -> str:
    """A table: a row's ways each on a line, with how many times better job-worker is."""
    head = _line("", "median", "min to max", "ratio")
    lines = [title, head, "-" * len(head)]
    for row in rows:
        lines.append(f"{row.what}, {row.unit}{_goal(row)}")
        own = next(iter(row.figures.values()))
        for name, figure in row.figures.items():
            ratio = "" if figure is own else _ratio(row, own, figure)
            span = f"{_number(figure.least * row.scale)} to {_number(figure.most * row.scale)}"
            lines.append(_line(f"  {name}", _number(figure.median * row.scale), span, ratio))
    return "\n".join(lines)


def _line(name: str, median: str, span: str, ratio: str) -> str:
    name_width, median_width, span_width, ratio_width = _WIDTHS
    return (
        f"{name:{name_width}}{median:>{median_width}}{span:>{span_width}}{ratio:>{ratio_width}}"
    ).rstrip()


def _goal(row: Row) -> str:
    if row.goal is None:
        return ""
    least_or_most = "at least" if row.more else "at most"
    return f" (goal: {least_or_most} {row.goal:g}: {'reached' if row.reached() else 'MISSED'})"


def _ratio(row: Row, own: Figure, other: Figure) -> str:
    better, worse = (own, other) if row.more else (other, own)
    return f"{better.median / worse.median:.2f}" if worse.median else ""


def _number(value: float) -> str:
    """Three digits that say something."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
