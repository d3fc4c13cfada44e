"""Clients in processes of their own, as they are in use: their cost is part of every figure."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.server import Server

# How long a process has to get ready before it is to begin together with others.
_GET_READY_SECONDS = 0.1
_OPTIONS = (("grpc.max_receive_message_length", -1),)

T = TypeVar("T")


class CallFailed(Exception):
    """A call ended with an error; its own exception does not pass between processes."""


@dataclass(frozen=True)
class Login:
    """How to call a server, and as whom."""

    address: str
    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, server: Server, user: str) -> "Login":
        """As one of the users of a server."""
        files = server.users[user]
        return cls(server.address, server.authority.certificate, files.certificate, files.key)

    def connect(self) -> WorkerServiceStub:
        """A stub with a channel of its own, for the rest of the process."""
        credentials = grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )
        return WorkerServiceStub(grpc.secure_channel(self.address, credentials, _OPTIONS))


class Caller:
    """One process with one connection. Actions are module-level functions that take its stub."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, action: "Callable[..., T]", *arguments: object) -> "Future[T]":
        """Run an action there; its first argument is the stub."""
        return self._pool.submit(_with_stub, action, *arguments)

    def run(self, action: "Callable[..., T]", *arguments: object) -> T:
        """Run an action there, and wait for what it returns."""
        return self.submit(action, *arguments).result()


@contextmanager
def callers(login: Login, processes: int) -> Iterator[list[Caller]]:
    """So many callers, until the block ends."""
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        yield [
            Caller(
                stack.enter_context(
                    ProcessPoolExecutor(1, spawn, initializer=_connect, initargs=(login,))
                )
            )
            for _ in range(processes)
        ]


def together(
    crew: Sequence[Caller], action: Callable[[WorkerServiceStub], object], calls: int, at_once: int
) -> float:
    """Calls a second when `at_once` threads, spread over the crew, make `calls` calls in all."""
    threads = at_once // len(crew)
    each = calls // at_once
    begin = time.monotonic() + _GET_READY_SECONDS
    done = [caller.submit(_in_threads, action, begin, threads, each) for caller in crew]
    end = max(future.result() for future in done)
    return each * at_once / (end - begin)


_stub: WorkerServiceStub


def _connect(login: Login) -> None:
    global _stub  # noqa: PLW0603 - a pool's initializer can leave what it made nowhere else
    _stub = login.connect()


def _with_stub(action: Callable[..., T], *arguments: object) -> T:
    try:
        return action(_stub, *arguments)
    except grpc.RpcError as error:
        raise CallFailed(str(error)) from None


def _in_threads(
    stub: WorkerServiceStub,
    action: Callable[[WorkerServiceStub], object],
    begin: float,
    threads: int,
    calls: int,
) -> float:
    """Begin at a moment of time.monotonic(), the same in all processes; returns that of the end."""

    def work() -> None:
        time.sleep(max(0.0, begin - time.monotonic()))
        for _ in range(calls):
            action(stub)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
    return time.monotonic()
