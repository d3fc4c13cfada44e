"""Many followers of output in one process: each is a GetOutput stream, many share a connection."""

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import grpc

from bench.caller import Caller, Login
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub

# gRPC takes about a hundred streams on a connection well.
STREAMS_PER_CONNECTION = 50
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True)
class Followed:
    """What one follower was given."""

    bytes: int
    sha256: str


def follow(login: Login, crowd: list[Caller], jobs: Sequence[str]) -> None:
    """Have the crowd follow jobs, one follower for each ID given."""
    begun = [
        member.submit(follow_here, login, jobs[number :: len(crowd)])
        for number, member in enumerate(crowd)
    ]
    for future in begun:
        future.result()


def finish(crowd: list[Caller]) -> list[Followed]:
    """What the followers were given."""
    done = [member.submit(finish_here) for member in crowd]
    return [followed for future in done for followed in future.result()]


class Followers:
    """Follow jobs on an event loop in a thread of its own; one follower for each ID given."""

    def __init__(self, login: Login, jobs: Sequence[str]) -> None:
        """Returns when every follower has had something."""
        self._waiting = len(jobs)
        self._all_begun = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._done: Future[list[Followed]] = asyncio.run_coroutine_threadsafe(
            self._follow_all(login, jobs), self._loop
        )
        self._done.add_done_callback(lambda _: self._all_begun.set())
        self._all_begun.wait()

    def finish(self) -> list[Followed]:
        """What each was given, once all outputs have ended."""
        try:
            return self._done.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _follow_all(self, login: Login, jobs: Sequence[str]) -> list[Followed]:
        credentials = grpc.ssl_channel_credentials(
            login.ca.read_bytes(), login.key.read_bytes(), login.certificate.read_bytes()
        )
        channels = [
            grpc.aio.secure_channel(login.address, credentials, _OPTIONS)
            for _ in range(0, len(jobs), STREAMS_PER_CONNECTION)
        ]
        try:
            return await asyncio.gather(
                *(
                    self._follow(WorkerServiceStub(channels[number % len(channels)]), job)
                    for number, job in enumerate(jobs)
                )
            )
        finally:
            for channel in channels:
                await channel.close()

    async def _follow(self, stub: WorkerServiceStub, job: str) -> Followed:
        received, digest = 0, hashlib.sha256()
        async for message in stub.GetOutput(pb.GetOutputRequest(jobID=job, raw=True)):
            if not received:
                self._begun()
            received += len(message.data)
            digest.update(message.data)
        return Followed(received, digest.hexdigest())

    def _begun(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._all_begun.set()


# What follows runs in the crowd's processes.

_followers: Followers


def follow_here(_: WorkerServiceStub, login: Login, jobs: Sequence[str]) -> None:
    """Begin to follow these jobs; returns when all followers have had something."""
    global _followers  # noqa: PLW0603 - they stay when this returns
    _followers = Followers(login, jobs)


def finish_here(_: WorkerServiceStub) -> list[Followed]:
    """What the followers were given, once the outputs have ended."""
    return _followers.finish()
