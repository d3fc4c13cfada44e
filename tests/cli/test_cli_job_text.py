"""How a job is written, as text and as JSON."""

import json
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import click
import pytest

from jobworker.cli.display.job import (
    COLUMNS,
    check_known,
    job_json,
    job_text,
    jobs_text,
    outcome_text,
)
from jobworker.cli.display.usage import usage_cells, usage_text
from jobworker.cli.errors import CliError, printable
from jobworker.client.messages import JobStatus, read_job, told
from jobworker.proto import workerservice_pb2 as pb

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RUNNING = JobStatus(
    id="0195-a",
    state="running",
    reason=None,
    exit_code=None,
    signal=None,
    pid=42,
    command=("sh", "-c", "echo 'a b'"),
    command_cut=False,
    working_directory="/srv",
    owner="alice",
    tenant="team-a",
    created_at=NOW - timedelta(seconds=75),
    ended_at=None,
    output_begin=0,
    output_bytes=7,
    output_complete=False,
    user="alice",
    user_shared=False,
    isolation="private",
    network=False,
    stop_signal=signal.SIGTERM,
    stop_mode="tree",
    limits=pb.Limits(memoryBytes=2**20, cpus=0.5, openFiles=64),
    usage=None,
    request=pb.StartRequest(graceSeconds=5),
    inside=None,
    attempt=1,
    attempts=(),
    ready=True,
    detail="",
)
JOB_WITHOUT_TENANT = replace(RUNNING, id="0195-long", tenant="")
ENDED = replace(
    RUNNING,
    state="ended",
    reason="exited",
    exit_code=3,
    ended_at=NOW - timedelta(seconds=15),
    output_complete=True,
)


def test_a_running_job_as_text() -> None:
    assert job_text(RUNNING, NOW).splitlines() == [
        "Job:       0195-a",
        "Command:   sh -c 'echo '\"'\"'a b'\"'\"''",
        "State:     running",
        "PID:       42",
        "Owner:     alice (tenant team-a)",
        "Directory: /srv",
        "Started:   2026-03-01 11:58:45 UTC (1m15s ago)",
        "Output:    7 bytes so far",
        "Runs as:   alice, private, without network",
        "Limits:    memory 1.0 MiB, cpus 0.5, open files 64",
    ]


def test_an_ended_job_as_text() -> None:
    lines = job_text(ENDED, NOW).splitlines()
    assert "State:     ended: exited with 3" in lines
    assert "Took:      1m" in lines
    assert "Output:    7 bytes" in lines
    assert not any(line.startswith("PID:") for line in lines)


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (RUNNING, "running"),
        (ENDED, "exited with 3"),
        (replace(ENDED, reason="signaled", exit_code=137, signal=9), "killed by SIGKILL"),
        (replace(ENDED, reason="signaled", exit_code=168, signal=40), "killed by signal 40"),
        (replace(ENDED, reason="stopped", exit_code=143, signal=15), "stopped, killed by SIGTERM"),
        (replace(ENDED, reason="stopped", exit_code=0), "stopped, exited with 0"),
        (replace(ENDED, reason="lost", exit_code=None), "lost, exit code unknown"),
    ],
)
def test_how_a_job_ended(job: JobStatus, text: str) -> None:
    assert outcome_text(job) == text


def test_json_holds_every_field_with_times_in_iso_8601() -> None:
    fields = json.loads(job_json(ENDED))
    assert fields["command"] == ["sh", "-c", "echo 'a b'"]
    assert fields["exit_code"] == 3
    assert fields["created_at"] == "2026-03-01T11:58:45Z"
    assert fields["ended_at"] == "2026-03-01T11:59:45Z"
    assert set(fields) > set(JobStatus.__dataclass_fields__) - {"request"}
    assert fields["grace_seconds"] == 5


def test_a_reply_becomes_a_job() -> None:
    status = pb.QueryStatusResponse(
        jobID="0195-b",
        commandName="sleep",
        Arguments=["5"],
        state=pb.JOB_STATE_ENDED,
        endReason=pb.END_REASON_SIGNALED,
        exitCode=137,
        signal=9,
    )
    status.createdAt.FromDatetime(NOW)
    job = read_job(status)
    assert (job.state, job.reason, job.exit_code, job.signal) == ("ended", "signaled", 137, 9)
    assert job.command == ("sleep", "5")
    assert job.created_at == NOW
    assert job.ended_at is None


