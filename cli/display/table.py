"""Rows of text as a table, cut to the terminal's width."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

# What makes of a cell what a terminal is to show.
Style = Callable[[str], str]


_GAP = "  "


def table_text(
    rows: Sequence[Sequence[str]], width: int | None, styles: Mapping[int, Style] | None = None
) -> str:
    """Return rows of as many cells each, lined up; lines are cut at `width` columns if given.

    `styles` are of columns, by their numbers: what is there of a cell looks as they say.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = ((row, _GAP.join((*map(str.ljust, row, widths), row[-1]))) for row in rows)
    begins = [sum(widths[:column]) + column * len(_GAP) for column in range(len(widths) + 1)]
    return "\n".join(_styled(_cut(line, width), row, begins, styles or {}) for row, line in lines)


def _styled(
    line: str, row: Sequence[str], begins: Sequence[int], styles: Mapping[int, Style]
) -> str:
    for column in sorted(styles, reverse=True):
        begin = begins[column]
        cell = row[column]
        if line[begin : begin + len(cell)] == cell:
            styled = styles[column](cell)
            line = f"{line[:begin]}{styled}{line[begin + len(cell) :]}"
    return line


def is_coloured() -> bool:
    """Whether stdout is a terminal for colours; NO_COLOR (no-color.org) says that it is none."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is, None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: width - 1] + "…"
