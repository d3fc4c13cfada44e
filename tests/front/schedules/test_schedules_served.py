"""Schedules over the wire: who may do what, and what a run is judged by."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.front.admin.test_admin import audited
from tests.support.chaos import kill
from tests.support.client import calling, output, refused, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until

# bob may start but for /bin/false, carol may only look, dave may stop what is alice's.
POLICY = """\
rules:
  - {allow: "*", to: "cn:alice", jobs: "{ou}/{cn}"}
  - {allow: "*", to: "cn:bob", jobs: "{ou}/{cn}"}
  - {deny: start, to: "cn:bob", jobs: "*/*", command: /bin/false}
  - {allow: read, to: "cn:carol", jobs: "*/alice"}
  - {allow: stop, to: "cn:dave", jobs: "*/alice"}
  - {allow: read, to: "cn:dave", jobs: "*/alice"}
"""
USERS = [("alice", "team-a"), ("bob", "team-b"), ("carol", "team-c"), ("dave", "team-d")]
SETTINGS = "audit: {directory: audit}\n"
NEVER = "0 0 1 1 *"
# Runs at once, and again in a year.
RUN = pb.SCHEDULE_CHANGE_RUN


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("schedules")
    with running_server(directory, USERS, POLICY, SETTINGS) as running:
        yield running


@pytest.fixture
def people(server: Server) -> Iterator[dict[str, WorkerServiceStub]]:
    with (
        calling(server, "alice") as alice,
        calling(server, "bob") as bob,
        calling(server, "carol") as carol,
        calling(server, "dave") as dave,
    ):
        yield {"alice": alice, "bob": bob, "carol": carol, "dave": dave}
        for stub in (alice, bob):
            for one in stub.ListSchedules(pb.ListSchedulesRequest()).schedules:
                change(stub, one.schedule.name, pb.SCHEDULE_CHANGE_REMOVE)


def add(worker: WorkerServiceStub, name: str, *argv: str, **fields: Any) -> pb.ScheduleStatus:
    command, *arguments = argv or ("echo", "hello")
    start = pb.StartRequest(commandName=command, Arguments=arguments, environment={"KEY": "secret"})
    schedule = pb.Schedule(**{"name": name, "cron": NEVER, "start": start, **fields})
    return worker.AddSchedule(pb.AddScheduleRequest(schedule=schedule))


def change(
    worker: WorkerServiceStub, name: str, what: "pb.ScheduleChange", owner: str = ""
) -> pb.ScheduleStatus:
    return worker.ChangeSchedule(pb.ChangeScheduleRequest(name=name, owner=owner, change=what))


def names(worker: WorkerServiceStub, owner: str = "") -> list[str]:
    found = worker.ListSchedules(pb.ListSchedulesRequest(owner=owner)).schedules
    return [f"{one.owner}/{one.schedule.name}" for one in found]


def test_a_run_is_a_job(people: dict[str, WorkerServiceStub]) -> None:
    alice = people["alice"]
    added = add(alice, "report", timeZone="Europe/Berlin")
    assert added.next.ToDatetime(tzinfo=UTC) > datetime.now(UTC)
    assert not added.HasField("last")
    assert not added.schedule.start.environment
    ran = change(alice, "report", RUN)
    job = wait(alice, ran.lastJobID)
    assert (job.owner, job.tenant, job.exitCode) == ("alice", "team-a", 0)
    assert output(alice, ran.lastJobID) == b"hello\n"
    again = change(alice, "report", RUN)
    assert again.lastJobID > ran.lastJobID


def test_one_that_is_due_begins_by_itself(people: dict[str, WorkerServiceStub]) -> None:
    """At the next minute, which is at most that far away."""
    alice = people["alice"]
    add(alice, "minutely", cron="* * * * *")

    def runs() -> str:
        (one,) = alice.ListSchedules(pb.ListSchedulesRequest()).schedules
        return str(one.lastJobID)

    until(lambda: bool(runs()), seconds=120)
    job = wait(alice, runs())
    assert job.createdAt.ToDatetime().second < 30
    assert job.exitCode == 0


def test_schedules_and_runs_outlive_any_process(
    server: Server, people: dict[str, WorkerServiceStub]
) -> None:
    alice = people["alice"]
    add(alice, "kept", "sleep", "1000")
    job = change(alice, "kept", RUN).lastJobID
    for victim in ("supervisor", "front"):
        kill(server, victim)
        until(lambda: _answers(alice))
        assert names(alice) == ["alice/kept"]
    skipped = change(alice, "kept", RUN)
    assert f"the run before, job {job}, has not ended" in skipped.skipped
    alice.Stop(pb.StopRequest(jobID=job, graceSeconds=0))


def _answers(worker: WorkerServiceStub) -> bool:
    try:
        worker.WhoAmI(pb.WhoAmIRequest())
        names(worker)
    except grpc.RpcError:
        return False
    return True


def test_who_may_see_and_change_what(people: dict[str, WorkerServiceStub]) -> None:
    alice, bob, carol, dave = (people[name] for name in ("alice", "bob", "carol", "dave"))
    add(alice, "hers")
    assert names(bob) == names(bob, "alice") == []
    assert names(carol) == names(dave, "alice") == ["alice/hers"]
    for stranger in (bob, people["carol"]):
        for what in (pb.SCHEDULE_CHANGE_PAUSE, pb.SCHEDULE_CHANGE_REMOVE, RUN):
            code = (
                grpc.StatusCode.NOT_FOUND if stranger is bob else grpc.StatusCode.PERMISSION_DENIED
            )
            with refused(code):
                change(stranger, "hers", what, "alice")
    # Who may stop her jobs may stop more of them from coming, and have none begin.
    assert change(dave, "hers", pb.SCHEDULE_CHANGE_PAUSE, "alice").paused
    for what in (RUN, pb.SCHEDULE_CHANGE_RESUME, pb.SCHEDULE_CHANGE_RENEW):
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            change(dave, "hers", what, "alice")
    with refused(grpc.StatusCode.NOT_FOUND):
        change(alice, "no", pb.SCHEDULE_CHANGE_PAUSE)


def test_what_one_may_not_start_is_not_scheduled(
    server: Server, people: dict[str, WorkerServiceStub]
) -> None:
    bob = people["bob"]
    with refused(grpc.StatusCode.PERMISSION_DENIED):
        add(bob, "no", "/bin/false")
    with refused(grpc.StatusCode.PERMISSION_DENIED):
        add(people["carol"], "no")
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        add(bob, "twice")
        add(bob, "twice")
    assert names(bob) == ["bob/twice"]
    mine = [one for one in audited(server, "start") if one["cn"] == "bob"]
    assert [one["allowed"] for one in mine[-3:]] == [False, True, True]


def test_a_run_takes_the_rights_of_then(tmp_path: Path) -> None:
    """What the policy has come to refuse is not started, and the record says why."""
    with (
        running_server(tmp_path, USERS, POLICY, SETTINGS) as server,
        calling(server, "bob") as bob,
    ):
        add(bob, "later", "true")
        denied = '  - {deny: start, to: "cn:bob", jobs: "*/*", command: "true"}\n'
        policy = server.directory / "policy.yaml"
        policy.write_text(POLICY + denied)
        until(lambda: not _may_start(bob))
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            change(bob, "later", RUN)
        os.replace(_written(policy, POLICY), policy)
        until(lambda: _may_start(bob))
        ran = change(bob, "later", RUN)
        assert wait(bob, ran.lastJobID).exitCode == 0


def _written(beside: Path, text: str) -> Path:
    new = beside.with_name("new-policy")
    new.write_text(text)
    return new


def _may_start(worker: WorkerServiceStub) -> bool:
    asked = pb.CanIRequest(action="start", start=pb.StartRequest(commandName="true"))
    return worker.CanI(asked).allowed


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cron": "61 * * * *"}, "bad minute"),
        ({"cron": "0 0 31 2 *"}, "is no time"),
        ({"timeZone": "Berlin"}, "there is no time zone 'Berlin'"),
        ({"name": "0199"}, "is no name for a schedule"),
        ({"start": pb.StartRequest(commandName="a", requestID="k")}, "have no request ID"),
        ({"start": pb.StartRequest(commandName="a", input=1)}, "nobody is there to type"),
        ({"start": pb.StartRequest(commandName="a", Arguments=["x" * 20000])}, "in a file"),
        ({"start": pb.StartRequest(commandName="a", queue="none")}, "there is no queue"),
        (
            {"start": pb.StartRequest(commandName="a", name="n"), "overlap": 2},
            "runs that have a name cannot overlap",
        ),
    ],
)
def test_what_is_refused_at_once(
    people: dict[str, WorkerServiceStub], fields: dict[str, Any], words: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as told:
        add(people["alice"], **{"name": "s", **fields})
    assert words in told[0]
    assert names(people["alice"]) == []


def test_the_certificate_that_it_runs_by_is_told(people: dict[str, WorkerServiceStub]) -> None:
    alice = people["alice"]
    ends = alice.WhoAmI(pb.WhoAmIRequest()).notAfter.ToDatetime()
    assert add(alice, "mine").notAfter.ToDatetime() - ends < timedelta(seconds=1)
    assert change(alice, "mine", pb.SCHEDULE_CHANGE_RENEW).notAfter.ToDatetime() == ends
