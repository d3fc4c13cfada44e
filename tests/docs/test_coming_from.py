"""The pages for people who come from other tools: each task is done as it stands there."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, running_server
from tests.support.session.terminal import Terminal, on_terminal_of

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    *("coming-from-ssh-and-tmux.md", "coming-from-docker.md"),
    *("coming-from-pueue.md", "coming-from-cron.md", "coming-from-supervisord.md"),
]
TASK = re.compile(
    r"^## (\d+)\. (.*?)$.*?^```text\n(.*?)^```$\n^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
POLICY = """
rules:
  - allow: "*"
    to: cn:*
    jobs: "*/{cn}"
"""
PROMPT = b"done> "
AS_ROOT = "users: {jobs_run_as_root: true}, " if os.geteuid() == 0 else ""
QUEUES = f"jobs: {{{AS_ROOT}queues: {{gpu: {{parallel: 1}}}}}}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    users = [("alice", "team-a")]
    with running_server(tmp_path_factory.mktemp("coming"), users, POLICY, QUEUES) as up:
        yield up


@pytest.mark.parametrize("page", PAGES)
def test_the_ten_tasks_work_as_they_stand_there(server: Server, page: str, tmp_path: Path) -> None:
    tasks = TASK.findall((DOCS / page).read_text())
    assert [int(number) for number, *_ in tasks] == list(range(1, 11))
    words = ["bash", "--norc", "--noediting"]
    environment = {**server.environment("alice"), "PS1": PROMPT.decode()}
    with on_terminal_of(words, environment, tmp_path, columns=200) as shell:
        shell.take(PROMPT)
        for number, title, theirs, ours in tasks:
            assert theirs.strip()
            for line in ours.splitlines():
                shell.type(f"{line}\r")
                shell.take(b"\r\n")
                _answer(shell, line)
                shell.type("echo code $?\r")
                shell.take(b"code $?\r\n")
                assert shell.take(PROMPT).startswith(b"code 0\r\n"), (number, title, line)
        shell.type("exit\r")
        assert shell.end() == 0


def _answer(shell: Terminal, line: str) -> None:
    """Do on the job's terminal what the reader does there."""
    if "run -it" in line:
        shell.type("echo here $((40 + 2))\r")
        shell.take(b"here 42\r\n")
        shell.type("exit\r")
    elif "attach" in line:
        shell.take(b"leaves job")
        shell.type("yes\r")
        shell.take(b"yes\r\n")
        shell.type("\x1d\x1d\x1d")
        shell.take(b"goes on")
    shell.take(PROMPT)
