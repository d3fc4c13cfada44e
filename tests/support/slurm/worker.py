"""A worker of the library whose jobs run on a cluster."""

from dataclasses import dataclass
from pathlib import Path

from jobworker.supervisor import Chunk, Job, JobWorker, Selection
from tests.support.library import Site
from tests.support.slurm.cluster import Cluster


@dataclass(frozen=True)
class ClusterSite:
    """Its state, the directory shared with the nodes, and the cluster."""

    site: Site
    shared: Path
    cluster: Cluster

    def worker(self, **settings: object) -> JobWorker:
        """A worker, not yet entered."""
        engine = {"kind": "slurm", "shared_dir": str(self.shared)}
        return self.site.worker(engine=engine, **settings)

    def numbers(self) -> list[str]:
        """Those of Slurm's jobs that have not ended."""
        return self.cluster.say("squeue", "-h", "-o", "%i").split()


def run(worker: JobWorker, *argv: str) -> Job:
    """Start a job."""
    return worker.start(list(argv))


def sh(worker: JobWorker, script: str, *words: str) -> Job:
    """Start a shell."""
    return worker.start(["sh", "-c", script, "sh", *words])


def streams(job: Job) -> tuple[bytes, bytes]:
    """All that a job writes to stdout and to stderr, until its output is complete."""
    found = {1: b"", 2: b""}
    for piece in job.output(Selection(by_stream=True)):
        assert isinstance(piece, Chunk)
        found[piece.stream] += piece.data
    return found[1], found[2]
