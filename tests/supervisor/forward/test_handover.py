"""Descriptors handed over beside the pipe: once, for a token, to who may come for them."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobworker.supervisor.ipc import handover
from jobworker.supervisor.ipc.handover import NAME, Handovers, collect


@asynccontextmanager
async def offering(directory: Path, readers: int = -1) -> AsyncIterator[Handovers]:
    made = Handovers(asyncio.get_running_loop(), directory, readers)
    try:
        yield made
    finally:
        made.close()


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def closed() -> Iterator[None]:
    """Nothing is left open."""
    before = opened()
    yield
    assert opened() == before


def pipe_with(text: bytes) -> int:
    """The end of a pipe to read from, with something in it."""
    read, write = os.pipe()
    os.write(write, text)
    os.close(write)
    return read


def read_and_close(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("depth", [0, 10])
def test_what_is_offered_is_come_for_once(tmp_path: Path, closed: None, depth: int) -> None:
    # Longer than an address of a unix socket may be.
    directory = tmp_path.joinpath(*["x" * 20] * depth)
    directory.mkdir(parents=True, exist_ok=True)

    async def scenario() -> None:
        async with offering(directory) as made:
            tokens = [made.offer(pipe_with(f"{number}".encode())) for number in range(3)]
            for number in (1, 2, 0):
                got = await asyncio.to_thread(collect, directory, tokens[number])
                assert read_and_close(got) == f"{number}".encode()
                with pytest.raises(OSError, match="gone"):
                    await asyncio.to_thread(collect, directory, tokens[number])

    asyncio.run(scenario())


def test_nobody_guesses(tmp_path: Path, closed: None) -> None:
    async def scenario() -> None:
        async with offering(tmp_path) as made:
            token = made.offer(pipe_with(b"secret"))
            assert len(token) == 64
            for wrong in ("", "0" * 64, token[:-1], token + "0", "x" * 10_000):
                with pytest.raises(OSError, match="gone"):
                    await asyncio.to_thread(collect, tmp_path, wrong)
            got = await asyncio.to_thread(collect, tmp_path, token)
            assert read_and_close(got) == b"secret"

    asyncio.run(scenario())


@pytest.mark.parametrize("said", [b"", b"\0", b"\xff" * 100, b"[]", b"x" * 10_000])
def test_nonsense_ends_the_connection_and_nothing_else(
    tmp_path: Path, closed: None, said: bytes
) -> None:
    async def scenario() -> None:
        async with offering(tmp_path) as made:
            token = made.offer(pipe_with(b"secret"))
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.connect(str(tmp_path / NAME))
                client.setblocking(False)
                if said:
                    socket.send_fds(client, [said], [0])
                else:
                    client.shutdown(socket.SHUT_WR)
                assert await asyncio.get_running_loop().sock_recv(client, 10) == b""
            got = await asyncio.to_thread(collect, tmp_path, token)
            assert read_and_close(got) == b"secret"

    asyncio.run(scenario())


def test_what_nobody_comes_for_is_let_go(
    tmp_path: Path, closed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "OFFER_SECONDS", 0.05)

    async def scenario() -> None:
        async with offering(tmp_path) as made:
            read, write = os.pipe()
            made.offer(read)
            async with asyncio.timeout(60):
                while True:
                    try:
                        os.write(write, b"!")
                    except BrokenPipeError:
                        break
                    await asyncio.sleep(0.01)
            os.close(write)

    asyncio.run(scenario())


def test_who_says_nothing_keeps_nobody_out_for_long(
    tmp_path: Path, closed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_MOST_WAITING", 3)

    async def scenario() -> None:
        async with offering(tmp_path) as made:
            token = made.offer(pipe_with(b"secret"))
            silent = []
            for _ in range(3):
                client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                client.connect(str(tmp_path / NAME))
                silent.append(client)
            await asyncio.sleep(0)
            with pytest.raises(OSError, match=r"gone|reset|Broken"):
                await asyncio.to_thread(collect, tmp_path, token)
            for client in silent:
                client.close()
            async with asyncio.timeout(60):
                while True:
                    try:
                        got = await asyncio.to_thread(collect, tmp_path, token)
                    except OSError:
                        continue
                    assert read_and_close(got) == b"secret"
                    break

    asyncio.run(scenario())


def test_only_the_readers_may_connect(tmp_path: Path, closed: None) -> None:
    readers = os.getgid()

    async def scenario() -> None:
        async with offering(tmp_path, readers) as made:
            made.offer(pipe_with(b"secret"))
            status = (tmp_path / NAME).stat()
            assert stat.S_IMODE(status.st_mode) == 0o660
            assert (status.st_uid, status.st_gid) == (os.geteuid(), readers)

    asyncio.run(scenario())


def test_the_next_supervisor_takes_its_place(tmp_path: Path, closed: None) -> None:
    async def scenario() -> None:
        async with offering(tmp_path) as first:
            first.offer(pipe_with(b"lost"))
            async with offering(tmp_path) as second:
                token = second.offer(pipe_with(b"found"))
                got = await asyncio.to_thread(collect, tmp_path, token)
                assert read_and_close(got) == b"found"

    asyncio.run(scenario())
