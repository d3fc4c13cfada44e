"""Who attends to a job, as the supervisor is told of it."""

import asyncio
from multiprocessing.connection import Connection

import uuid_utils

from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor.ipc.client import SupervisorClient

DEADLINE_SECONDS = 30.0
JOB = str(uuid_utils.uuid7())


def test_one_who_is_cut_off_before_the_answer_is_gone(
    supervisor: tuple[SupervisorClient, Connection],
) -> None:
    """The job went on for ever: the supervisor had heard who came, and never that they went."""
    client, end = supervisor

    async def attend() -> None:
        async with client.attending(JOB, "bob"):
            raise AssertionError("nobody has answered")

    async def cut_off() -> list[ipc.Attend]:
        client.open()
        async with asyncio.timeout(DEADLINE_SECONDS):
            coming = asyncio.create_task(attend())
            heard = [await asyncio.to_thread(_heard, end)]
            coming.cancel()
            heard.append(await asyncio.to_thread(_heard, end))
        client.close()
        return heard

    comes, goes = asyncio.run(cut_off())
    assert (comes.id, comes.who, comes.gone) == (JOB, "bob", 0)
    assert (goes.id, goes.who, goes.gone) == (JOB, "bob", 1)


def _heard(end: Connection) -> ipc.Attend:
    assert end.poll(DEADLINE_SECONDS), "the supervisor has heard nothing"
    return ipc.Request.FromString(end.recv_bytes()).attend
