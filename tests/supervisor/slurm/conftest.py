"""The cluster that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.slurm.cluster import Cluster, missing, running_cluster


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A cluster; skips where this host can have none."""
    if why := missing():
        pytest.skip(why)
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The same, without jobs, before and after."""
    yield shared_cluster
    shared_cluster.end_jobs()
