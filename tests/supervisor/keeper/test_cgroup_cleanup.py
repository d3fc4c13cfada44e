"""No cgroup outlives what it was made for."""

import pytest

from jobworker.supervisor import CannotExecute
from tests.support.library import Site, eventually

SPARE_LAUNCHERS = 3


@pytest.fixture(autouse=True)
def _with_cgroups(site: Site) -> None:
    if site.cgroup == "off":
        pytest.skip("needs cgroups")


def only_spare_ones_are_left(site: Site) -> bool:
    return len(site.cgroups()) <= SPARE_LAUNCHERS


def test_a_job_that_has_ended_leaves_none(site: Site) -> None:
    with site.worker(spare_launchers=SPARE_LAUNCHERS) as worker:
        for _ in range(10):
            worker.start(["true"]).wait()
        eventually("cgroups of jobs are removed", lambda: only_spare_ones_are_left(site))


def test_a_start_that_fails_leaves_none(site: Site) -> None:
    with site.worker(spare_launchers=SPARE_LAUNCHERS) as worker:
        for _ in range(10):
            with pytest.raises(CannotExecute):
                worker.start(["/no/such/program"])
        # One of a launcher still ending is removed when the next ones are made.
        worker.start(["true"]).wait()
        eventually("cgroups of failed starts are removed", lambda: only_spare_ones_are_left(site))
