"""Files by jobworker.client, against a real server and connections that break."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.client import Client, Job, NotPossible, Unreachable
from jobworker.client.files import FileSink, StreamSink, get_file, put_file
from jobworker.client.outage import Outage
from tests.client.test_remote_jobs import async_client_of, client_of
from tests.support.relay import Relay, relay_to
from tests.support.server import PORT, Server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with client_of(server) as client:
        yield client


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def job_in(client: Client, directory: Path) -> Job:
    return client.start("sleep", "1000", cwd=str(directory))


def random_file(path: Path, size: int) -> bytes:
    data = os.urandom(size)
    path.write_bytes(data)
    return data


def test_in_and_out(client: Client, here: Path, there: Path) -> None:
    data = random_file(here / "file", 1_000_000)
    (here / "file").chmod(0o750)
    job = job_in(client, there)
    job.put(here / "file")
    job.put(str(here / "file"), "other")
    job.stop(grace=0)
    assert job.get("other", here) == here / "other"
    assert job.get(f"{there}/file", here / "back") == here / "back"
    for name in ("other", "back"):
        assert (here / name).read_bytes() == data
        assert (here / name).stat().st_mode & 0o777 == 0o750
    with pytest.raises(NotPossible, match="no such file"):
        job.get("absent", here)
    with pytest.raises(NotPossible, match="leads out"):
        job.get("/etc/passwd", here)
    with pytest.raises(FileNotFoundError):
        job.put(here / "absent")
    assert sorted(os.listdir(here)) == ["back", "file", "other"]


def test_with_asyncio(server: Server, here: Path, there: Path) -> None:
    (here / "file").write_text("data")

    async def scenario() -> None:
        async with async_client_of(server) as client:
            job = await client.start("sleep", "1000", cwd=str(there))
            await job.put(here / "file", "other")
            assert (await job.get("other", here)).read_text() == "data"

    asyncio.run(scenario())


def test_a_get_goes_on_where_the_connection_broke(
    server: Server, client: Client, here: Path, there: Path
) -> None:
    data = random_file(there / "file", 5_000_000)
    job = job_in(client, there)
    came: list[int] = []
    with (
        relay_to((server.host, PORT), cut_every=2_000_000) as relay,
        client_of(server, address=relay.address) as other,
    ):
        sink = FileSink(here / "file", job.id, b"file")
        changed = get_file(other.service, job.id, b"file", sink, outage=Outage(), told=came.append)
        assert relay.cuts >= 2
    assert not changed
    assert sum(came) == len(data)
    assert (here / "file").read_bytes() == data
    assert os.listdir(here) == ["file"]


def test_a_put_goes_on_where_the_connection_broke(
    server: Server, client: Client, here: Path, there: Path
) -> None:
    data = random_file(here / "file", 8_000_000)
    job = job_in(client, there)
    sent: list[int] = []
    with relay_to((server.host, PORT)) as relay, notified(server, relay) as other:

        def told(count: int) -> None:
            sent.append(count)
            if sum(sent) == 4 * 1024 * 1024:
                relay.sever()

        how = {"name": b"file", "mode": 0o644, "outage": Outage(), "told": told}
        put_file(other.service, job.id, here / "file", b"", **how)
    assert (there / "file").read_bytes() == data
    assert len(data) <= sum(sent) < 2 * len(data)
    assert os.listdir(there) == ["file"]


def notified(server: Server, relay: Relay) -> Client:
    """A client by way of the relay, which takes connections again once it says that one is lost."""
    lost = threading.Event()
    threading.Thread(target=lambda: lost.wait(60) and relay.restore(), daemon=True).start()
    files = server.users["alice"]
    return Client(
        relay.address,
        ca=server.authority.certificate,
        cert=files.certificate,
        key=files.key,
        notice=lambda _: lost.set(),
    )


def test_a_get_that_was_left_is_gone_on_with_later(client: Client, here: Path, there: Path) -> None:
    data = random_file(there / "file", 3_000_000)
    job = job_in(client, there)

    class _Left(Exception):
        pass

    def leave(_: int) -> None:
        raise _Left

    def get(told: object) -> None:
        sink = FileSink(here / "file", job.id, b"file")
        try:
            get_file(client.service, job.id, b"file", sink, outage=Outage(), told=told)
        finally:
            sink.close()

    with pytest.raises(_Left):
        get(leave)
    (part,) = here.iterdir()
    size = part.stat().st_size
    assert 0 < size < len(data)
    came: list[int] = []
    get(came.append)
    assert sum(came) == len(data) - size
    assert (here / "file").read_bytes() == data
    # And another file of that name is not taken for it.
    data = random_file(there / "file", 1_000_000)
    get(came.append)
    assert (here / "file").read_bytes() == data
    assert os.listdir(here) == ["file"]


def test_what_has_gone_to_a_stream_is_not_taken_back(
    server: Server, client: Client, there: Path
) -> None:
    """A file that is another when the connection is back ends it; else it goes on."""
    data = random_file(there / "file", 3_000_000)
    job = job_in(client, there)
    with relay_to((server.host, PORT), cut_every=1_000_000) as relay:
        came = bytearray()
        with client_of(server, address=relay.address) as other:
            get_file(other.service, job.id, b"file", StreamSink(came.extend), outage=Outage())
        assert bytes(came) == data

        def change(data: bytes) -> None:
            if not came:
                (there / "new").write_bytes(b"x" * 3_000_000)
                (there / "new").rename(there / "file")
            came.extend(data)

        came.clear()
        with (
            client_of(server, address=relay.address) as other,
            pytest.raises(NotPossible, match="changed after a part of it had come"),
        ):
            get_file(other.service, job.id, b"file", StreamSink(change), outage=Outage())


def test_a_server_that_is_not_there_is_told_of_at_once(server: Server, here: Path) -> None:
    (here / "file").write_text("data")
    with client_of(server, address=f"{server.host}:1") as client:
        job = Job(client, "0" * 36)
        with pytest.raises(Unreachable):
            job.put(here / "file")
        with pytest.raises(Unreachable):
            job.get("file", here)
    assert os.listdir(here) == ["file"]
