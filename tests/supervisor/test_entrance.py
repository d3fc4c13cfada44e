"""The way into a sandbox: there while it is, and never out of it."""

import os
import subprocess
from pathlib import Path

import pytest

from jobworker.supervisor.host.inside import Entrance, can_enter, open_entrance
from jobworker.supervisor.keeper.births import Births
from jobworker.supervisor.local.programs import Spec, program_for
from tests.supervisor.keeper.test_births import as_bytes, open_files, order

# sched.h, CLONE_NEWNS.
MOUNTS = 0x00020000
CANNOT_EXECUTE = 126
# In Born.kept.
STDERR = 1

pytestmark = pytest.mark.skipif(not can_enter(), reason="was installed without a C compiler")


def test_what_is_no_sandbox_is_not_entered() -> None:
    """As one that is still being made; and one that has ended is told apart from that."""
    before = open_files()
    with (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process,
        pytest.raises(BlockingIOError),
    ):
        open_entrance(process.pid)
    with pytest.raises(ProcessLookupError):
        open_entrance(process.pid)
    assert open_files() == before


def test_a_sandbox_that_has_ended_is_entered_by_nobody(tmp_path: Path) -> None:
    """What would have run in it does not run outside."""
    with subprocess.Popen(["sleep", "1000"]) as gone:
        pidfd = os.pidfd_open(gone.pid)
        gone.kill()
    made = program_for(
        Spec(
            ["touch", str(tmp_path / "outside")],
            {"PATH": os.defpath},
            "/",
            0o022,
            entrance=Entrance(pidfd, MOUNTS),
        )
    )
    os.close(pidfd)
    births = Births()
    born = births.make("job", "", order(as_bytes(made.program)) + made.files)
    _, ended = os.waitpid(born.pid, 0)
    assert os.waitstatus_to_exitcode(ended) == CANNOT_EXECUTE
    with open(born.kept[STDERR], "rb", closefd=False) as stderr:
        assert stderr.read() == b"cannot enter the job's isolation: No such process\n"
    births.drop("job")
    assert not (tmp_path / "outside").exists()
