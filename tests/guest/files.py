"""Files of jobs, where each tenant's jobs have a user of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.guest.boot import USERS
from tests.guest.site import TRACE, Tenant, server_of_root, tenant
from tests.support.client import refused
from tests.support.server import Server
from tests.support.session.files import get, put, put_requests
from tests.support.waiting import until

PRIVATE = pb.ISOLATION_PRIVATE
READY = "echo ready; exec sleep 1000"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_of_root() as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[Tenant]:
    with tenant(server, "alice") as person:
        yield person


@pytest.fixture
def bob(server: Server) -> Iterator[Tenant]:
    with tenant(server, "bob") as person:
        yield person


def kept_from(person: Tenant, job: str, path: str) -> str:
    """In which words neither a put nor a get goes."""
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        list(person.worker.Put(put_requests(job, path, b"data")))
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        get(person.worker, job, path)
    return words[0]


@pytest.mark.parametrize("isolation", [pb.ISOLATION_NONE, PRIVATE], ids=["shared", "private"])
def test_it_is_the_jobs_user_in_the_jobs_directory(alice: Tenant, isolation: int) -> None:
    links = "ln -sf /etc/shadow shadow; ln -sfn /etc out; ln -sfn /home/bob bob"
    job = alice.started(f"cd; {links}; {READY}", isolation=isolation)
    put(alice.worker, job, "file", b"data" * 100_000, mode=0o640)
    file = Path("/home/alice/file")
    found = file.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (2001, 2001, 0o640)
    for path in ("shadow", "out/new", "out/shadow", "bob/file", "../bob/file", "/etc/shadow"):
        assert "leads out" in kept_from(alice, job, path)
    alice.stop(job)
    assert get(alice.worker, job, "file") == b"data" * 100_000
    put(alice.worker, job, "after", b"data")
    assert Path("/home/alice/after").stat().st_uid == USERS["alice"]
    for path in ("shadow", "out/new", "bob/file", "/etc/shadow"):
        assert "leads out" in kept_from(alice, job, path)


def test_what_a_private_job_has_alone_goes_with_it(alice: Tenant) -> None:
    job = alice.started(
        f"mkdir /tmp/own; umask 077; echo made > /tmp/own/made; {READY}", isolation=PRIVATE
    )
    assert get(alice.worker, job, "/tmp/own/made") == b"made\n"
    put(alice.worker, job, "/tmp/own/file")
    assert not Path("/tmp/own").exists()
    alice.stop(job)
    assert "leads out" in kept_from(alice, job, "/tmp/own/made")


def test_a_private_job_whose_directory_was_not_its_users(alice: Tenant) -> None:
    """What it could read there, but not write, it has no more of once the sandbox has gone."""
    job = alice.started(READY, isolation=PRIVATE, workingDirectory="/usr")
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        list(alice.worker.Put(put_requests(job, "new", b"data")))
    assert "read-only" in words[0]
    alice.stop(job)
    assert "in its sandbox" in kept_from(alice, job, "new")


def test_nothing_of_root_and_of_others(alice: Tenant, bob: Tenant) -> None:
    secret = Path("/home/bob/secret")
    secret.write_text("bob's")
    os.chown(secret, USERS["bob"], USERS["bob"])
    job = alice.started(READY, isolation=pb.ISOLATION_NONE, workingDirectory="/")
    for path in ("etc/shadow", "home/bob/secret", "proc/1/environ"):
        assert "permission denied" in kept_from(alice, job, path), path
    with refused(grpc.StatusCode.NOT_FOUND):
        get(bob.worker, job, "home/bob/secret")
    alice.stop(job)


@pytest.mark.parametrize("isolation", [pb.ISOLATION_NONE, PRIVATE], ids=["shared", "private"])
def test_what_comes_with_a_start_is_the_users(
    server: Server, alice: Tenant, isolation: int
) -> None:
    files = [pb.Upload(name=b"script", mode=0o700, data=b"echo it ran\nstat -c %U script\n")]
    job = alice.start(". ./script", uploads=files, isolation=isolation)
    assert alice.output(job) == "it ran\nalice\n"
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        alice.start("true", uploads=files, isolation=isolation, workingDirectory="/usr")
    assert "/usr" in words[0]
    # Meanwhile it is the service's alone.
    first = alice.started(READY)
    waits = alice.start("true", uploads=files, after=[first])
    kept = server.directory / "state/output" / waits / "uploads"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert alice.run(f"cat {kept}/0 2>&1 || echo kept").endswith("kept\n")
    alice.stop(waits)
    alice.stop(first)


def test_nobody_traces_a_porter(server: Server, alice: Tenant) -> None:
    """It is the tenant's user, and holds what came from the service all the same."""
    job = alice.started(READY, isolation=pb.ISOLATION_NONE)
    first = next(put_requests(job, "file", b"data"))

    def porters() -> list[psutil.Process]:
        below = psutil.Process(server.process.pid).children(recursive=True)
        return [one for one in below if any(word.endswith("porter.py") for word in one.cmdline())]

    def requests() -> Iterator[pb.PutRequest]:
        yield first
        until(lambda: [one.uids().real for one in porters()] == [USERS["alice"]])
        (porter,) = porters()
        told.append(alice.run(TRACE, str(porter.pid)))
        yield pb.PutRequest(data=b"data", end=True)

    told: list[str] = []
    assert [answer.done for answer in alice.worker.Put(requests())] == [False, True]
    assert told == ["Operation not permitted\n"]
    alice.stop(job)
