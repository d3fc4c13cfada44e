"""Porters: whole files or none, beneath the job's directory alone, as its user."""

import asyncio
import hashlib
import os
import socket
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.errors import (
    CannotPlace,
    Exhausted,
    FileChanged,
    FileRefused,
    NoSuchFile,
    SupervisorError,
    SupervisorUnavailable,
)
from jobworker.supervisor.host.users import Account
from jobworker.supervisor.porter import porter as program
from jobworker.supervisor.porter import porters
from jobworker.supervisor.porter.carriage import Carriage, Found, Parcel, Sent, Stored
from jobworker.supervisor.porter.places import Place, Places
from jobworker.supervisor.porter.porters import Porters
from tests.support.file_systems import small_file_system
from tests.support.library import eventually, running

SECONDS = 60.0
STRANGER = Account("stranger", 54321, 54321, (54321,), "/nonexistent", "")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="to be another user takes root")


def new_porters() -> Porters:
    return Porters(Places(SupervisorConfig(state_dir="/nonexistent")))


def place(root: Path, **changes: object) -> Place:
    """A job's directory of this user's."""
    return Place(None, ((str(root), "/"),), 0, 0)._replace(**changes)


@asynccontextmanager
async def carrying(
    where: Place, *, put: bool, made: Porters | None = None
) -> AsyncIterator[Carriage]:
    connection = (made or new_porters()).start(where, None, put=put)
    carriage = await Carriage.over(connection)
    try:
        async with asyncio.timeout(SECONDS):
            yield carriage
    finally:
        carriage.close()


def parcel(path: str, data: bytes, mode: int = 0o644, name: str = "source") -> Parcel:
    digest = hashlib.sha256(data).hexdigest()
    return Parcel(os.fsencode(path), os.fsencode(name), mode, len(data), digest)


async def put_in(where: Place, what: Parcel, data: bytes) -> tuple[int, Stored]:
    """Where it was gone on from, and what became of it."""
    async with carrying(where, put=True) as carriage:
        offset = await carriage.begin_put(what)
        for begin in range(offset, len(data), 100_000):
            await carriage.carry(data[begin : begin + 100_000])
        return offset, await carriage.end_put()


async def got_from(
    where: Place, path: str, offset: int = 0, version: str = ""
) -> tuple[Found, bytes, Sent]:
    async with carrying(where, put=False) as carriage:
        found = await carriage.begin_get(os.fsencode(path), offset, version)
        pieces: list[bytes] = []
        async for piece in carriage.pieces():
            if isinstance(piece, Sent):
                return found, b"".join(pieces), piece
            pieces.append(piece)
    raise AssertionError("it never said that this was all")


def put(where: Place, path: str, data: bytes = b"data", **how: object) -> tuple[int, Stored]:
    return asyncio.run(put_in(where, parcel(path, data, **how), data))


def get(where: Place, path: str, offset: int = 0, version: str = "") -> tuple[Found, bytes, Sent]:
    return asyncio.run(got_from(where, path, offset, version))


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


