"""Connecting to a job's port: to what the job listens at, and to nothing else on the host."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobworker.supervisor import (
    AlreadyEnded,
    AsyncJob,
    AsyncJobWorker,
    InvalidRequest,
    NoSuchJob,
    NothingListens,
)
from tests.support.library import Site

# Listens as it is told (family, address, backlog, how to serve), says where, and serves.
SERVER = """
import os, socket, sys, time
family, address, how = sys.argv[1:4]
server = socket.socket(getattr(socket, family))
if how == "v6only":
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
server.bind((address, int(sys.argv[4])))
server.listen(16)
print(server.getsockname()[1], flush=True)
if how == "deaf":
    time.sleep(1000)
while True:
    taken, _ = server.accept()
    if how == "says":
        taken.sendall(b"said")
        taken.close()
        continue
    if how == "forks" and os.fork():
        taken.close()
        continue
    while data := taken.recv(65536):
        taken.sendall(data)
    taken.shutdown(socket.SHUT_WR)
    taken.close()
"""
MADE = ("AF_INET", "127.0.0.1", "echo")


async def serving(worker: AsyncJobWorker, *how: str, port: int = 0) -> tuple[AsyncJob, int]:
    """A job that listens, and where."""
    job = await worker.start([sys.executable, "-SEc", SERVER, *how, str(port)])
    piece = await anext(job.output())
    return job, int(piece.data)


async def echoed(worker: AsyncJobWorker, job: AsyncJob, port: int, sent: bytes = b"hello") -> bytes:
    """What comes back of what is sent to a job's port, to its end."""
    made = await worker.client.connect(job.id, port)
    reader, writer = await asyncio.open_connection(sock=made)
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(60):
        received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


@asynccontextmanager
async def working(site: Site, **settings: object) -> AsyncIterator[AsyncJobWorker]:
    async with site.async_worker(**settings) as worker:
        yield worker


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


FAMILIES = [
    ("AF_INET", "127.0.0.1", "echo"),
    ("AF_INET", "0.0.0.0", "echo"),
    ("AF_INET", "127.9.9.9", "echo"),
    ("AF_INET", "127.0.0.1", "forks"),
    *(
        pytest.param(*how, marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"))
        for how in (
            ("AF_INET6", "::1", "echo"),
            ("AF_INET6", "::", "echo"),
            ("AF_INET6", "::", "v6only"),
            ("AF_INET6", "::ffff:127.0.0.1", "echo"),
        )
    ),
]


@pytest.mark.parametrize(("family", "address", "how"), FAMILIES)
def test_a_port_of_the_job(site: Site, family: str, address: str, how: str) -> None:
    async def scenario() -> None:
        async with working(site) as worker:
            job, port = await serving(worker, family, address, how)
            for sent in (b"hello", b"x" * 1_000_000, b""):
                assert await echoed(worker, job, port, sent) == sent

    asyncio.run(scenario())


def test_what_only_says_something_and_closes(site: Site) -> None:
    async def scenario() -> None:
        async with working(site) as worker:
            job, port = await serving(worker, "AF_INET", "127.0.0.1", "says")
            for _ in range(50):
                made = await worker.client.connect(job.id, port)
                reader, writer = await asyncio.open_connection(sock=made)
                assert await reader.read() == b"said"
                writer.close()

    asyncio.run(scenario())


def test_many_at_once(site: Site) -> None:
    async def scenario() -> None:
        async with working(site) as worker:
            job, port = await serving(worker, "AF_INET", "127.0.0.1", "forks")
            told = [f"{number}" * 1000 for number in range(30)]
            answers = await asyncio.gather(
                *(echoed(worker, job, port, text.encode()) for text in told)
            )
            assert [answer.decode() for answer in answers] == told

    asyncio.run(scenario())


# -- what is not the job's ----------------------------------------------------------------------


@contextlib.contextmanager
def stranger(address: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[int, list[object]]]:
    """Somebody who listens on this host and is no job; what has connected to them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    taken: list[object] = []
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((address, port))
        server.listen()
        server.settimeout(60)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    made, _ = server.accept()
                    taken.append(made)
                    made.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1], taken
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join()


STRANGERS = ["127.0.0.1", "0.0.0.0", "127.9.9.8"]


@pytest.mark.parametrize("address", STRANGERS + (["::1", "::"] if has_ipv6() else []))
def test_a_port_of_somebody_else_is_as_if_nobody_listened(site: Site, address: str) -> None:
    async def scenario() -> None:
        async with working(site) as worker:
            job, own = await serving(worker, *MADE)
            other, theirs = await serving(worker, *MADE)
            with stranger(address) as (port, taken):
                words = set()
                for asked in (port, theirs, free_port()):
                    with pytest.raises(NothingListens) as refused:
                        await worker.client.connect(job.id, asked)
                    words.add(str(refused.value).replace(str(asked), "PORT"))
                assert len(words) == 1
                assert taken == []
            assert await echoed(worker, job, own) == b"hello"
            assert await echoed(worker, other, theirs) == b"hello"

    asyncio.run(scenario())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_another_address_of_the_port_is_not_the_jobs(site: Site) -> None:
    """The job has the port at one address, somebody else at another."""

    async def scenario() -> None:
        async with working(site) as worker:
            with stranger("127.0.0.1") as (port, taken):
                job, _ = await serving(worker, "AF_INET", "127.9.9.9", "echo", port=port)
                assert await echoed(worker, job, port) == b"hello"
                assert taken == []

    asyncio.run(scenario())


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_the_ports_of_two_families_are_two(site: Site) -> None:
    """Who has [::]:PORT for IPv6 alone has not 127.0.0.1:PORT, and the other way round."""

    async def scenario() -> None:
        async with working(site) as worker:
            with stranger("127.0.0.1") as (port, taken):
                job, _ = await serving(worker, "AF_INET6", "::", "v6only", port=port)
                assert await echoed(worker, job, port) == b"hello"
                assert taken == []
            with stranger("::") as (port, taken):
                job, _ = await serving(worker, "AF_INET", "127.0.0.1", "echo", port=port)
                assert await echoed(worker, job, port) == b"hello"
                assert taken == []

    asyncio.run(scenario())


# Gives the port to another process again and again: now it listens, now the other does.
FLICKERS = """
import socket, sys, time
port = int(sys.argv[1])
print("up", flush=True)
while True:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
            server.listen(1)
        except OSError:
            continue
        server.setblocking(False)
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            try:
                server.accept()[0].close()
            except OSError:
                pass
"""


def test_a_port_that_changes_hands_while_one_connects(site: Site) -> None:
    """Between the look and the connection the port may become another's: no byte goes there."""

    async def scenario() -> None:
        async with working(site) as worker:
            port = free_port()
            job = await worker.start([sys.executable, "-SEc", FLICKERS, str(port)])
            await anext(job.output())
            over = threading.Event()
            got: list[bytes] = []
            thief = threading.Thread(target=steal, args=(port, over, got))
            thief.start()
            try:
                for _ in range(60):
                    with contextlib.suppress(NothingListens):
                        made = await worker.client.connect(job.id, port)
                        with contextlib.suppress(OSError):
                            made.send(b"secret")
                        made.close()
            finally:
                over.set()
                thief.join()
            assert b"".join(got) == b""

    asyncio.run(scenario())


def steal(port: int, over: threading.Event, got: list[bytes]) -> None:
    """Take the port whenever it is free, and all that is sent there."""
    while not over.is_set():
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("127.0.0.1", port))
                server.listen()
            except OSError:
                continue
            server.settimeout(0.001)
            for _ in range(2):
                with contextlib.suppress(OSError):
                    taken, _ = server.accept()
                    with taken:
                        taken.settimeout(60)
                        while data := taken.recv(65536):
                            got.append(data)


