"""The Python examples of docs/client.md, run as a reader would run them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import DEADLINE_SECONDS, Server

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE
)


def test_every_program_has_its_output() -> None:
    assert len(EXAMPLES) == TEXT.count("```python\n") >= 5


@pytest.mark.parametrize(("program", "shown"), EXAMPLES)
def test_an_example_prints_what_the_page_says(
    program: str, shown: str, server: Server, tmp_path: Path
) -> None:
    files = server.users["alice"]
    for name, file in (
        ("ca.crt", server.authority.certificate),
        ("alice.crt", files.certificate),
        ("alice.key", files.key),
    ):
        (tmp_path / name).symlink_to(file)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("jobs.example.org", server.address)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")


def test_a_hundred_jobs_take_ten_lines() -> None:
    program, _ = EXAMPLES[0]
    assert "range(1, 101)" in program
    assert len(program.splitlines()) <= 10
