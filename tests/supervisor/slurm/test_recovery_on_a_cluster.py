"""Whatever dies, the supervisor or Slurm's daemons: jobs go on, and all is true afterwards."""

import threading

from jobworker.supervisor import (
    Job,
    Limits,
    Reason,
    State,
)
from tests.support.library import Sign, eventually
from tests.support.slurm.worker import ClusterSite, sh, streams

STORY = "echo begin; echo fault >&2; sleep 2; echo end; exit 5"


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
        holders = [worker.start(["sleep", "60"], limits=Limits(cpus=8)) for _ in range(2)]
        for holder in holders:
            eventually("it runs", lambda one=holder: is_running(one))
        job = worker.start(["sh", "-c", STORY], limits=Limits(cpus=8))
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
        job = sh(worker, STORY)
        eventually("it runs", lambda: is_running(job))
        for name in ("slurmctld", "n1", "n2"):
            place.cluster.kill(name)
        check_story(job)
        place.cluster.revive()
        check_story(sh(worker, STORY))
