"""docs/policies.md is true: its files are written, its commands run, their output compared."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.server import JOBWORKER, Server, running_server

GUIDE = Path(__file__).parents[2] / "docs" / "policies.md"
DEADLINE_SECONDS = 60
USERS = (("alice", "team-a"),)


class File(NamedTuple):
    """A block that begins with `# NAME`."""

    name: str
    text: str


class Command(NamedTuple):
    """A line after a prompt, and the lines that follow it."""

    user: str
    words: str
    output: str


def steps() -> Iterator[File | Command]:
    """What the guide does, in order."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    for kind, text in blocks:
        if kind != "console":
            named = re.match(r"# (\S+)\n", text)
            assert named, f"a block says no file's name: {text}"
            yield File(named[1], text)
            continue
        for entry in re.split(r"^(?=\w*\$ )", text, flags=re.MULTILINE)[1:]:
            prompt, output = entry.split("\n", 1)
            user, words = prompt.split("$ ", 1)
            yield Command(user, words, output)


def matches(expected: str, actual: str) -> bool:
    """Whether the output is the expected one, in which `...` is anything within a line."""
    pattern = ".*".join(map(re.escape, expected.split("...")))
    return re.fullmatch(pattern, actual) is not None


def run(server: Server, command: Command) -> str:
    """What a command prints, also on stderr."""
    done = subprocess.run(
        ["bash", "-c", command.words],
        cwd=server.directory,
        env=server.environment(command.user)
        if command.user
        else {"PATH": f"{JOBWORKER.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return done.stdout


def check(server: Server, command: Command) -> None:
    """Run a command until it prints what the guide says; the server may be reading a file still."""
    deadline = time.monotonic() + (DEADLINE_SECONDS if command.user else 0)
    printed = run(server, command)
    while not matches(command.output, printed) and time.monotonic() < deadline:
        printed = run(server, command)
    assert matches(command.output, printed), f"{command.words}\nprints\n{printed}"


def put(directory: Path, file: File) -> None:
    """Move a file into place, as the guide tells to."""
    draft = directory / f"{file.name}.draft"
    draft.write_text(file.text)
    draft.rename(directory / file.name)


def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    first, *rest = steps()
    assert isinstance(first, File)
    assert len(rest) > 25
    with running_server(tmp_path, USERS, first.text) as server:
        for step in rest:
            if isinstance(step, File):
                put(tmp_path, step)
            else:
                check(server, step)


def test_every_form_and_subcommand_is_in_the_guide() -> None:
    text = GUIDE.read_text()
    for words in ("check", "convert", "test", "explain", "diff"):
        assert f"$ jobworker policy {words} " in text
    for key in ("roles", "tenants", "rules", "allow", "deny", "to", "jobs", "command", "arguments"):
        assert f"{key}:" in text
