"""The man pages: one for each command, with each option, and groff finds nothing wrong."""

import re
import shutil
import subprocess
from collections.abc import Iterator

import click
import pytest

from docs import manual
from jobworker.cli.main import cli

PAGES = {page.name: page.text for page in manual.pages()}


def commands(
    command: click.Command = cli, words: tuple[str, ...] = ("jobworker",)
) -> Iterator[tuple[str, click.Command]]:
    yield "-".join(words), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from commands(inner, (*words, name))


def shown(text: str) -> str:
    """What man(1) shows of a page, in one line."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=1000n", "-P-cbou"],
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return " ".join(done.stdout.decode().split())


def test_every_command_has_one() -> None:
    assert set(PAGES) == {name for name, _ in commands()}
    assert len(PAGES) > 50


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
@pytest.mark.parametrize("name", ["jobworker", "jobworker-run", "jobworker-ca-issue"])
def test_it_shows_what_help_says(name: str) -> None:
    page = shown(PAGES[name])
    command = dict(commands())[name]
    context = click.Context(command, info_name=name.replace("-", " "))
    for option in command.get_params(context):
        for word in (*option.opts, *option.secondary_opts) if option.opts[0][0] == "-" else ():
            assert word in page
    for paragraph in re.split(r"\n{2,}", command.help or ""):
        assert " ".join(paragraph.replace("\b", "").split()) in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_groff_finds_nothing_wrong() -> None:
    for text in PAGES.values():
        assert shown(text)


def test_the_exit_codes_are_in_the_first() -> None:
    text = PAGES["jobworker"]
    assert ".SH EXIT STATUS" in text
    assert "\\fB127\\fR" in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_what_means_something_to_groff_is_shown_as_it_is() -> None:
    text = ".TH a 1\n.SH NAME\n" + manual._text(".so 'x' \\fB -- \"q\" ~/.config ^") + "\n"
    assert ".so 'x' \\fB -- \"q\" ~/.config ^" in shown(text)
