"""A path that is dead without a word is noticed, and whoever looks for that is welcome."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest

from jobworker.client import channel, output_connection
from jobworker.client.channel import Channel
from jobworker.grpc_api.edge import listener
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support import http2
from tests.support.client import calling, start
from tests.support.relay import relay_to
from tests.support.server import PORT, Server

NOTICED_SECONDS = 60
PINGS = 100


def quick(options: tuple[tuple[str, object], ...]) -> tuple[tuple[str, object], ...]:
    """The client's options with keepalive in a thirtieth of the time."""
    times = {name: int(str(value)) // 30 for name, value in options if "_time" in name}
    return tuple((name, times.get(name, value)) for name, value in options)


def test_a_quiet_follower_notices_a_dead_path(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was blind for up to six minutes behind a NAT that drops idle flows."""
    times = dict(channel._OPTIONS)
    for timeout in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        seconds = (int(times["grpc.keepalive_time_ms"]) + int(times[timeout])) / 1000
        assert 0 < seconds <= NOTICED_SECONDS
    monkeypatch.setattr(channel, "_OPTIONS", quick(channel._OPTIONS))
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", "echo on; sleep 1000")
    with relay_to((server.host, PORT)) as relay:
        held = Channel(replace(http2.endpoint(server, "alice"), server=relay.address))
        follower = WorkerServiceStub(held.current).GetOutput(
            pb.GetOutputRequest(jobID=job_id), timeout=NOTICED_SECONDS
        )
        assert next(follower).output == "on\n"
        relay.hold()
        with pytest.raises(grpc.RpcError) as caught:
            next(follower)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        held.close()


@pytest.mark.parametrize("options", [output_connection._KEEPALIVE, listener._KEEPALIVE])
def test_sockets_notice_it_too(options: tuple[tuple[int, int], ...]) -> None:
    """Output connections were blind for six minutes, the server for two."""
    seconds = dict(options)
    probes = seconds[socket.TCP_KEEPINTVL] * seconds[socket.TCP_KEEPCNT]
    assert 0 < seconds[socket.TCP_KEEPIDLE] + probes <= NOTICED_SECONDS


def test_pings_are_answered_and_no_abuse(server: Server) -> None:
    """A client that pinged every 30 s was sent GOAWAY (ENHANCE_YOUR_CALM, too_many_pings)."""
    with http2.connection(server, "alice") as tls:
        tls.sendall(PINGS * http2.frame(http2.PING, 0, b"12345678"))
        answered = 0
        for kind, flags in _frames(tls):
            assert kind in (http2.PING, http2.SETTINGS, http2.WINDOW_UPDATE), kind
            answered += kind == http2.PING and flags == 1
            if answered == PINGS:
                break


def _frames(tls: socket.socket) -> Iterator[tuple[int, int]]:
    """Type and flags of each frame that comes in."""
    with tls.makefile("rb") as stream:
        while header := stream.read(9):
            stream.read(int.from_bytes(header[:3]))
            yield header[3], header[4]
