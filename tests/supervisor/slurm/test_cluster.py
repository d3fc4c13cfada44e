"""The cluster that tests use is a real one: it takes jobs, and its daemons can be killed."""

from tests.support.library import eventually
from tests.support.slurm.cluster import Cluster


def test_a_job_runs_and_outlives_its_daemons(cluster: Cluster) -> None:
    done = cluster.directory / "done"
    script = f"sleep 1; echo here > {done}"
    number = cluster.say("sbatch", "--parsable", "--output=/dev/null", "--wrap", script).strip()
    assert number
    state = ("squeue", "-h", "-o", "%T", "-j", number)
    eventually("it runs", lambda: cluster.say(*state).strip() == "RUNNING")
    for name in ("slurmctld", "n1", "n2"):
        cluster.kill(name)
        cluster.start(name)
    eventually("it has ended", done.exists)
    eventually("the nodes are back", cluster.ready)
