"""Jobs of a cluster: what they print, how they end, how they are stopped, what they may use."""

import signal

import pytest

from jobworker.supervisor import CannotPlace, Limits, Reason, State
from tests.support.library import Sign, eventually
from tests.support.slurm.worker import ClusterSite, run, sh, streams


def test_output_and_exit_code_are_exact(place: ClusterSite) -> None:
    script = 'printf "%s" "$1"; printf problem >&2; pwd; read line || echo none; exit 7'
    with place.worker() as worker:
        job = worker.start(
            ["sh", "-c", script, "sh", b"\xff\xfe"], cwd="/usr", env={"WHAT": "this"}
        )
        assert streams(job) == (b"\xff\xfe/usr\nnone\n", b"problem")
        status = job.wait()
        assert (status.exit_code, status.reason, status.output_complete) == (7, Reason.EXITED, True)
        assert status.usage.user_seconds is not None
        assert status.usage.peak_memory


def test_a_megabyte_comes_whole(place: ClusterSite) -> None:
    with place.worker(segment_bytes=65536) as worker:
        out, err = streams(sh(worker, "seq 200000; seq 1000 >&2"))
    assert out == b"".join(b"%d\n" % number for number in range(1, 200001))
    assert err == b"".join(b"%d\n" % number for number in range(1, 1001))


def test_a_signal_is_told_as_such(place: ClusterSite) -> None:
    with place.worker() as worker:
        job = sh(worker, "kill -SEGV $$")
        assert job.wait().signal == signal.SIGSEGV
        other = sh(worker, 'trap "echo one; exit 3" USR1; echo ready; while :; do sleep 0.1; done')
        eventually("it is ready", lambda: other.status().output_end > 0)
        other.signal(signal.SIGUSR1)
        assert other.wait().exit_code == 3
        assert streams(other) == (b"ready\none\n", b"")


def test_what_is_not_there_cannot_start(place: ClusterSite) -> None:
    with place.worker() as worker:
        status = run(worker, "no-such-program").wait()
        assert (status.reason, status.exit_code) == (Reason.CANNOT_START, 127)
        assert "cannot execute no-such-program: No such file" in status.detail
        status = worker.start(["true"], cwd="/nowhere").wait()
        assert "cannot change the directory to /nowhere" in status.detail


def test_a_stop_gives_grace_and_leaves_nothing(place: ClusterSite) -> None:
    sign = Sign()
    with place.worker() as worker:
        job = sh(worker, 'trap "echo bye; exit 4" TERM; sleep $1 & echo up; wait', sign.number)
        eventually("it is up", lambda: job.status().output_end > 0)
        status = job.stop()
        assert (status.reason, status.exit_code) == (Reason.STOPPED, 4)
        assert streams(job) == (b"up\nbye\n", b"")
        assert sign.processes() == []


def test_who_does_not_listen_is_killed(place: ClusterSite) -> None:
    sign = Sign()
    with place.worker() as worker:
        job = sh(worker, 'trap "" TERM; echo up; sleep $1; sleep $1', sign.number)
        eventually("it is up", lambda: job.status().output_end > 0)
        status = job.stop(grace=0.5)
        assert (status.reason, status.signal) == (Reason.STOPPED, signal.SIGKILL)
        assert sign.processes() == []


def test_what_a_job_leaves_behind_ends_with_it(place: ClusterSite) -> None:
    sign = Sign()
    with place.worker() as worker:
        job = sh(worker, "setsid sleep $1 & echo done", sign.number)
        assert streams(job) == (b"done\n", b"")
        assert job.wait().exit_code == 0
        assert sign.processes() == []


def test_a_timeout_counts_from_the_program_on(place: ClusterSite) -> None:
    with place.worker() as worker:
        job = worker.start(["sleep", "60"], limits=Limits(timeout=0.5))
        status = job.wait()
        assert (status.reason, status.signal) == (Reason.TIMED_OUT, signal.SIGTERM)


def test_more_memory_than_allowed_is_told(place: ClusterSite) -> None:
    script = "import time\nx = bytearray(400_000_000)\ntime.sleep(60)"
    with place.worker() as worker:
        job = worker.start(["python3", "-c", script], limits=Limits(memory=64 * 2**20))
        status = job.wait()
        assert status.reason is Reason.OUT_OF_MEMORY
        assert "more memory than its limit" in status.detail


def test_one_that_waits_in_slurm_says_why_and_can_be_stopped(place: ClusterSite) -> None:
    with place.worker() as worker:
        holders = [worker.start(["sleep", "60"], limits=Limits(cpus=16)) for _ in range(2)]
        for holder in holders:
            eventually("it runs", lambda one=holder: one.status().state is State.RUNNING)
        job = worker.start(["true"], limits=Limits(cpus=16))
        eventually("it says why", lambda: "(Resources)" in job.status().detail)
        assert job.status().state is State.STARTING
        job.stop()
        assert job.wait().reason is Reason.STOPPED
        assert job.status().output_end == 0
        for holder in holders:
            holder.stop()


def test_a_cancelled_one_says_so(place: ClusterSite) -> None:
    with place.worker() as worker:
        job = run(worker, "sleep", "60")
        eventually("it runs", lambda: job.status().state is State.RUNNING)
        place.cluster.say("scancel", *place.numbers())
        status = job.wait()
        assert status.reason is Reason.STOPPED
        assert "scancel" in status.detail


def test_what_a_cluster_cannot_do_is_refused(place: ClusterSite) -> None:
    with place.worker() as worker:
        with pytest.raises(CannotPlace, match="cannot keep a limit of processes"):
            worker.start(["true"], limits=Limits(processes=5))
        job = run(worker, "sleep", "60")
        eventually("it runs", lambda: job.status().state is State.RUNNING)
        with pytest.raises(CannotPlace, match="cannot pause a job"):
            job.pause()
        job.stop()
