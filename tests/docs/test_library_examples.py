"""The examples in the library's own words, run as a reader would run them."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from jobworker import supervisor
from tests.support.server import leaving_no_process

STATE = "/tmp/jobs"
SHOWN = "0 b'hello\\n'\n3\n"


def examples() -> dict[str, str]:
    """The programs in the package's docstring, by the class they use."""
    assert supervisor.__doc__ is not None
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", supervisor.__doc__, re.MULTILINE)
    programs = [dedent(block).strip() for block in blocks if block.strip()]
    return {"AsyncJobWorker" if "asyncio" in text else "JobWorker": text for text in programs}


def test_both_ways_have_an_example() -> None:
    assert set(examples()) == {"JobWorker", "AsyncJobWorker"}


@pytest.mark.parametrize("name", ["JobWorker", "AsyncJobWorker"])
def test_an_example_works(name: str, tmp_path: Path) -> None:
    program = examples()[name]
    assert len(program.splitlines()) < 15
    assert STATE in program
    with leaving_no_process():
        done = subprocess.run(
            [sys.executable, "-c", program.replace(STATE, str(tmp_path / "jobs"))],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, SHOWN, "")
