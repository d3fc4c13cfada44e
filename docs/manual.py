"""Man pages of the command, from what `--help` says: one for each subcommand.

    python -m docs.manual DIRECTORY

writes jobworker.1, jobworker-start.1 and so on there, dated by SOURCE_DATE_EPOCH if that is set.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import click

from jobworker.cli.errors import JOBS_OWN, MEANINGS
from jobworker.cli.main import cli

SECTION = "1"
# click's mark of a paragraph whose lines are kept.
_KEPT = "\b\n"


class Page(NamedTuple):
    """A man page: its name without the section, and its text (man(7))."""

    name: str
    text: str


def pages(command: click.Command = cli, words: tuple[str, ...] = ("jobworker",)) -> Iterator[Page]:
    """Yield the page of a command, and those of all below it."""
    context = click.Context(command, info_name=" ".join(words))
    yield Page("-".join(words), _page(command, context, words))
    for name, inner in commands_below(command, context):
        yield from pages(inner, (*words, name))


def commands_below(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield name, inner


def _page(command: click.Command, context: click.Context, words: tuple[str, ...]) -> str:
    name = "-".join(words)
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0"))))
    release = f"job-worker {version('job-worker')}"
    summary = command.get_short_help_str(500).rstrip(".")
    lines = [
        f'.TH "{_text(name).upper()}" "{SECTION}" "{date}" "{release}" "job-worker"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(summary)}",
        ".SH SYNOPSIS",
        f".B {_text(' '.join(words))}",
        _text(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
    ]
    records = [one.get_help_record(context) for one in command.get_params(context)]
    options = [record for record in records if record is not None]
    if options:
        lines.append(".SH OPTIONS")
        for left, right in options:
            lines += [".TP", f"\\fB{_text(left)}\\fR", _text(right) or "\\&"]
    inner = list(commands_below(command, context))
    if inner:
        lines.append(".SH COMMANDS")
        for one, found in inner:
            lines += [".TP", f"\\fB{_text('-'.join((*words, one)))}\\fR({SECTION})"]
            lines.append(_text(found.get_short_help_str(500)))
    lines += _ending(words)
    return "\n".join(lines) + "\n"


def _ending(words: tuple[str, ...]) -> Iterator[str]:
    if len(words) == 1:
        yield ".SH EXIT STATUS"
        for code, meaning in MEANINGS.items():
            yield from (".TP", f"\\fB{int(code)}\\fR", _text(meaning))
        yield from (".PP", _text(JOBS_OWN))
        return
    yield ".SH SEE ALSO"
    above = ["-".join(words[:count]) for count in range(len(words) - 1, 0, -1)]
    yield ", ".join(f"\\fB{_text(name)}\\fR({SECTION})" for name in above)


def _paragraphs(help_text: str) -> Iterator[str]:
    """The paragraphs of a help text; lines that click keeps are kept."""
    for number, paragraph in enumerate(re.split(r"\n{2,}", help_text.strip())):
        if number:
            yield ".PP"
        if paragraph.startswith(_KEPT):
            lines = paragraph.removeprefix(_KEPT).splitlines()
            yield from (".RS 4", ".nf", *map(_text, lines), ".fi", ".RE")
        else:
            yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """A text as man(7) shows it as it is: no escapes, no requests, hyphens that can be copied."""
    plain = " ".join(text.split("\n")).replace("\\", "\\e").replace("-", "\\-")
    plain = plain.replace('"', "\\(dq").replace("~", "\\(ti").replace("^", "\\(ha")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


def main() -> None:
    """Write them all."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for page in pages():
        (directory / f"{page.name}.{SECTION}").write_text(page.text)


if __name__ == "__main__":
    main()
