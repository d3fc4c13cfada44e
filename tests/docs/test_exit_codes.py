"""One table of exit codes: the command's own, which README.md and --help show."""

import re
from pathlib import Path

from click.testing import CliRunner

from jobworker.cli.errors import JOBS_OWN, MEANINGS, ExitCode
from jobworker.cli.main import cli

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == {0, *ExitCode}


def test_the_readme_has_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in rows] == list(MEANINGS.items())
    assert JOBS_OWN in README


def test_help_has_the_table() -> None:
    text = CliRunner().invoke(cli, ["--help"], terminal_width=200).output
    for code, meaning in MEANINGS.items():
        assert re.search(rf"^ +{int(code)}  {re.escape(meaning)}$", text, re.MULTILINE)
    assert JOBS_OWN in text
