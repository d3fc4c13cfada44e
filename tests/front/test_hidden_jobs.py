"""A job one may not see takes the same work to refuse, and the same words, as one that never was.

Counted, on a real supervisor and a real policy: a clock would tell of the machine.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from uuid_utils import uuid7

from jobworker.authz.policy.in_force import PolicyInForce
from jobworker.authz.policy.policy import Policy
from jobworker.authz.policy.rules import ACTIONS
from jobworker.grpc_api.guard.access import Access, Verdict
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import AsyncJobWorker
from jobworker.supervisor.errors import NoSuchJob
from jobworker.supervisor.ipc.client import SupervisorClient
from tests.conftest import POLICY
from tests.support.library import leaving_nothing
from tests.support.policies import identity

ALICE, BOB = identity("alice", "team-a"), identity("bob", "team-b")
# Of another time than any job's, so that no job's ID begins like it.
NEVER = "00000000-0000-7000-8000-000000000000"
PREFIX = 30


@dataclass
class Work:
    """What was asked of the supervisor and of the policy."""

    requests: list[str]
    decided: list[str]


@contextmanager
def counted() -> Iterator[Work]:
    """Count within the block."""
    work = Work([], [])
    decide, get, list_jobs = Policy.decide, SupervisorClient.get, SupervisorClient.list
    owners = SupervisorClient.owners

    def deciding(policy, who, action, job):
        work.decided.append(action)
        return decide(policy, who, action, job)

    async def getting(client, job_id):
        work.requests.append("get")
        return await get(client, job_id)

    async def asking_whose(client):
        work.requests.append("owners")
        return await owners(client)

    async def listing(client, query):
        work.requests.append("list")
        return await list_jobs(client, query)

    with (
        mock.patch.object(Policy, "decide", deciding),
        mock.patch.object(SupervisorClient, "get", getting),
        mock.patch.object(SupervisorClient, "list", listing),
        mock.patch.object(SupervisorClient, "owners", asking_whose),
    ):
        yield work


@asynccontextmanager
async def alices_jobs(
    directory: Path, count: int = 1, name: str = ""
) -> AsyncIterator[tuple[Access, list[str]]]:
    """Access to a supervisor that has jobs of alice's."""
    policy = directory / "policy.yaml"
    policy.write_text(POLICY)
    async with AsyncJobWorker(directory / "state", cgroup="off") as worker:
        ids = [str(uuid7()) for _ in range(count)]
        for job_id in ids:
            request = pb.StartRequest(
                rawArguments=[b"true"], rawWorkingDirectory=b"/", tenant="team-a", name=name
            )
            await worker.client.start(ipc.Start(id=job_id, owner="alice", request=request))
        yield Access(PolicyInForce(policy), worker.client), ids


async def judged(access: Access, action: str, job_id: str) -> tuple[Verdict, Work, float]:
    """The verdict on bob, what it took, and the seconds until it was told."""
    begun = asyncio.get_running_loop().time()
    with counted() as work:
        verdict = await access.judge(BOB, action, job_id)
    return verdict, work, asyncio.get_running_loop().time() - begun


@pytest.mark.parametrize("length", [len(NEVER), PREFIX], ids=["id", "prefix"])
def test_a_hidden_job_takes_the_same_work_as_none(tmp_path: Path, length: int) -> None:
    async def compare() -> None:
        async with alices_jobs(tmp_path) as (access, (job_id,)):
            assert (await access.judge(ALICE, "stop", job_id[:length])).error is None
            for action in ACTIONS:
                hidden, hiding, _ = await judged(access, action, job_id[:length])
                missing, searching, _ = await judged(access, action, NEVER[:length])
                for verdict in (hidden, missing):
                    assert isinstance(verdict.error, NoSuchJob)
                    assert verdict.job is None
                told = str(hidden.error).replace(job_id[:length], NEVER[:length])
                assert told == str(missing.error)
                assert hiding.requests == searching.requests
                assert hiding.requests in (["get"], ["owners", "list"], ["owners"])
                assert hiding.decided == searching.decided
                assert searching.decided[-4:] == [action, "status", "list", "output"]

    with leaving_nothing(tmp_path):
        asyncio.run(compare())


def test_a_hidden_name_takes_the_same_work_as_none(tmp_path: Path) -> None:
    async def compare() -> None:
        async with alices_jobs(tmp_path, name="nightly") as (access, (job_id,)):
            assert (await access.judge(ALICE, "stop", "nightly")).job_id == job_id
            for action in ACTIONS:
                hidden, hiding, _ = await judged(access, action, "alice/nightly")
                missing, searching, _ = await judged(access, action, "alice/weekly")
                for verdict in (hidden, missing):
                    assert isinstance(verdict.error, NoSuchJob)
                    assert verdict.job is None
                assert str(hidden.error).replace("nightly", "weekly") == str(missing.error)
                assert hiding == searching
                assert hiding.requests == ["owners"]

    with leaving_nothing(tmp_path):
        asyncio.run(compare())


def test_how_many_hidden_jobs_begin_so_takes_no_more_decisions(tmp_path: Path) -> None:
    async def compare() -> None:
        async with alices_jobs(tmp_path, 5) as (access, ids):
            _, one, _ = await judged(access, "stop", ids[0][:PREFIX])
            _, all_of_them, _ = await judged(access, "stop", ids[0][:4])
            # Whose they are is decided once.
            assert all_of_them == one

    with leaving_nothing(tmp_path):
        asyncio.run(compare())


def test_no_answer_comes_before_the_beat(tmp_path: Path) -> None:
    """Whatever it took to find out, it is told at a multiple of 20 ms."""

    async def compare() -> None:
        async with alices_jobs(tmp_path) as (access, (job_id,)):
            for asked in (job_id, NEVER, job_id[:PREFIX], NEVER[-PREFIX:], "no job", "no-job"):
                _, _, seconds = await judged(access, "stop", asked)
                assert seconds >= 0.02

    with leaving_nothing(tmp_path):
        asyncio.run(compare())
