"""The port of a service whose front is replaced, or killed: nobody is refused, no command fails."""

import contextlib
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

import grpc
import pytest

from jobworker.client.connection import Service, connect
from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import CallFailed
from jobworker.client.follow import wait_for_end
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.ledger import MAX_LISTENING, Listening
from tests.front.test_front_killed import front_of
from tests.support.chaos import services
from tests.support.client import channel_of
from tests.support.server import Server
from tests.support.waiting import until

UPGRADES = 25


class Load:
    """Calls of many kinds, over and over, until the block ends; counts them, and what failed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        # Begun so far.
        self.upgrades = 0
        kinds = (self._held, self._fresh, self._waiting, self._foreign, self._commands)
        self._threads = [threading.Thread(target=kind) for kind in kinds]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _endpoint(self) -> Endpoint:
        files = self._server.users["alice"]
        ca = self._server.authority.certificate
        return Endpoint(self._server.address, ca, files.certificate, files.key)

    def _repeat(self, kind: str, call: Callable[[], object]) -> None:
        while not self._over.is_set():
            before = self.upgrades
            try:
                call()
                self.done[kind] += 1
            except (CallFailed, grpc.RpcError) as error:
                self.failed.append(f"{kind}, over {self.upgrades - before} upgrades: {error!r}")

    def _held(self) -> None:
        """Prompt calls over a connection that is held open."""
        with connect(self._endpoint()) as service:
            self._repeat("held", service.whoami)

    def _fresh(self) -> None:
        """A connection for each call, as each command has one."""

        def call() -> None:
            with connect(self._endpoint()) as service:
                service.list(pb.ListRequest(pageSize=1))

        self._repeat("fresh", call)

    def _waiting(self) -> None:
        """Starts, and waits that take longer than a front has to end."""
        with connect(self._endpoint()) as service:
            self._repeat("waiting", lambda: _start_and_wait(service))

    def _foreign(self) -> None:
        """A client that repeats nothing: now and then it is told to, with the right status."""

        def call() -> None:
            try:
                stub.WhoAmI(pb.WhoAmIRequest(), timeout=60)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise

        with channel_of(self._server, "alice") as channel:
            stub = WorkerServiceStub(channel)
            self._repeat("foreign", call)

    def _commands(self) -> None:
        while not self._over.is_set():
            for words in (("list",), ("run", "--", "echo", "hello")):
                ended = self._server.run("alice", *words)
                self.done[words[0]] += 1
                if ended.returncode or (words[0] == "run" and ended.stdout != b"hello\n"):
                    self.failed.append(f"{words}: {ended}")


def _start_and_wait(service: Service) -> None:
    job = service.start(pb.StartRequest(commandName="sleep", Arguments=["0.3"])).jobID
    # As the command does: a single call is repeated five times at most, and a wait may
    # live through more upgrades than that.
    ended = wait_for_end(service, pb.WaitRequest(jobID=job))
    assert ended.exitCode == 0


def _answers(server: Server) -> int:
    """How often a front of this server has said that it serves."""
    return sum("serving on" in line for line in server.log)


@pytest.mark.slow
def test_no_command_fails_in_25_upgrades(fresh_server: Server) -> None:
    """The port was closed for 0.2 to 0.7 s, and calls in flight ended as CANCELLED."""
    with Load(fresh_server) as load:
        for _ in range(UPGRADES):
            answers, calls = _answers(fresh_server), load.done["fresh"]
            load.upgrades += 1
            fresh_server.process.send_signal(signal.SIGHUP)
            until(lambda answers=answers: _answers(fresh_server) > answers)
            # It takes the new supervisor, too, to answer this.
            until(lambda calls=calls: load.done["fresh"] > calls)
    assert not load.failed
    assert all(load.done[kind] for kind in ("held", "fresh", "waiting", "foreign", "list", "run"))


def test_to_connect_to_a_front_that_was_killed_waits(fresh_server: Server) -> None:
    """The connection was refused until there was another front, so a command failed at once."""
    front = front_of(fresh_server)
    front.kill()
    front.wait()
    with socket.create_connection((fresh_server.host, 50051), timeout=60):
        assert fresh_server.ask("alice", "list") == fresh_server.ask("alice", "list")
    assert front_of(fresh_server).pid != front.pid


def test_a_dormant_service_is_refused_at_once(fresh_server: Server) -> None:
    """Nobody will come to answer, so nobody is to wait."""
    fresh_server.process.send_signal(signal.SIGUSR1)
    until(lambda: not services(fresh_server))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((fresh_server.host, 50051), timeout=60)


def test_a_new_address_takes_the_place_of_the_old(fresh_server: Server) -> None:
    settings = fresh_server.directory / "server.yaml"
    settings.write_text(settings.read_text().replace(":50051", ":50052"))
    fresh_server.ask("alice", "serve", "--upgrade", "--config", str(settings))
    until(lambda: any(":50052" in line for line in fresh_server.log))
    assert fresh_server.run("alice", "list", server=f"{fresh_server.host}:50052").returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((fresh_server.host, 50051), timeout=60)


def test_the_keeper_holds_nothing_but_sockets_that_listen() -> None:
    """The front faces the network: what it sends is checked."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socketpair()[0] as connected,
        contextlib.closing(Listening()) as kept,
    ):
        assert kept.keep((os.dup(listening.fileno()),))
        for bad in (
            (os.open("/dev/null", os.O_RDONLY),),
            (os.dup(connected.fileno()),),
            tuple(os.dup(listening.fileno()) for _ in range(MAX_LISTENING + 1)),
        ):
            assert not kept.keep(bad)
            for descriptor in bad:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.fstat(descriptor)
        assert [one.getsockname() for one in kept.sockets()] == [listening.getsockname()]


def test_a_keeper_of_before_passes_no_sockets() -> None:
    """It lives on through an upgrade, and makes lines of two fields."""
    one, other = packets.pair()
    with one, other:
        assert packets.Line(one, other).listening == ()
