"""jobworker.client against a real server: jobs, errors, and connections that break."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import jobworker.client
from jobworker.client import (
    AsyncClient,
    BadFile,
    Chunk,
    Client,
    ClientError,
    Gap,
    GaveUp,
    InvalidRequest,
    JobFailed,
    NoSuchJob,
    NotPossible,
    Refused,
    Unreachable,
)
from jobworker.client import errors as error_module
from jobworker.client.sync import Lines
from jobworker.proto import workerservice_pb2 as pb
from tests.support.relay import Relay, relay_to
from tests.support.server import PORT, Server
from tests.support.waiting import until

MANY = 40


def client_of(
    server: Server, user: str = "alice", address: str | None = None, **more: float
) -> Client:
    """A client of the server's, for a user; of another address where one is given."""
    files = server.users[user]
    return Client(
        address or server.address,
        ca=server.authority.certificate,
        cert=files.certificate,
        key=files.key,
        **more,
    )


@asynccontextmanager
async def async_client_of(server: Server, address: str | None = None) -> AsyncIterator[AsyncClient]:
    """The same for asyncio, as alice."""
    files = server.users["alice"]
    async with AsyncClient(
        address or server.address,
        ca=server.authority.certificate,
        cert=files.certificate,
        key=files.key,
    ) as client:
        yield client


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of alice's."""
    with client_of(server) as client:
        yield client