def test_a_connection_that_another_takes_from_the_jobs_socket(site: Site, tmp_path: Path) -> None:
    """The job's listening socket is in the hands of somebody else, too, who accepts."""

    async def scenario() -> None:
        async with working(site) as worker:
            path = tmp_path / "passed"
            with socket.socket(socket.AF_UNIX) as meeting:
                meeting.bind(str(path))
                meeting.listen()
                script = (
                    "import socket, sys, time\n"
                    "server = socket.create_server(('127.0.0.1', 0))\n"
                    "way = socket.socket(socket.AF_UNIX); way.connect(sys.argv[1])\n"
                    "socket.send_fds(way, [b'!'], [server.fileno()])\n"
                    "print(server.getsockname()[1], flush=True); time.sleep(1000)\n"
                )
                job = await worker.start([sys.executable, "-SEc", script, str(path)])
                port = int((await anext(job.output())).data)
                client, _ = meeting.accept()
                with client:
                    _, (descriptor,), _, _ = socket.recv_fds(client, 1, 1)
            with socket.socket(fileno=descriptor) as server:
                server.settimeout(60)
                got: list[bytes] = []

                def accept() -> None:
                    taken, _ = server.accept()
                    with taken:
                        got.append(taken.recv(10))

                thread = threading.Thread(target=accept)
                thread.start()
                with pytest.raises(NothingListens):
                    await worker.client.connect(job.id, port)
                thread.join()
            assert got == [b""]

    asyncio.run(scenario())


# -- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["off"], indirect=True)
def test_who_does_not_accept_is_not_waited_for_forever(site: Site) -> None:
    async def scenario() -> None:
        async with working(site) as worker:
            deaf, port = await serving(worker, "AF_INET", "127.0.0.1", "deaf")
            with pytest.raises(NothingListens, match="took no connection within 10 s"):
                await worker.client.connect(deaf.id, port)

    asyncio.run(scenario())


def test_what_there_is_not(site: Site) -> None:
    async def scenario() -> None:
        async with working(site) as worker:
            job = await worker.start(["true"])
            await job.wait()
            with pytest.raises((AlreadyEnded, NothingListens)):
                await worker.client.connect(job.id, 1)
            await job.stop()
            with pytest.raises(NoSuchJob):
                await worker.client.connect("01890000-0000-7000-8000-000000000000", 1)
            for port in (0, 65536, 2**32 - 1):
                with pytest.raises(InvalidRequest, match="is no TCP port"):
                    await worker.client.connect(job.id, port)

    asyncio.run(scenario())


def test_it_goes_on_after_the_death_of_the_supervisor(site: Site) -> None:
    async def scenario() -> None:
        async with working(site) as worker:
            job, port = await serving(worker, *MADE)
            made = await worker.client.connect(job.id, port)
            for _ in range(2):
                site.signal_supervisor()
            reader, writer = await asyncio.open_connection(sock=made)
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
            writer.close()
            assert await echoed(worker, job, port) == b"hello"

    asyncio.run(scenario())


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_network_of_its_own(site: Site) -> None:
    """As of a private job without network: a port there is none of the host's."""

    async def scenario() -> None:
        async with working(site) as worker:
            script = f'ip link set lo up; exec {sys.executable} -SEc "$1" $2 $3 $4 $5'
            enter = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "-Urn"]
            with stranger() as (port, taken):
                argv = [*enter, "sh", "-c", script, "sh", SERVER, *MADE, str(port)]
                job = await worker.start(argv)
                assert int((await anext(job.output())).data) == port
                for sent in (b"hello", b"x" * 100_000):
                    assert await echoed(worker, job, port, sent) == sent
                assert taken == []

    asyncio.run(scenario())
