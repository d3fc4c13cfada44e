"""make demo-cluster: a server, its command and a cluster together, as the documentation has it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.slurm.cluster import missing

DEMO = Path(__file__).parents[3] / "docs" / "demo_cluster.py"


def test_the_demo_of_a_cluster_shows_what_it_says() -> None:
    if why := missing():
        pytest.skip(why)
    done = subprocess.run(
        [sys.executable, DEMO], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing of it is left" in done.stdout
