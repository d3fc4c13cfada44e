"""No cgroup outlives what it was made for."""

import pytest

from jobworker.supervisor import CannotExecute
from tests.support.library import Site, eventually


@pytest.fixture(autouse=True)
def _with_cgroups(site: Site) -> None:
    if site.cgroup == "off":
        pytest.skip("needs cgroups")


def test_a_job_that_has_ended_leaves_none(site: Site) -> None:
    with site.worker() as worker:
        for _ in range(10):
            worker.start(["true"]).wait()
        eventually("cgroups of jobs are removed", lambda: not site.cgroups())


def test_a_start_that_fails_leaves_none(site: Site) -> None:
    with site.worker() as worker:
        for _ in range(10):
            with pytest.raises(CannotExecute):
                worker.start(["/no/such/program"])
        eventually("cgroups of failed starts are removed", lambda: not site.cgroups())
