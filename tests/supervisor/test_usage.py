"""What a job has used is told while it runs and kept when it has ended."""

import contextlib
import json
import sqlite3
from pathlib import Path

from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import JobWorker, Limits, Reason
from jobworker.supervisor.host.accounting import UNKNOWN, ExitUsage, Usage
from jobworker.supervisor.journal.journal import Journal
from tests.support.client import calling, start, wait
from tests.support.server import Server
from tests.support.waiting import until

SPIN = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done"


def used(status: pb.QueryStatusResponse) -> float:
    return float(status.usage.userSeconds + status.usage.systemSeconds)


def test_processor_time_grows_and_stays(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", f"{SPIN}; echo; while :; do :; done")
        query = pb.QueryStatusRequest(jobID=job_id)
        first = used(worker.QueryStatus(query))
        until(lambda: used(worker.QueryStatus(query)) > first + 0.1)
        before = used(worker.QueryStatus(query))
        worker.Stop(pb.StopRequest(jobID=job_id, graceSeconds=0))
        after = worker.QueryStatus(query)
        assert used(after) >= before
        assert after.usage.wallSeconds > 0
        assert after.usage.peakMemoryBytes > 0
        assert not after.usage.HasField("memoryBytes")
        assert worker.QueryStatus(query).usage == after.usage


def test_children_are_counted(server: Server) -> None:
    with calling(server, "alice") as worker:
        ended = wait(
            worker, start(worker, "sh", "-c", f'sh -c "{SPIN.replace("$", chr(92) + "$")}"')
        )
        assert ended.exitCode == 0
        assert used(ended) > 0.01


def test_without_cgroups_wait4_tells(tmp_path: Path) -> None:
    with JobWorker(tmp_path / "state", cgroup="off") as worker:
        job = worker.start(["sh", "-c", f"{SPIN}; echo x > {tmp_path}/file; read line"])
        usage = job.wait().usage
    assert usage.user_seconds is not None
    assert usage.user_seconds > 0.01
    assert usage.peak_memory is not None
    assert usage.peak_memory > 500_000


def test_limits_of_the_library(tmp_path: Path) -> None:
    with JobWorker(tmp_path / "state") as worker:
        ended = worker.start(["sh", "-c", "sleep 1000"], limits=Limits(timeout=0.2)).wait()
        assert ended.reason is Reason.TIMED_OUT
        job = worker.start(["sh", "-c", "ulimit -n"], limits=Limits(open_files=33))
        assert b"".join(chunk.data for chunk in job.output()) == b"33\n"
        assert job.status().limits == Limits(open_files=33)


def test_it_is_still_there_after_a_restart(tmp_path: Path) -> None:
    with JobWorker(tmp_path / "state") as worker:
        job = worker.start(["sh", "-c", SPIN])
        job.wait()
        until(lambda: job.status().gone)
        before = job.status().usage
    with JobWorker(tmp_path / "state") as worker:
        assert worker.job(job.id).status().usage == before
    assert before.user_seconds


def test_what_is_known_goes_before_what_is_guessed() -> None:
    exact = Usage(user_seconds=2.0, memory=5)
    guess = ExitUsage(1.0, 0.5, 3, 2, 0).usage()
    assert exact.else_from(guess) == Usage(2.0, 0.5, 5, 3072, 1024, 0)
    assert exact.ended() == Usage(user_seconds=2.0)
    assert UNKNOWN.else_from(exact) == exact
    assert ExitUsage.of_report([1.0, 2.0, 3]) == ExitUsage(1.0, 2.0, 3, 0, 0)


def test_a_journal_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """Timeouts were a field of their own then, and nothing was accounted for."""
    with JobWorker(tmp_path / "state") as worker:
        job = worker.start(["true"])
        job.wait()
        until(lambda: job.status().gone)
    path = tmp_path / "state/journal.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        (request,) = database.execute("SELECT request FROM job").fetchone()
        old = {**json.loads(request), "timeout": 7.5}
        del old["limits"]
        database.execute("UPDATE job SET request = ?", (json.dumps(old),))
        database.execute("DROP INDEX job_name")
        for column in ("name", "usage"):
            database.execute(f"ALTER TABLE job DROP COLUMN {column}")
        database.execute("ALTER TABLE job DROP COLUMN engine_record")
        database.execute("ALTER TABLE job ADD COLUMN pid_start INTEGER NOT NULL DEFAULT 0")
        database.execute("ALTER TABLE job ADD COLUMN cgroup TEXT NOT NULL DEFAULT ''")
        database.execute("PRAGMA user_version = 1")
    journal = Journal(path)
    found = journal.find(job.id)
    journal.close()
    assert found is not None
    assert found.request.limits.timeout == 7.5
    assert found.usage == UNKNOWN
