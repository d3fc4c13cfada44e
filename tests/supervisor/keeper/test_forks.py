"""Forking without threads in mind, and straight into a cgroup."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobworker.supervisor.keeper import forked
from tests.support.library import DEADLINE_SECONDS, own_cgroup

# In a program of their own, which like the keeper has no threads.
PROGRAM = """
import os, sys
from jobworker.supervisor.keeper import forked
pid = forked.fork_into(sys.argv[1]) if sys.argv[1] else forked.fork()
if pid == 0:
    sys.stdout.write(open("/proc/self/cgroup").read())
    sys.stdout.flush()
    os._exit(7)
assert os.waitpid(pid, 0) == (pid, 7 << 8)
"""


def _forked(cgroup: str) -> str:
    """What a child says of its cgroups."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, cgroup],
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    return done.stdout


def test_a_child_is_where_its_parent_is() -> None:
    assert _forked("") == Path("/proc/self/cgroup").read_text()


def test_a_child_is_born_in_a_cgroup() -> None:
    own = own_cgroup()
    if own is None:
        pytest.skip("this host has no cgroup v2 that this user may write")
    cgroup = own / "jobworker-test-forked"
    cgroup.mkdir()
    try:
        assert "/jobworker-test-forked\n" in _forked(str(cgroup))
    finally:
        cgroup.rmdir()


def test_a_cgroup_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        forked.fork_into(str(tmp_path))
