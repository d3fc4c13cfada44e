"""Metrics of a real server, read as Prometheus reads them."""

import contextlib
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobworker.grpc_api.errors import ConfigError
from jobworker.grpc_api.settings_file import load_server_config
from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.front.test_audit_requests import limit_files
from tests.front.test_front_killed import front_of
from tests.front.test_reload_policy import NO_OUTPUT_FOR_ALICE, NO_POLICY
from tests.support.client import calling, refused, start, wait
from tests.support.server import JOBWORKER, PORT, Server, configure, own_address, running_server
from tests.support.waiting import until

METRICS_PORT = 9464

Samples = dict[tuple[str, frozenset[str]], float]


@contextmanager
def measured(directory: Path, settings: str = "") -> Iterator[tuple[Server, str]]:
    """A server that serves metrics, and where it does."""
    host = own_address()
    more = f"metrics: {{listen: '{host}:{METRICS_PORT}'}}\n{settings}"
    with running_server(directory, USERS, POLICY, more) as server:
        yield server, host


def read(host: str) -> Samples:
    """All samples, by their name and the values of their labels."""
    with urllib.request.urlopen(f"http://{host}:{METRICS_PORT}/metrics", timeout=60) as answer:
        assert answer.headers.get_content_type() == "text/plain"
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name.removeprefix("jobworker_"), frozenset(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def value(host: str, name: str, *labels: str) -> float:
    """One sample; what has not happened yet has none, which is 0."""
    return read(host).get((name, frozenset(labels)), 0)


CALLS = {
    ("calls_total", frozenset({"Start", "OK"})): 1,
    ("calls_total", frozenset({"Start", "PERMISSION_DENIED"})): 1,
    ("calls_total", frozenset({"Stop", "OK"})): 1,
    ("calls_total", frozenset({"Stop", "NOT_FOUND"})): 1,
    ("calls_total", frozenset({"GetOutput", "OK"})): 1,
}
DECISIONS = {
    ("decisions_total", frozenset({"start", "allow"})): 1,
    ("decisions_total", frozenset({"start", "deny"})): 1,
    ("decisions_total", frozenset({"stop", "allow"})): 1,
    ("decisions_total", frozenset({"stop", "deny"})): 1,
    ("decisions_total", frozenset({"output", "allow"})): 1,
}


def test_calls_and_decisions_are_counted(tmp_path: Path) -> None:
    with (
        measured(tmp_path) as (server, host),
        calling(server, "alice") as alice,
        calling(server, "bob") as bob,
    ):
        job_id = start(alice, "sleep", "1000")
        assert value(host, "running_jobs") == 1
        with refused(grpc.StatusCode.NOT_FOUND):
            bob.Stop(pb.StopRequest(jobID=job_id))
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            start(bob, "/bin/false")
        alice.Stop(pb.StopRequest(jobID=job_id))
        wait(alice, job_id)
        assert list(alice.GetOutput(pb.GetOutputRequest(jobID=job_id))) == []
        # A call is counted when it is over here, which its client may know before.
        until(lambda: CALLS.items() <= read(host).items())
        assert DECISIONS.items() <= read(host).items()
        assert value(host, "running_jobs") == 0


def test_a_call_that_its_client_ends_is_counted(tmp_path: Path) -> None:
    with measured(tmp_path) as (server, host), calling(server, "alice") as alice:
        waiting = alice.Wait.future(pb.WaitRequest(jobID=start(alice, "sleep", "1000")))
        until(lambda: value(host, "decisions_total", "status", "allow") == 1)
        waiting.cancel()
        until(lambda: value(host, "calls_total", "Wait", "CANCELLED") == 1)


def test_reloads_are_told(tmp_path: Path) -> None:
    with measured(tmp_path) as (server, host):
        policy = server.directory / "policy.yaml"

        def reloads() -> tuple[float, float, float]:
            found = read(host)
            names = ("policy_loads_total", "policy_refusals_total")
            loads, refusals = (found[name, frozenset()] for name in names)
            return loads, refusals, found["serving", frozenset({"policy"})]

        def version() -> str:
            (labels,) = (labels for name, labels in read(host) if name == "policy_info")
            return next(iter(labels))

        first = version()
        assert len(first) == 64
        assert reloads() == (1, 0, 1)
        policy.write_text(NO_POLICY)
        until(lambda: reloads()[1:] == (1, 0))
        assert (reloads()[0], version()) == (1, first)
        policy.write_text(NO_OUTPUT_FOR_ALICE)
        until(lambda: reloads() == (2, 1, 1))
        assert version() != first


def test_connections_are_counted(tmp_path: Path) -> None:
    with measured(tmp_path, "connections: {per_name: 1}\n") as (server, host):
        assert value(host, "connections") == 0
        with calling(server, "alice") as alice:
            alice.WhoAmI(pb.WhoAmIRequest())
            assert value(host, "connections") == 1
            assert value(host, "connections_refused_total", "limit") == 0
            assert server.run("alice", "whoami").returncode != 0
            assert value(host, "connections_refused_total", "limit") >= 1
        until(lambda: value(host, "connections") == 0)
        assert value(host, "connections_refused_total", "handshake") == 0
        with socket.create_connection((server.host, PORT)) as stranger:
            stranger.sendall(b"this is no TLS at all")
            while stranger.recv(4096):
                pass
        assert value(host, "connections_refused_total", "handshake") == 1


def test_what_could_not_be_recorded_is_counted(tmp_path: Path) -> None:
    with (
        measured(tmp_path, "audit: {directory: audit}\n") as (server, host),
        calling(server, "alice") as alice,
    ):
        assert value(host, "serving", "audit") == 1
        limit_files(server, 1)
        with refused(grpc.StatusCode.UNAVAILABLE):
            alice.List(pb.ListRequest())
        until(lambda: value(host, "serving", "audit") == 0)
        assert value(host, "audit_failures_total") == 1
        until(lambda: value(host, "calls_total", "List", "UNAVAILABLE") == 1)


def test_nobody_is_named(tmp_path: Path) -> None:
    with measured(tmp_path) as (server, host), calling(server, "alice") as alice:
        job_id = start(alice, "sleep", "1000")
        told = repr(read(host))
        for name in ("alice", "team-a", "sleep", job_id):
            assert name not in told


def test_readers_who_say_nothing_keep_nobody_out(tmp_path: Path) -> None:
    with measured(tmp_path) as (server, host):
        assert value(host, "connections") == 0
        threads = _own_threads(front_of(server))
        silent = [socket.create_connection((host, METRICS_PORT)) for _ in range(3)]
        assert value(host, "connections") == 0
        assert _own_threads(front_of(server)) <= threads
        for connection in silent:
            with connection:
                assert connection.recv(1) == b""


def _own_threads(front: psutil.Process) -> int:
    """How many there are, but for gRPC's, which have names (proc(5), comm) and come and go."""
    names = []
    for thread in front.threads():
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{front.pid}/task/{thread.id}/comm").read_text())
    return sum(name.startswith("jobworker") for name in names)


def test_nothing_is_served_unless_asked_for(fresh_server: Server) -> None:
    listening = [
        found.laddr
        for found in front_of(fresh_server).net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    ]
    assert listening == [(fresh_server.host, PORT)]


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    host = own_address()
    configure(tmp_path, host, POLICY, f"metrics: {{listen: '{host}:{METRICS_PORT}'}}\n")
    with socket.create_server((host, METRICS_PORT)):
        done = subprocess.run(
            [JOBWORKER, "serve", "--config", str(tmp_path / "server.yaml")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 78
    assert f"cannot serve metrics on {host}:{METRICS_PORT}: Address already in use" in done.stderr


def test_what_is_no_address_is_told(tmp_path: Path) -> None:
    configure(tmp_path, "127.0.0.1", POLICY, "metrics: {listen: nowhere}\n")
    with pytest.raises(ConfigError, match=r"metrics\.listen: 'nowhere' is not HOST:PORT"):
        load_server_config(tmp_path / "server.yaml")
