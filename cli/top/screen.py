"""What `jobworker top` shows, drawn by rich."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobworker.cli.display.job import command_text
from jobworker.cli.errors import printable
from jobworker.cli.job_ids import short_id
from jobworker.cli.quantities import size_text, span_text
from jobworker.cli.top.sums import Row

HELP = "1 job 2 user 3 tenant  c cpu m memory d disk p processes t time  r turn  q quit"
# The line of totals, the table's head, and the line of help.
_OTHER_LINES = 3


class _Column(NamedTuple):
    head: str
    text: Callable[[Row], str]
    sort: str = ""


# Of a column but the last.
_MOST_WIDE = 16
# Where there are fewer columns, some of these are left out.
_WIDE = 110
_CPU = _Column("CPU %", lambda row: _number(None if row.cpus is None else 100 * row.cpus), "cpu")
_MEMORY = _Column("MEMORY", lambda row: _size(row.memory), "memory")
_TIME = _Column("TIME", lambda row: span_text(timedelta(seconds=row.seconds)), "time")
_NARROW_USE = (_CPU, _MEMORY, _Column("DISK/s", lambda row: _size(row.disk), "disk"), _TIME)
_WIDE_USE = (
    _CPU,
    _MEMORY,
    _Column("READ/s", lambda row: _size(row.read), "disk"),
    _Column("WRITTEN/s", lambda row: _size(row.written), "disk"),
    _Column("PROCESSES", lambda row: _number(row.processes), "processes"),
    _TIME,
)


def screen(
    rows: Sequence[Row],
    *,
    by: str,
    sort: str,
    width: int,
    height: int,
    said: str,
    whole: bool,
) -> RenderableType:
    """All of it, for a terminal of that size; `said` is what the user should know."""
    jobs, pending = sum(row.jobs for row in rows), sum(row.pending for row in rows)
    more = "" if whole else " of the newest, and there are others"
    cpus = sum(row.cpus or 0.0 for row in rows)
    memory = sum(row.memory or 0.0 for row in rows)
    totals = f"{jobs} jobs{more}, {pending} pending; {cpus:.2f} CPUs, {size_text(memory)} memory"
    room = max(1, height - _OTHER_LINES)
    shown = rows[:room] if len(rows) <= room else rows[: room - 1]
    table = _table(shown, _columns(by, wide=width >= _WIDE), sort)
    left = [Text(f"… and {len(rows) - len(shown)} more")] if len(rows) > len(shown) else []
    return Group(_line(totals), table, *left, _line(said or HELP, "bold red" if said else "dim"))


def _table(shown: Sequence[Row], columns: Sequence[_Column], sort: str) -> Table:
    heads = [f"{column.head}↓" if column.sort == sort else column.head for column in columns]
    cells = [[printable(column.text(row)) for column in columns] for row in shown]
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    for place, (column, head) in enumerate(zip(columns, heads, strict=True)):
        widest = max(len(head), *(len(row[place]) for row in cells), 0)
        table.add_column(
            Text(head),
            justify="right" if column.sort else "left",
            # What is last has what is left.
            min_width=None if place == len(columns) - 1 else min(widest, _MOST_WIDE),
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _columns(by: str, *, wide: bool) -> tuple[_Column, ...]:
    use = _WIDE_USE if wide else _NARROW_USE
    name = _Column("NAME", lambda row: row.job.request.name if row.job else "")
    if by == "job":
        return (
            _Column("JOB", lambda row: short_id(row.key)),
            *((name,) if wide else ()),
            _Column("OWNER", lambda row: row.job.owner if row.job else ""),
            _Column("STATE", lambda row: row.job.state if row.job else ""),
            *use,
            _Column("COMMAND", lambda row: command_text(row.job) if row.job else ""),
        )
    return (
        _Column(by.upper(), lambda row: row.key or "-"),
        _Column("JOBS", lambda row: str(row.jobs)),
        _Column("PENDING", lambda row: str(row.pending)),
        *use,
    )


def _line(words: str, style: str = "") -> Text:
    return Text(printable(words), style=style, no_wrap=True, overflow="ellipsis")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}".removesuffix(".0")


def _size(value: float | None) -> str:
    return "-" if value is None else size_text(value)
