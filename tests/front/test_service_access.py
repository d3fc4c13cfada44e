"""Who is refused what, over the wire, and in which words."""

from functools import partial

import grpc

from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import calling, refused, start
from tests.support.server import Server


def test_another_tenants_job_does_not_exist(server: Server) -> None:
    """Every method answers as it does for a job that never was."""
    with calling(server, "alice") as alice, calling(server, "bob") as bob:
        job_id = start(alice, "sleep", "1000")
        never = "00000000-0000-7000-8000-000000000000"
        for method, request in (
            (bob.QueryStatus, pb.QueryStatusRequest),
            (bob.Stop, pb.StopRequest),
            (bob.Signal, partial(pb.SignalRequest, signal=9)),
            (bob.Wait, pb.WaitRequest),
            (bob.Remove, pb.RemoveRequest),
            (lambda asked: list(bob.GetOutput(asked)), pb.GetOutputRequest),
        ):
            with refused(grpc.StatusCode.NOT_FOUND) as hidden:
                method(request(jobID=job_id))
            with refused(grpc.StatusCode.NOT_FOUND) as missing:
                method(request(jobID=never))
            assert hidden[0].replace(job_id, never) == missing[0]
        with refused(grpc.StatusCode.NOT_FOUND):
            bob.QueryStatus(pb.QueryStatusRequest(jobID=job_id[:30]))
        assert job_id not in {job.jobID for job in bob.List(pb.ListRequest()).jobs}
        assert alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id)).JobStatus == pb.RUNNING
        alice.Stop(pb.StopRequest(jobID=job_id))


def test_start_for_a_tenant_that_is_not_ones_own(server: Server) -> None:
    with calling(server, "bob") as bob:
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            start(bob, "true", tenant="team-a")
        assert words[0].startswith("start refused to cn=bob")


def test_unique_prefixes_are_enough(server: Server) -> None:
    with calling(server, "alice") as alice:
        ids = [start(alice, "true") for _ in range(2)]
        status = alice.QueryStatus(pb.QueryStatusRequest(jobID=ids[0][:-1]))
        assert status.jobID == ids[0]
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
            alice.QueryStatus(pb.QueryStatusRequest(jobID=ids[0][:4]))
        assert "begin or end with" in words[0]


def test_a_program_that_cannot_be_executed_leaves_no_job(server: Server) -> None:
    with calling(server, "alice") as alice:
        before = len(alice.List(pb.ListRequest(pageSize=1000)).jobs)
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
            start(alice, "/no/such/program")
        assert words == ["cannot execute /no/such/program: No such file or directory (ENOENT)"]
        assert len(alice.List(pb.ListRequest(pageSize=1000)).jobs) == before


def test_who_am_i(server: Server) -> None:
    with calling(server, "alice") as alice:
        answer = alice.WhoAmI(pb.WhoAmIRequest())
        assert (answer.commonName, list(answer.tenants)) == ("alice", ["team-a"])
        assert int(answer.serial, 16) == server.users["alice"].serial
