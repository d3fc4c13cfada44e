"""Which ended jobs are kept: by age, in number, by their output; and what goes with them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor import JobWorker, NoSuchJob
from jobworker.supervisor.config import RetentionConfig
from jobworker.supervisor.core.retention import superfluous
from jobworker.supervisor.journal.journal import Ended
from tests.support.waiting import until

NOW = 1_000_000
SECOND = 1_000_000_000
KIB = 1024

ended_jobs = st.lists(st.tuples(st.integers(0, NOW), st.integers(0, 1000)), max_size=20).map(
    lambda jobs: [
        Ended(f"job-{number}", seconds * SECOND, size)
        for number, (seconds, size) in enumerate(sorted(jobs))
    ]
)
bounds = st.builds(
    RetentionConfig,
    seconds=st.just(0.0) | st.integers(1, NOW).map(float),
    jobs=st.integers(0, 20),
    output_bytes=st.integers(0, 10_000),
)


def kept_within(ended: list[Ended], keep: RetentionConfig) -> bool:
    """Whether these may all be kept."""
    return (
        (not keep.jobs or len(ended) <= keep.jobs)
        and (not keep.output_bytes or sum(job.output_bytes for job in ended) <= keep.output_bytes)
        and (
            not keep.seconds or all(job.ended_ns >= (NOW - keep.seconds) * SECOND for job in ended)
        )
    )


@given(ended_jobs, bounds)
def test_the_fewest_go_and_the_first_to_end_go_first(
    ended: list[Ended], keep: RetentionConfig
) -> None:
    gone = superfluous(ended, keep, NOW * SECOND)
    assert gone == [job.id for job in ended[: len(gone)]]
    assert kept_within(ended[len(gone) :], keep)
    assert not gone or not kept_within(ended[len(gone) - 1 :], keep)


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        ({"jobs": 2}, 2),
        ({"jobs": 0, "output_bytes": 3 * KIB}, 3),
        ({"seconds": 1e-6}, 0),
        ({"seconds": 3600.0, "jobs": 5, "output_bytes": 5 * KIB}, 5),
    ],
)
def test_those_that_go_leave_nothing(
    tmp_path: Path, retention: dict[str, float], left: int
) -> None:
    state = tmp_path / "state"
    with JobWorker(state) as worker:
        ids = [_write_kib(worker) for _ in range(5)]
    with JobWorker(state, retention=retention) as worker:
        kept = ids[len(ids) - left :]
        until(lambda: {path.name for path in (state / "output").iterdir()} == set(kept))
        assert {job.id for job in worker.list()} == set(kept)
        for job_id in kept:
            assert b"".join(chunk.data for chunk in worker.job(job_id).output()) == bytes(KIB)
        for job_id in set(ids) - set(kept):
            with pytest.raises(NoSuchJob):
                worker.job(job_id).status()


def _write_kib(worker: JobWorker) -> str:
    """Run a job that writes a KiB to its end; returns its ID."""
    job = worker.start(["head", "-c", str(KIB), "/dev/zero"])
    assert sum(len(chunk.data) for chunk in job.output()) == KIB
    job.wait()
    return job.id