# -- whole files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
def test_a_file_goes_in_and_comes_out_with_its_mode(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    digest = hashlib.sha256(data).hexdigest()
    assert put(place(tmp_path), "a b", data, mode=0o640) == (0, Stored(size, digest))
    file = tmp_path / "a b"
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (data, 0o640)
    found, came, sent = get(place(tmp_path), "a b")
    assert (found.size, found.mode, found.offset) == (size, 0o640, 0)
    assert (came, sent) == (data, Sent(digest, changed=False))
    assert names(tmp_path) == ["a b"]


def test_what_is_there_is_replaced_and_no_bit_but_of_permission_is_set(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_bytes(b"before")
    before = file.open("rb")
    put(place(tmp_path), "program", b"after", mode=0o6755)
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"after", 0o755)
    with before:
        # Who has it open reads on what it was.
        assert before.read() == b"before"


def test_a_directory_takes_it_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    odd = os.fsdecode(b"\xff\n")
    for path in ("into", "into/", f"{tmp_path}/into/."):
        put(place(tmp_path), path, b"x", name=odd)
        assert names(tmp_path / "into") == [odd]
    put(place(tmp_path), "", b"x")
    assert names(tmp_path) == ["into", "source"]
    assert get(place(tmp_path), f"into/{odd}")[1] == b"x"


def test_a_program_can_be_executed_as_soon_as_it_is_there(tmp_path: Path) -> None:
    """It was open to be written for a moment more: Text file busy."""
    for _ in range(10):
        put(place(tmp_path), "program", b"#!/bin/sh\n", mode=0o755)
        subprocess.run([tmp_path / "program"], check=True)


def test_it_goes_on_where_it_was_left(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)

    async def leave() -> None:
        async with carrying(place(tmp_path), put=True) as carriage:
            assert await carriage.begin_put(parcel("file", data)) == 0
            await carriage.carry(data[:400_000])
            (part,) = (tmp_path / name for name in names(tmp_path))
            assert part.name.startswith(".file.jobworker-part-")
            written = lambda: part.stat().st_size == 400_000  # noqa: E731
            await asyncio.to_thread(eventually, "what was sent is written", written)

    asyncio.run(leave())
    # Another file of that name begins anew.
    assert put(place(tmp_path), "file", b"another")[0] == 0
    assert put(place(tmp_path), "file", data)[0] == 400_000
    assert (tmp_path / "file").read_bytes() == data
    assert names(tmp_path) == ["file"]


def test_what_comes_otherwise_than_it_was_to_is_not_kept(tmp_path: Path) -> None:
    what = parcel("file", b"data")
    for sent in (b"dat", b"dota", b"data!"):
        with pytest.raises(FileChanged):
            asyncio.run(put_in(place(tmp_path), what, sent))
        assert names(tmp_path) == []


def test_a_part_that_somebody_has_changed_is_not_taken_for_it(tmp_path: Path) -> None:
    what = parcel("file", b"data")
    (tmp_path / os.fsdecode(program.part_name(b"file", what.sha256))).write_bytes(b"do")
    with pytest.raises(FileChanged):
        put(place(tmp_path), "file")
    assert put(place(tmp_path), "file")[0] == 0


def test_a_get_goes_on_where_it_was_unless_the_file_is_another(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    version = get(place(tmp_path), "file")[0].version
    found, came, sent = get(place(tmp_path), "file", 4, version)
    assert (found.offset, came) == (4, b"456789")
    assert sent.sha256 == hashlib.sha256(b"0123456789").hexdigest()
    file.write_bytes(b"9876543210")
    found, came, _ = get(place(tmp_path), "file", 4, version)
    assert (found.offset, came) == (0, b"9876543210")


def test_a_put_that_is_left_makes_way_for_the_next(tmp_path: Path) -> None:
    """Two of the same at once: the second waits for the first to be gone."""
    data = b"data" * 1000

    async def scenario() -> None:
        async with carrying(place(tmp_path), put=True) as first:
            await first.begin_put(parcel("file", data))
            await first.carry(data[:100])
            async with carrying(place(tmp_path), put=True) as second:
                begun = asyncio.ensure_future(second.begin_put(parcel("file", data)))
                await asyncio.sleep(0)
                first.close()
                await second.carry(data[await begun :])
                await second.end_put()

    asyncio.run(scenario())
    assert (tmp_path / "file").read_bytes() == data


def test_a_porter_that_is_killed_is_told_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = set(psutil.Process().children())
        async with carrying(place(tmp_path), put=True) as carriage:
            await carriage.begin_put(parcel("file", b"data"))
            (made,) = set(psutil.Process().children()) - before
            made.kill()
            with pytest.raises(SupervisorUnavailable):
                await carriage.end_put()

    asyncio.run(scenario())
    assert put(place(tmp_path), "file")[1].bytes == 4


# -- beneath the directory alone -----------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What is beside the job's directory, which is `job`, with links to it in there."""
    for name in ("job", "job/inner", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    job = tmp_path / "job"
    (job / "out").symlink_to(tmp_path / "outside")
    (job / "up").symlink_to("..")
    (job / "file").symlink_to("../outside/secret")
    (job / "dangling").symlink_to("../outside/new")
    (job / "within").symlink_to("inner")
    (job / "magic").symlink_to(f"/proc/{os.getpid()}/cwd")
    return tmp_path / "outside"


WAYS = ("out/secret", "up/outside/secret", "../outside/secret", "inner/../../outside/secret")
ABSOLUTE = ("/etc/shadow", "{job}/../outside/secret", "{job}/out/secret", "{job}x/secret")


def refusal(attempt: Callable[[], object]) -> SupervisorError:
    with pytest.raises(SupervisorError) as refused:
        attempt()
    return refused.value


@pytest.mark.parametrize("way", [*WAYS, *ABSOLUTE, "file", "magic/secret"])
def test_nothing_outside_is_got(outside: Path, way: str) -> None:
    job = outside.parent / "job"
    error = refusal(lambda: get(place(job), way.format(job=job)))
    assert isinstance(error, FileRefused)
    assert "leads out of the job's directory" in str(error)


@pytest.mark.parametrize("way", [*WAYS, *ABSOLUTE, "file", "dangling", "out", "up", "magic/secret"])
def test_nothing_is_put_outside(outside: Path, way: str) -> None:
    job = outside.parent / "job"
    before = names(job)
    error = refusal(lambda: put(place(job), way.format(job=job), b"overwritten"))
    assert isinstance(error, FileRefused | NoSuchFile)
    assert names(outside) == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    assert names(job) == before


def test_links_that_stay_within_are_followed(outside: Path) -> None:
    job = outside.parent / "job"
    put(place(job), "within/new", b"data")
    assert (job / "inner/new").read_bytes() == b"data"
    (job / "to new").symlink_to("within/new")
    assert get(place(job), "to new")[1] == b"data"
    assert refusal(lambda: put(place(job), "to new")).args[0].startswith("to new is a link")


def test_a_part_is_written_through_no_link(outside: Path) -> None:
    job = outside.parent / "job"
    part = os.fsdecode(program.part_name(b"new", parcel("new", b"data").sha256))
    (job / part).symlink_to(outside / "secret")
    assert isinstance(refusal(lambda: put(place(job), "new")), FileRefused)
    (job / part).unlink()
    os.link(outside / "secret", job / part)
    assert isinstance(refusal(lambda: put(place(job), "new")), FileRefused)
    assert (outside / "secret").read_text() == "secret"


def test_a_directory_that_becomes_a_link_meanwhile(outside: Path) -> None:
    """Whoever swaps one for the other wins nothing."""
    job = outside.parent / "job"
    (job / "real").mkdir()
    (job / "link").symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        names = ["real", "link"]
        while not over.is_set():
            for name in names:
                (job / name).rename(job / "way")
                (job / "way").rename(job / name)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(20):
            try:
                put(place(job), "way/new")
            except (NoSuchFile, FileRefused):
                continue
    finally:
        over.set()
        thread.join()
    assert names(outside) == ["secret"]


def test_regular_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/source").mkdir()
    for path, what in (("fifo", "a FIFO"), ("directory", "a directory")):
        error = refusal(lambda path=path: get(place(tmp_path), path))
        assert (type(error), what in str(error)) == (NoSuchFile, True)
    for path in ("fifo", "directory", "fifo/below", "absent/below", "absent/"):
        assert isinstance(refusal(lambda path=path: put(place(tmp_path), path)), NoSuchFile)
    for path in ("null", "zero"):
        error = refusal(lambda path=path: get(place(Path("/dev")), path))
        assert "a device" in str(error)
    for path in ("absent", "", ".", "..", "x" * 300, "a\0b"):
        assert isinstance(
            refusal(lambda path=path: get(place(tmp_path), path)),
            NoSuchFile | FileRefused,
        )


# -- as whom, and how much -----------------------------------------------------------------------


@as_root
def test_it_is_the_jobs_user_who_reads_and_writes(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o711)
    job = tmp_path / "job"
    job.mkdir()
    os.chown(job, STRANGER.uid, STRANGER.gid)
    theirs = place(job, account=STRANGER)
    put(theirs, "file", b"data", mode=0o600)
    found = (job / "file").stat()
    assert (found.st_uid, found.st_gid) == (STRANGER.uid, STRANGER.gid)
    (job / "shadow").write_text("root's")
    (job / "shadow").chmod(0o600)
    assert isinstance(refusal(lambda: get(theirs, "shadow")), FileRefused)
    etc = place(Path("/etc"), account=STRANGER)
    assert isinstance(refusal(lambda: get(etc, "shadow")), FileRefused)
    assert isinstance(refusal(lambda: put(etc, "new")), FileRefused)


@as_root
def test_nobody_of_the_jobs_user_looks_into_it(tmp_path: Path) -> None:
    """Another process of that user has no way into a porter, by ptrace(2) or /proc."""

    async def scenario() -> None:
        before = set(psutil.Process().children())
        async with carrying(place(tmp_path, account=STRANGER), put=False) as carriage:
            (made,) = set(psutil.Process().children()) - before
            asking = asyncio.ensure_future(carriage.begin_get(b"absent", 0, ""))
            with pytest.raises(SupervisorError):
                await asking
            assert Path(f"/proc/{made.pid}/mem").stat().st_uid == 0

    asyncio.run(scenario())


def test_the_disk_keeps_what_is_to_stay_free(tmp_path: Path) -> None:
    full = place(tmp_path, min_free=2**62)
    assert "4 bytes more do not fit" in str(refusal(lambda: put(full, "file")))
    most = place(tmp_path, most=3)
    error = refusal(lambda: put(most, "file"))
    assert (type(error), "more than the 3" in str(error)) == (Exhausted, True)
    assert names(tmp_path) == []
    assert put(full, "empty", b"")[1].bytes == 0


def test_so_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(porters, "MOST_OF_A_USER", 1)
    made = new_porters()

    async def scenario() -> None:
        async with carrying(place(tmp_path), put=False, made=made):
            with pytest.raises(Exhausted):
                made.start(place(tmp_path), None, put=False)
            if os.geteuid() == 0:
                made.start(place(tmp_path, account=STRANGER), None, put=False).close()
        async with asyncio.timeout(SECONDS):
            while made._running.total():
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


HUGE = program.HEAD.pack(program.DATA, 2**32 - 1)


@pytest.mark.parametrize(
    "said",
    [
        HUGE,
        program.HEAD.pack(program.JSON, 2**20),
        b"",
        b"J\0",
        *(
            program.HEAD.pack(kind, len(payload)) + payload
            for kind, payload in (
                (b"?", b"{}"),
                (program.DATA, b"data"),
                (program.JSON, b"no json"),
                (program.JSON, b'{"size": -1}'),
                (program.JSON, b'{"size": "1", "mode": 0, "offset": 0, "version": ""}'),
                (program.JSON, b'{"size": -1, "mode": 0, "offset": 0, "version": ""}'),
                (program.JSON, b'{"size": 1, "mode": 4095, "offset": 0, "version": ""}'),
                (program.JSON, b"\xff"),
                (program.FAILED, b"{}"),
                (program.FAILED, b'{"kind": 1, "message": ""}'),
            )
        ),
    ],
)
def test_what_a_porter_says_is_not_believed(said: bytes) -> None:
    """It runs as a tenant's user."""

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            carriage = await Carriage.over(ours)
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(SECONDS):
                with pytest.raises((CannotPlace, SupervisorUnavailable)):
                    await carriage.begin_get(b"file", 0, "")
            carriage.close()

    asyncio.run(scenario())


def test_a_disk_that_is_full_is_told_of_and_freed(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", "1m") as small:
        data = b"x" * 2_000_000
        assert isinstance(refusal(lambda: put(place(small), "file", data)), Exhausted)
        # What was there to fit when it began may have been taken meanwhile.
        data = b"x" * 900_000

        async def scenario() -> None:
            async with carrying(place(small), put=True) as carriage:
                await carriage.begin_put(parcel("file", data))
                (small / "others").write_bytes(b"y" * 500_000)
                await carriage.carry(data)
                with pytest.raises(Exhausted, match="no space left"):
                    await carriage.end_put()

        asyncio.run(scenario())
        assert names(small) == ["others"]
        below = psutil.Process().children
        eventually("the porters have gone", lambda: not any(running(one.pid) for one in below()))


def test_a_porter_that_nobody_waits_for_ends_in_the_middle(tmp_path: Path) -> None:
    """Who asks for the end of a large file, and goes, has not had it read all the same."""
    with (tmp_path / "file").open("wb") as file:
        file.truncate(2**42)

    async def scenario() -> None:
        made = new_porters()
        async with carrying(place(tmp_path), put=False, made=made) as carriage:
            version = (await carriage.begin_get(b"file", 0, "")).version
        async with carrying(place(tmp_path), put=False, made=made) as carriage:
            assert (await carriage.begin_get(b"file", 2**42 - 1, version)).offset == 2**42 - 1
        async with asyncio.timeout(SECONDS):
            while made._running.total():
                await asyncio.sleep(0.01)

    asyncio.run(scenario())
