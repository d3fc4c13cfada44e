"""Pausing over the wire: who may, what is told and recorded of it, and what a client sees."""

import json
import shutil
from pathlib import Path

import grpc
import pytest

from jobworker.authz.audit.files import last_lines
from jobworker.authz.audit.record import Changed, Decided
from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.support.client import calling, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until

NEVER = "00000000-0000-7000-8000-000000000000"
UP = ("sh", "-c", "echo up; while :; do :; done")


def test_who_may_signal_may_pause(server: Server) -> None:
    with (
        calling(server, "alice") as alice,
        calling(server, "bob") as bob,
        calling(server, "ann") as ann,
    ):
        job_id = start(alice, *UP)
        pause, resume = pb.PauseRequest(jobID=job_id), pb.ResumeRequest(jobID=job_id)
        for call, request in ((ann.Pause, pause), (ann.Resume, resume)):
            with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
                call(request)
            assert words[0].startswith("signal refused to cn=ann")
        for call, request in ((bob.Pause, pb.PauseRequest), (bob.Resume, pb.ResumeRequest)):
            with refused(grpc.StatusCode.NOT_FOUND) as hidden:
                call(request(jobID=job_id))
            with refused(grpc.StatusCode.NOT_FOUND) as missing:
                call(request(jobID=NEVER))
            assert hidden[0].replace(job_id, NEVER) == missing[0]
        assert alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id)).state == pb.JOB_STATE_RUNNING
        alice.Pause(pause)
        status = ann.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        # What the first generation knows of it: it has not ended.
        assert (status.state, status.JobStatus) == (pb.JOB_STATE_PAUSED, pb.RUNNING)
        running = alice.List(pb.ListRequest(running=True)).jobs
        assert job_id in {job.jobID for job in running}
        alice.Resume(resume)
        status = alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        assert status.state == pb.JOB_STATE_RUNNING
        alice.Stop(pb.StopRequest(jobID=job_id))
        for call, request in ((alice.Pause, pause), (alice.Resume, resume)):
            with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
                call(request)
            assert "has ended" in words[0]


def test_the_audit_log_has_every_pause_and_every_state(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY, "audit: {directory: audit}\n") as server:
        with calling(server, "alice") as alice:
            job_id = start(alice, *UP)
            for _ in range(2):
                alice.Pause(pb.PauseRequest(jobID=job_id))
                until(lambda: states(tmp_path, job_id)[-1:] == ["paused"])
                alice.Resume(pb.ResumeRequest(jobID=job_id))
                until(lambda: states(tmp_path, job_id)[-1:] == ["running"])
            alice.Pause(pb.PauseRequest(jobID=job_id))
            until(lambda: states(tmp_path, job_id)[-1:] == ["paused"])
            alice.Stop(pb.StopRequest(jobID=job_id))
            assert wait(alice, job_id).endReason == pb.END_REASON_STOPPED
        until(lambda: states(tmp_path, job_id)[-1:] == ["ended"])
        told = [one for one in states(tmp_path, job_id) if one != "stopping"]
        assert told == ["running", "paused", "running", "paused", "running", "paused", "ended"]
        lines = last_lines(tmp_path / "audit", 1000)
        events = [line.record.event for line in lines]
        signals = [one for one in events if isinstance(one, Decided) and one.action == "signal"]
        assert [(one.job, one.allowed) for one in signals] == [(job_id, True)] * 5


def states(directory: Path, job_id: str) -> list[str]:
    """The states of a job in the audit log."""
    events = (line.record.event for line in last_lines(directory / "audit", 1000))
    return [one.state for one in events if isinstance(one, Changed) and one.job == job_id]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_private_job(server: Server) -> None:
    with calling(server, "alice") as alice:
        script = "trap 'exit 7' TERM; echo up; while :; do :; done"
        job_id = start(alice, "sh", "-c", script, isolation=pb.ISOLATION_PRIVATE)
        for _ in range(2):
            alice.Pause(pb.PauseRequest(jobID=job_id))
            alice.Resume(pb.ResumeRequest(jobID=job_id))
        next(iter(alice.GetOutput(pb.GetOutputRequest(jobID=job_id))))
        alice.Pause(pb.PauseRequest(jobID=job_id))
        alice.Stop(pb.StopRequest(jobID=job_id))
        ended = wait(alice, job_id)
        assert (ended.exitCode, ended.endReason) == (7, pb.END_REASON_STOPPED)


def test_the_commands(server: Server) -> None:
    jobs = [server.ask("alice", "start", "--", *UP) for _ in range(2)]
    assert sorted(server.ask("alice", "pause", *jobs).splitlines()) == sorted(jobs)
    assert "paused" in server.ask("alice", "status", jobs[0])
    assert server.ask("alice", "list").count(" paused ") == 2
    told = json.loads(server.ask("alice", "pause", "-o", "json", jobs[0]))
    assert (told["id"], told["state"]) == (jobs[0], "paused")
    assert server.ask("alice", "resume", jobs[0]) == jobs[0]
    assert "running" in server.ask("alice", "status", jobs[0])
    server.ask("alice", "stop", *jobs)
    done = server.run("alice", "resume", jobs[1])
    assert done.returncode == 1
    assert b"has ended: only one that runs" in done.stderr
    assert b"did you mean 'resume'" in server.run("alice", "unpause", jobs[1]).stderr
