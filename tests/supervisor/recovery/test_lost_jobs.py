"""SIGKILL of the whole service: what is left of its jobs is ended, and nobody else's processes."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import uuid_utils

from jobworker.supervisor import Chunk, Job, Reason, State
from jobworker.supervisor.job import Job as Record
from jobworker.supervisor.job import Request
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.keeper.proc import start_ticks
from jobworker.supervisor.local.local_job import Whereabouts
from tests.support.library import Site, eventually, running

# How a job hides from a service that looks for it: what it runs besides its main process.
HIDING = {
    "children": "sleep 1000 & sleep 1000 &",
    "sessions": "setsid sleep 1000 & setsid -f sleep 1000;",
    "daemons": "(setsid sh -c 'sleep 1000 & sleep 0' &) ;",
    "cleared environments": "setsid -f env -i /bin/sleep 1000;",
    "stopped": "sh -c 'kill -STOP $$' &",
}


def output(job: Job) -> bytes:
    """All output of a job, which is complete."""
    return b"".join(piece.data for piece in job.output() if isinstance(piece, Chunk))


@contextmanager
def killed_service(site: Site) -> Iterator[list[Job]]:
    """A service with the jobs that the block starts; with its end all of it is SIGKILLed."""
    with site.worker() as worker:
        jobs: list[Job] = []
        for script in HIDING.values():
            line = f"echo before; {script} trap '' TERM; echo up; while :; do sleep 1; done"
            jobs.append(worker.start(["sh", "-c", line]))
        jobs.append(worker.start(["sh", "-c", "setsid -f env -i /bin/sleep 1000; exit 4"]))
        for job in jobs[:-1]:
            seen = b""
            for piece in job.output():
                assert isinstance(piece, Chunk)
                seen += piece.data
                if b"up" in seen:
                    break
        assert jobs[-1].wait().exit_code == 4
        yield jobs
        keeper, supervisor = site.keeper(), site.supervisor()
        assert supervisor is not None
        for process in (keeper, supervisor):
            process.suspend()
        for process in (keeper, supervisor):
            process.kill()
        eventually("the service is dead", lambda: not running(keeper.pid))


def test_what_is_left_of_lost_jobs_is_ended_and_the_rest_is_on_record(site: Site) -> None:
    before = set(psutil.pids())
    with killed_service(site) as jobs:
        pids = [job.status().pid for job in jobs[:-1]]
    with site.worker() as worker:
        *lost, ended = (worker.job(job.id) for job in jobs)
        for job, pid in zip(lost, pids, strict=True):
            status = job.wait()
            assert (status.reason, status.exit_code, status.pid) == (Reason.LOST, 255, pid)
            assert status.output_complete
            assert status.ended_ns >= status.created_ns
            assert "the service ended while the job ran" in status.detail
            assert output(job) == b"before\nup\n"
            assert not running(pid)
        # Its main process had ended; only what it left is ended with the service.
        status = ended.wait()
        assert (status.reason, status.exit_code, status.detail) == (Reason.EXITED, 4, "")
        assert status.output_complete
        assert {pid for pid in set(psutil.pids()) - before if is_heir(pid)} == set()
        assert worker.start(["true"]).wait().exit_code == 0


def is_heir(pid: int) -> bool:
    """Whether it is a sleep(1) that runs, and a child of ours as its own parent has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return running(pid) and process.name() == "sleep" and process.ppid() == os.getpid()
    return False


# -- PIDs that are another's by now ------------------------------------------------------------

# A leader of a session with another process in it; the leader ends when it is told to.
SESSION = "sleep 1000 & echo $!; read line"


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[str]"]:
    """A session of somebody's: its leader, which has said the PID of its other process."""
    process = subprocess.Popen(
        ["sh", "-c", SESSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def left_on_record(site: Site, pid: int, pid_start: int, cgroup: str) -> str:
    """A journal with a job that ran when its service died; its ID."""
    site.state.mkdir(exist_ok=True)
    journal = Journal(site.state / "journal.sqlite")
    job_id = str(uuid_utils.uuid7())
    request = Request(job_id, "library", "", ("sleep", "1000"))
    job = Record(request, 1, State.RUNNING)
    Whereabouts(pid, pid_start, cgroup).note_in(job)
    journal.insert(job)
    journal.close()
    return job_id


@pytest.mark.parametrize("cgroup", ["", "/sys/fs/cgroup/jobworker-gone/0-0"], ids=["none", "gone"])
def test_who_has_a_lost_jobs_pid_lives_on(
    site: Site, bystander: "subprocess.Popen[str]", cgroup: str
) -> None:
    assert bystander.stdout is not None
    other = int(bystander.stdout.readline())
    # As it would have been: the job's process was there before this one.
    job_id = left_on_record(site, bystander.pid, start_ticks(bystander.pid) - 1, cgroup)
    with site.worker() as worker:
        assert worker.job(job_id).wait().reason is Reason.LOST
        assert worker.job(job_id).stop(0).reason is Reason.LOST
        assert running(bystander.pid)
        assert running(other)


def test_who_is_in_a_session_of_a_lost_jobs_pid_lives_on(
    site: Site, bystander: "subprocess.Popen[str]"
) -> None:
    """The leader has ended, as that of a daemon's session does; nothing tells when it began."""
    assert bystander.stdout is not None
    other = int(bystander.stdout.readline())
    started = start_ticks(bystander.pid)
    assert bystander.stdin is not None
    bystander.stdin.close()
    bystander.wait()
    assert os.getsid(other) == bystander.pid
    job_id = left_on_record(site, bystander.pid, started - 1, "")
    with site.worker() as worker:
        assert worker.job(job_id).wait().reason is Reason.LOST
        assert worker.job(job_id).stop(0).reason is Reason.LOST
        assert running(other)


def test_who_is_the_process_on_record_is_ended(
    site: Site, bystander: "subprocess.Popen[str]"
) -> None:
    """By its PID and the time it started, where it has given up every other sign."""
    assert bystander.stdout is not None
    other = int(bystander.stdout.readline())
    job_id = left_on_record(site, bystander.pid, start_ticks(bystander.pid), "")
    with site.worker() as worker:
        assert worker.job(job_id).wait().reason is Reason.LOST
        assert bystander.wait(10) == -signal.SIGKILL
        assert not running(other)
