"""The cluster that the tests of this folder share, and a worker whose jobs run on it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.library import Site
from tests.support.slurm.cluster import Cluster, missing, running_cluster
from tests.support.slurm.worker import ClusterSite


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A cluster; skips where this host can have none."""
    if why := missing():
        pytest.skip(why)
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The same, without jobs, before and after, and with all of its daemons."""
    yield shared_cluster
    shared_cluster.revive()
    shared_cluster.end_jobs()


@pytest.fixture
def place(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterSite]:
    """Where a worker has its state, and a directory that it shares with the nodes."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    directory = Path(tempfile.mkdtemp(prefix="jw-shared-"))
    directory.chmod(0o755)
    try:
        yield ClusterSite(Site(directory / "state", "off"), directory / "shared", cluster)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