def test_a_running_job_has_no_exit_code() -> None:
    job = read_job(pb.QueryStatusResponse(state=pb.JOB_STATE_RUNNING))
    assert (job.state, job.reason, job.exit_code) == ("running", None, None)


def test_a_lost_job_has_no_exit_code_to_go_on_with() -> None:
    lost = read_job(
        pb.QueryStatusResponse(
            jobID="0195-c", state=pb.JOB_STATE_ENDED, endReason=pb.END_REASON_LOST, detail="why"
        )
    )
    assert lost.exit_code is None
    with pytest.raises(CliError, match=r"job 0195-c was lost, .* unknown: why"):
        check_known(lost)
    check_known(ENDED)


def test_a_table_lines_up_and_is_cut_to_the_terminal() -> None:
    jobs = (RUNNING, JOB_WITHOUT_TENANT)
    head, first, second = jobs_text(jobs, NOW, None).splitlines()
    assert first.index("alice") == second.index("alice") == head.index("OWNER")
    assert first.split()[:4] == ["0195-a", "alice", "team-a", "1m15s"]
    assert second.split()[:3] == ["195-long", "alice", "-"]
    assert all(len(line) <= 30 for line in jobs_text(jobs, NOW, 30).splitlines())


def test_colours_take_no_room() -> None:
    """They are of the state alone, and not of one that is cut off."""
    plain = jobs_text((RUNNING,), NOW, None)
    coloured = jobs_text((RUNNING,), NOW, None, coloured=True)
    assert click.unstyle(coloured) == plain
    assert click.style("running", fg="cyan") in coloured
    assert "\x1b" not in jobs_text((RUNNING,), NOW, 30, coloured=True)


def test_columns_are_those_that_are_asked_for() -> None:
    head, row = jobs_text((RUNNING,), NOW, None, ("owner", "id", "labels")).splitlines()
    assert head.split() == ["OWNER", "JOB", "LABELS"]
    assert row.split() == ["alice", "0195-a", "-"]


def test_what_a_terminal_would_act_on_is_spelled_out() -> None:
    assert printable("a\x1b[2J\r\x07b\u202ec é") == r"a\x1b[2J\r\x07b\u202ec é"
    hostile = replace(RUNNING, command=("x\x1b]0;owned\x07\nroot",), detail="\x1b[1m")
    cells = [cell(hostile, NOW) for cell in COLUMNS.values()]
    for text in (job_text(hostile, NOW), "".join(cells)):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert not any("\n" in cell for cell in cells)
    assert len(job_text(hostile, NOW).splitlines()) == len(job_text(RUNNING, NOW).splitlines()) + 1


def test_usage_that_the_host_cannot_tell_is_left_out() -> None:
    usage = pb.Usage(userSeconds=1.5, systemSeconds=0.5, wallSeconds=70)
    assert told(usage) == {
        **dict.fromkeys(["memory_bytes", "peak_memory_bytes", "read_bytes", "written_bytes"]),
        "user_seconds": 1.5,
        "system_seconds": 0.5,
        "processes": None,
        "wall_seconds": 70,
    }
    assert usage_text(usage) == "CPU 2.0s"
    assert usage_cells(usage) == ("2.0s", "-", "-", "-", "-", "-", "1m10s")


def test_usage_of_nothing_is_not_usage_that_is_not_known() -> None:
    usage = pb.Usage(readBytes=0, writtenBytes=2048, peakMemoryBytes=2**20)
    assert usage_text(usage) == "peak memory 1.0 MiB, read 0 B, written 2.0 KiB"


def test_how_a_stop_begins_is_told_if_it_is_not_as_ever() -> None:
    other = replace(RUNNING, stop_signal=signal.SIGINT, stop_mode="main")
    assert "Stops by:  SIGINT to its main process" in job_text(other, NOW)
    assert "Stops by:  SIGQUIT to all its processes" in job_text(
        replace(RUNNING, stop_signal=signal.SIGQUIT), NOW
    )
    assert "Stops by" not in job_text(RUNNING, NOW)
    # What an older server says nothing of.
    assert "Stops by" not in job_text(replace(RUNNING, stop_signal=0, stop_mode="unspecified"), NOW)
