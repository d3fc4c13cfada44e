"""Rows of text as a table, cut to the terminal's width."""

import shutil
import sys
from collections.abc import Sequence


def table_text(rows: Sequence[Sequence[str]], width: int | None) -> str:
    """Return rows of as many cells each, lined up; lines are cut at `width` columns if given."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = ("  ".join((*map(str.ljust, row, widths), row[-1])) for row in rows)
    return "\n".join(_cut(line, width) for line in lines)


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is, None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: width - 1] + "…"
