"""Whatever dies, the supervisor or Slurm's daemons: jobs go on, and all is true afterwards."""

import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from jobworker.supervisor import (
    Chunk,
    Exhausted,
    Job,
    JobWorker,
    Limits,
    Reason,
    Selection,
    State,
)
from tests.support.library import Sign, eventually
from tests.support.slurm.worker import ClusterSite, run, sh, streams

STORY = "echo begin; echo fault >&2; sleep 2; echo end; exit 5"
LONG_STORY = STORY.replace("2; echo end", "15; echo end")
# How many jobs of known output, and lines of each.
JOBS, LINES = 30, 60


def is_running(job: Job) -> bool:
    return job.status().state is State.RUNNING


def check_story(job: Job) -> None:
    assert streams(job) == (b"begin\nend\n", b"fault\n")
    status = job.wait()
    assert (status.reason, status.exit_code) == (Reason.EXITED, 5)


def test_the_supervisor_dies_while_a_job_runs(place: ClusterSite) -> None:
    with place.worker() as worker:
        job = sh(worker, STORY)
        eventually("it runs", lambda: is_running(job))
        place.site.signal_supervisor()
        check_story(job)


def test_the_supervisor_dies_while_a_job_waits(place: ClusterSite) -> None:
    with place.worker() as worker:
        holders = [worker.start(["sleep", "60"], limits=Limits(cpus=16)) for _ in range(2)]
        for holder in holders:
            eventually("it runs", lambda one=holder: is_running(one))
        job = worker.start(["sh", "-c", STORY], limits=Limits(cpus=16))
        place.site.signal_supervisor()
        eventually("it says why", lambda: "Resources" in job.status().detail)
        holders[0].stop()
        check_story(job)
        holders[1].stop()


def test_the_supervisor_dies_while_a_job_is_submitted(place: ClusterSite) -> None:
    """Whether Slurm has the job by then or not: it runs once, or was never there."""
    sign = Sign()
    with place.worker() as worker:
        jobs: list[Job] = []

        def start() -> None:
            jobs.append(sh(worker, 'echo "$1"; sleep 1', sign.number))

        for _ in range(4):
            thread = threading.Thread(target=start)
            thread.start()
            place.site.signal_supervisor()
            thread.join()
        assert len(jobs) == 4
        for job in jobs:
            assert streams(job) == (f"{sign.number}\n".encode(), b"")
            assert job.wait().exit_code == 0
        eventually("no other is left", lambda: place.numbers() == [])


def test_the_supervisor_dies_while_a_job_is_stopped(place: ClusterSite) -> None:
    sign = Sign()
    with place.worker() as worker:
        job = sh(worker, 'trap "" TERM; echo up; sleep $1; sleep $1', sign.number)
        eventually("it is up", lambda: job.status().output_end > 0)
        thread = threading.Thread(target=lambda: job.stop(grace=2))
        thread.start()
        eventually("it is being stopped", lambda: job.status().state is State.STOPPING)
        place.site.signal_supervisor()
        thread.join()
        assert job.wait().reason is Reason.STOPPED
        assert sign.processes() == []


def test_a_job_ends_while_no_service_is_there(place: ClusterSite) -> None:
    with place.worker() as worker:
        job = sh(worker, STORY)
        eventually("it runs", lambda: is_running(job))
        job_id = job.id
    eventually("Slurm has nothing left", lambda: place.numbers() == [])
    with place.worker() as worker:
        check_story(worker.job(job_id))


def test_slurms_daemons_die_under_a_job(place: ClusterSite) -> None:
    with place.worker() as worker:
        job = sh(worker, LONG_STORY)
        eventually("it runs", lambda: is_running(job))
        place.cluster.wait_until_saved()
        for name in ("slurmctld", "n1", "n2"):
            place.cluster.kill(name)
        check_story(job)
        place.cluster.revive()
        check_story(sh(worker, STORY))


def test_starts_are_refused_while_the_controller_is_away(place: ClusterSite) -> None:
    sign = Sign()
    with place.worker() as worker:
        job = sh(worker, "echo up; sleep $1", sign.number)
        eventually("it is up", lambda: job.status().output_end > 0)
        place.cluster.wait_until_saved()
        place.cluster.kill("slurmctld")
        with pytest.raises(Exhausted, match="controller does not answer"):
            run(worker, "true")
        assert streams_so_far(job) == b"up\n"
        # The controller is not needed to stop what runs.
        assert job.stop(grace=1).reason is Reason.STOPPED
        assert sign.processes() == []
        place.cluster.revive()
        eventually("it starts again", lambda: starts(worker))


def streams_so_far(job: Job) -> bytes:
    pieces = list(job.output(Selection(follow=False)))
    return b"".join(piece.data for piece in pieces if isinstance(piece, Chunk))


def starts(worker: JobWorker) -> bool:
    try:
        return run(worker, "true").wait().exit_code == 0
    except Exhausted:
        return False


@contextmanager
def random_kills(place: ClusterSite, seed: int, victims: Sequence[str]) -> Iterator[None]:
    """SIGKILL these, which are started again, until the block ends."""
    chance = random.Random(seed)
    over = threading.Event()

    def kill() -> None:
        while not over.wait(chance.uniform(0.2, 1.0)):
            victim = chance.choice(victims)
            if victim == "supervisor":
                place.site.signal_supervisor(signal.SIGKILL)
            else:
                place.cluster.kill(victim)
                place.cluster.start(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def start_until_it_is(worker: JobWorker, number: int) -> Job:
    script = (
        f'for i in $(seq {LINES}); do echo "$1 $i"; echo "$1 e$i" >&2; sleep 0.5; done; exit $1'
    )
    while True:
        try:
            return sh(worker, script, str(number))
        except Exhausted:
            continue


def test_thirty_jobs_of_known_output_under_random_kills(place: ClusterSite) -> None:
    """Slurm's controller forgets what it has not saved within 5 s: it dies once that is."""
    with place.worker() as worker:
        with random_kills(place, 15, ["supervisor"]):
            jobs = [start_until_it_is(worker, number) for number in range(JOBS)]
        for job in jobs:
            eventually("it runs", lambda one=job: one.status().output_end > 0)
        place.cluster.wait_until_saved()
        with random_kills(place, 51, ["supervisor", "supervisor", "slurmctld", "n1", "n2"]):
            for job in jobs:
                job.wait()
        for number, job in enumerate(jobs):
            out = b"".join(b"%d %d\n" % (number, line) for line in range(1, LINES + 1))
            err = b"".join(b"%d e%d\n" % (number, line) for line in range(1, LINES + 1))
            status = job.wait()
            assert (status.exit_code, status.reason, status.detail) == (number, Reason.EXITED, "")
            assert streams(job) == (out, err)