def test_what_is_public_is_there() -> None:
    assert sorted(jobworker.client.__all__) == sorted(jobworker.client._HOME)
    for name in jobworker.client.__all__:
        assert getattr(jobworker.client, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        jobworker.client.Nothing  # noqa: B018 - what it raises is what is asked


def test_bytes_stay_what_they_are(client: Client) -> None:
    data = bytes(range(256)) * 4096
    result = client.run("cat", input=data)
    assert result.stdout == data
    assert result.stderr == b""
    assert client.run("printf", "%s", b"\xff\xfe").stdout == b"\xff\xfe"


def test_a_start_is_told_what_it_wants(client: Client, tmp_path: Path) -> None:
    job = client.start(
        *("sh", "-c", 'echo "$WORD $PWD"; exec sleep 1000'),
        env={"WORD": "hëllo"},
        cwd=str(tmp_path),
        timeout=300,
        grace=0.1,
        tenant="team-a",
        request=pb.StartRequest(stopSignal=2),
    )
    assert next(iter(job.lines())) == f"hëllo {tmp_path}"
    status = job.status()
    assert (status.state, status.tenant, status.stop_signal) == ("running", "team-a", 2)
    assert status.request.timeoutSeconds == 300
    job.signal(10)
    assert job.wait().signal == 10
    job.remove()
    with pytest.raises(NoSuchJob):
        job.status()


def test_one_key_starts_one_job(client: Client) -> None:
    assert client.start("true", key="k-1").id == client.start("true", key="k-1").id
    assert client.start("true").id != client.start("true").id


def test_a_prefix_finds_a_job(client: Client) -> None:
    job = client.start("true")
    assert client.job(job.id[:-1]).id == job.id
    assert repr(client.job(job.id)) == f"Job({job.id!r})"


def test_jobs_are_listed(client: Client) -> None:
    job = client.start("sleep", "1000")
    assert job.id in {status.id for status in client.jobs(running=True)}
    assert list(client.jobs(owner="nobody")) == []
    job.stop(grace=0)
    assert job.id not in {status.id for status in client.jobs(running=True)}
    assert client.whoami().name == "alice"
    assert client.whoami().tenants == ("team-a",)


def test_a_wait_has_an_end(client: Client) -> None:
    job = client.start("sleep", "1000")
    with pytest.raises(TimeoutError, match=f"job {job.id} goes on after 0.1 s"):
        job.wait(timeout=0.1)
    job.stop(wait=False)
    assert job.wait(timeout=60).reason == "stopped"


def test_a_failure_is_raised_when_asked_for(client: Client) -> None:
    with pytest.raises(JobFailed, match=r"ended with 3 \(exited\)") as caught:
        client.run("sh", "-c", "echo why; exit 3", check=True)
    assert caught.value.result.stdout == b"why\n"
    assert client.run("false").status.exit_code == 1


def test_errors_are_a_family(server: Server, client: Client) -> None:
    with pytest.raises(NotPossible) as caught:
        client.start("no-such-program")
    assert caught.value.errno == "ENOENT"
    with pytest.raises(InvalidRequest):
        client.start("true", cwd="a\0b")
    with pytest.raises(InvalidRequest):
        client.start()
    with client_of(server, "bob") as bob, pytest.raises(Refused, match="policy"):
        bob.start("/bin/false")
    with pytest.raises(BadFile, match="cannot read the CA"):
        Client("x", ca="/nonexistent", cert="/nonexistent", key="/nonexistent")
    for error in vars(error_module).values():
        if isinstance(error, type):
            assert issubclass(error, ClientError)


def test_a_server_that_is_not_there_is_told_of_at_once(server: Server) -> None:
    with client_of(server, address=f"{server.host}:1") as client:
        with pytest.raises(Unreachable, match="nothing listens there"):
            client.whoami()
        with pytest.raises(ClientError):
            list(client.jobs())


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    """A way to the server that can be broken."""
    with relay_to((server.host, PORT)) as relay:
        yield relay


def test_calls_go_on_when_the_connection_is_back(server: Server, relay: Relay) -> None:
    notices: list[str] = []
    lost = threading.Event()

    def notice(sentence: str) -> None:
        notices.append(sentence)
        lost.set()

    files = server.users["alice"]
    with Client(
        relay.address,
        ca=server.authority.certificate,
        cert=files.certificate,
        key=files.key,
        notice=notice,
    ) as client:
        job = client.start("sh", "-c", "echo one; read line; echo $line", request=open_input())
        lines = iter(job.lines())
        assert next(lines) == "one"
        relay.sever()
        threading.Thread(target=lambda: lost.wait(60) and relay.restore(), daemon=True).start()
        job.send(b"two\n")
        assert list(lines) == ["two"]
        assert job.wait().exit_code == 0
    assert all("going on with" in sentence for sentence in notices)


def test_it_is_given_up_after_its_patience(server: Server, relay: Relay) -> None:
    with client_of(server, address=relay.address, patience=0.5) as client:
        job = client.start("sleep", "1000")
        relay.sever()
        with pytest.raises(GaveUp, match=f"the end of {job.id}"):
            job.wait()
    with client_of(server) as client:
        client.job(job.id).stop(grace=0)


def open_input() -> pb.StartRequest:
    """What a job whose stdin is open is started with."""
    return pb.StartRequest(input=pb.INPUT_MODE_OPEN)


def test_lines_of_two_streams_do_not_mix() -> None:
    lines = Lines()
    told = [
        *lines.of(Chunk(0, b"out ", "stdout")),
        *lines.of(Chunk(4, b"err\nmore", "stderr")),
        *lines.of(Gap(12, 5)),
        *lines.of(Chunk(17, memoryview(b"put\n\xff\n"), "stdout")),
        *lines.rest(),
    ]
    assert told == ["err", "out put", "\ufffd", "more"]


# -- asyncio -------------------------------------------------------------------------------


def test_asyncio_has_it_all(server: Server) -> None:
    async def main() -> None:
        async with async_client_of(server) as client:
            job = await client.start("sh", "-c", "echo a; echo b >&2; exec sleep 1000")
            assert [line async for line in taken(job.lines(), 2)] == ["a", "b"]
            with pytest.raises(TimeoutError):
                await job.wait(timeout=0.1)
            assert (await client.job(job.id[:-1])).id == job.id
            await job.signal(10)
            assert (await job.wait()).signal == 10
            assert await job.output("stderr") == b"b\n"
            assert job.id in {status.id async for status in client.jobs()}
            assert (await job.status()).ended
            await job.remove()
            with pytest.raises(NoSuchJob):
                await job.status()
            assert (await client.whoami()).name == "alice"
            with pytest.raises(JobFailed):
                await client.run("false", check=True)
            assert (await client.run("cat", input=b"x" * 100_000)).stdout == b"x" * 100_000

    asyncio.run(main())


async def taken(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    """So many of the lines, and no more."""
    for _ in range(count):
        yield await anext(lines)


def test_as_many_wait_and_follow_as_want_to(server: Server) -> None:
    """Calls took a thread each of a pool of six."""

    async def main() -> None:
        async with async_client_of(server) as client:
            jobs = [await client.start("cat", request=open_input()) for _ in range(MANY)]
            ends = [asyncio.ensure_future(job.wait()) for job in jobs]
            follows = [asyncio.ensure_future(first_line(job.lines())) for job in jobs]
            for job in reversed(jobs):
                await job.send(job.id.encode() + b"\n", end=True)
            assert await asyncio.gather(*follows) == [job.id for job in jobs]
            assert {status.exit_code for status in await asyncio.gather(*ends)} == {0}

    asyncio.run(main())


async def first_line(lines: AsyncIterator[str]) -> str:
    """The first of the lines."""
    async for line in lines:
        return line
    raise AssertionError("no line came")


def test_a_follower_that_is_cancelled_leaves_no_thread(server: Server) -> None:
    def following() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name.startswith("jobworker-f")]

    async def main() -> None:
        async with async_client_of(server) as client:
            job = await client.start("sleep", "1000")
            following_it = asyncio.ensure_future(first_line(job.lines()))
            waiting = asyncio.ensure_future(job.wait())
            while not following():
                await asyncio.sleep(0)
            following_it.cancel()
            waiting.cancel()
            ended = await asyncio.gather(following_it, waiting, return_exceptions=True)
            assert [type(one) for one in ended] == [asyncio.CancelledError] * 2
            await job.stop(grace=0)

    asyncio.run(main())
    until(lambda: not following())


def test_asyncio_goes_on_when_the_connection_is_back(server: Server, relay: Relay) -> None:
    async def main() -> None:
        async with async_client_of(server, relay.address) as client:
            job = await client.start("sh", "-c", "read line; echo $line", request=open_input())
            end = asyncio.ensure_future(job.wait())
            line = asyncio.ensure_future(first_line(job.lines()))
            await asyncio.sleep(0)
            relay.sever()
            relay.restore()
            await job.send(b"x\n")
            assert await line == "x"
            assert (await end).exit_code == 0

    asyncio.run(main())
