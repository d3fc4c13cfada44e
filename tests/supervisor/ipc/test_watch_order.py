"""What a job's watcher knows is the last that the supervisor said, however it came in."""

import asyncio
import os
import struct
from multiprocessing.connection import Connection

import uuid_utils

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor.ipc.client import SupervisorClient
from jobworker.supervisor.job import State

DEADLINE_SECONDS = 30.0
JOB = str(uuid_utils.uuid7())


def test_news_that_come_together_with_the_reply_are_not_undone_by_it(
    supervisor: tuple[SupervisorClient, Connection],
) -> None:
    client, end = supervisor

    def answer() -> None:
        seq = ipc.Request.FromString(end.recv_bytes()).seq
        running = ipc.Event(
            reply=ipc.Reply(seq=seq, jobs=[ipc.Job(id=JOB, state=pb.JOB_STATE_RUNNING)])
        )
        ended = ipc.Event(changed=ipc.Changed(job=ipc.Job(id=JOB, state=pb.JOB_STATE_ENDED)))
        frames = [event.SerializeToString() for event in (running, ended)]
        # In one write, so that the client reads both at once.
        os.write(end.fileno(), b"".join(struct.pack("!i", len(frame)) + frame for frame in frames))

    async def watch() -> State:
        client.open()
        answered = asyncio.create_task(asyncio.to_thread(answer))
        async with asyncio.timeout(DEADLINE_SECONDS), client.watch(JOB) as watched:
            job = await watched.until(lambda job: job.ended)
        await answered
        client.close()
        return job.state

    assert asyncio.run(watch()) is State.ENDED
