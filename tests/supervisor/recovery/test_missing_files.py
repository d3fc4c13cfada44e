"""A state directory of which something is gone: it is said, and nothing hangs for it."""

import os
import shutil
from pathlib import Path

import psutil
import pytest

from jobworker.supervisor import CannotPlace, StateError, SupervisorUnavailable, set_output_aside
from tests.support.library import Site, eventually

ENDS = 100


@pytest.mark.parametrize("left", ["nothing", "no bytes"])
def test_output_without_a_journal_is_not_ignored(
    site: Site, left: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The service started with an empty list and said nothing, and the output stayed for ever."""
    with site.worker() as worker:
        worker.start(["echo", "out"]).stop(0)
    for path in site.state.glob("journal.sqlite*"):
        path.unlink()
    if left == "no bytes":
        (site.state / "journal.sqlite").touch()
    with pytest.raises(SupervisorUnavailable), site.worker():
        pass
    assert (
        "has the output of 1 jobs, and journal.sqlite is missing or empty" in capfd.readouterr().err
    )
    aside = set_output_aside(site.state)
    assert aside is not None
    assert len(os.listdir(aside)) == 1
    with site.worker() as worker:
        assert worker.list() == []
        assert worker.start(["true"]).wait().exit_code == 0
    with pytest.raises(StateError, match="there is a journal"):
        set_output_aside(site.state)


def test_a_start_whose_output_cannot_be_kept_is_refused(site: Site) -> None:
    """It answered success, and who followed the output hung for ever."""
    with site.worker() as worker:
        shutil.rmtree(site.state / "output")
        with pytest.raises(CannotPlace, match="output directory is missing"):
            worker.start(["echo", "out"])
        (site.state / "output").mkdir()
        assert worker.start(["true"]).wait().exit_code == 0


def test_output_that_cannot_be_recorded_ends_all_the_same(site: Site, tmp_path: Path) -> None:
    """Followers hung past the job's end, and so did the end of the service."""
    gate = tmp_path / "gate"
    with site.worker() as worker:
        job = worker.start(["sh", "-c", f"until [ -e {gate} ]; do sleep 0.01; done; echo out"])
        shutil.rmtree(site.state / "output")
        gate.touch()
        assert job.wait().exit_code == 0
        assert list(job.output()) == []
        assert "output is lost" in job.status().detail


def test_the_keeper_lets_go_of_what_has_ended(site: Site) -> None:
    """After many ends at once it held their descriptors until the next job."""
    with site.worker() as worker:
        keeper = psutil.Process(site.keeper().pid)
        before = keeper.num_fds()
        jobs = [worker.start(["sleep", "1000"]) for _ in range(ENDS)]
        assert keeper.num_fds() > before + ENDS
        for job in jobs:
            job.signal(9)
        for job in jobs:
            job.wait()
        eventually("all are let go of", lambda: keeper.num_fds() <= before)
