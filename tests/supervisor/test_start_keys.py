"""One key, one start: repeated it is the same job, with something else it is refused."""

import asyncio
import json
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
import uuid_utils

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import AsyncJobWorker, CannotExecute, JobSnapshot, KeyTaken
from jobworker.supervisor.job import Request, Waiting
from jobworker.supervisor.journal import start_keys
from jobworker.supervisor.journal.start_keys import differences, fingerprint
from tests.support.file_systems import Hanging
from tests.support.library import Site


def start(*argv: str, key: str = "nightly", owner: str = "someone", **others: object) -> ipc.Start:
    """A start as a client of the supervisor sends it."""
    asked = {
        "rawArguments": [word.encode() for word in argv],
        "graceSeconds": 5,
        "requestID": key,
        **others,
    }
    return ipc.Start(id=str(uuid_utils.uuid7()), owner=owner, request=pb.StartRequest(**asked))


async def ended(worker: AsyncJobWorker, asked: ipc.Start) -> JobSnapshot:
    """The job, once it may be removed."""
    job = await worker.client.start(asked)
    async with worker.client.watch(job.id) as watched:
        return await watched.until(lambda job: job.ended and job.output_complete)


@pytest.mark.parametrize(
    ("waiting", "digest"),
    [(Waiting(), "37804e22d57debdc"), (Waiting("gpu", 5, 60.0), "7d576d8fa5bd0c42")],
)
def test_a_start_may_be_repeated_across_an_upgrade(waiting: Waiting, digest: str) -> None:
    """What later versions ask beside, and this one does not, is no other queue."""
    asked = json.loads(fingerprint(Request("", "a", "", ("true",), waiting=waiting)))
    assert asked["waiting"] == digest
    after = replace(waiting, after=("0" * 8,))
    other = fingerprint(Request("", "a", "", ("true",), waiting=after))
    assert differences(json.dumps(asked), other) == ["queue"]


OTHERS: dict[str, dict[str, object]] = {
    "environment": {"rawEnvironment": [pb.RawVariable(name=b"A", value=b"b")]},
    "working directory": {"rawWorkingDirectory": b"/tmp"},
    "grace period": {"graceSeconds": 6},
    "limits": {"timeoutSeconds": 100},
    "output limit": {"outputLimit": pb.OutputLimit(bytes=65536)},
    "tenant": {"tenant": "team-b"},
    "way to stop": {"stopSignal": signal.SIGINT},
}


def test_something_else_under_the_key_is_refused(site: Site) -> None:
    """The same request ID with another command answered with the old job."""

    async def scenario() -> None:
        async with site.async_worker() as worker:
            first = await ended(worker, start("echo", "one"))
            assert (await worker.client.start(start("echo", "one"))).id == first.id
            with pytest.raises(KeyTaken) as raised:
                await worker.client.start(start("echo", "two"))
            assert str(raised.value) == (
                f"the request ID nightly has started job {first.id} with another command "
                "(echo one): use another request ID, or repeat that start as it was"
            )
            for name, fields in OTHERS.items():
                with pytest.raises(KeyTaken, match=f"with another {name}: "):
                    await worker.client.start(start("echo", "one", **fields))
            with pytest.raises(KeyTaken, match="another command, grace period and limits"):
                await worker.client.start(start("a", graceSeconds=1, timeoutSeconds=2))
            refusal, _ = await worker.client.may_start(start("echo", "two"))
            assert refusal.startswith("the request")
            assert await worker.client.may_start(start("echo", "one")) == ("", "")
            assert len(await worker.list()) == 1
            # Another's key is another key.
            theirs = await worker.client.start(start("echo", "two", owner="somebody-else"))
            assert theirs.id != first.id

    asyncio.run(scenario())


def test_a_start_in_progress_is_told_apart_too(site: Site, hanging: Hanging) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            asked = start(hanging.name)
            first = asyncio.ensure_future(worker.client.start(asked))
            # It has been sent when it waits.
            await asyncio.sleep(0)
            with pytest.raises(KeyTaken, match="with another command"):
                await worker.client.start(start("echo", "two"))
            hanging.release()
            assert (await first).id == asked.id

    asyncio.run(scenario())


@pytest.mark.parametrize("crash", [False, True])
def test_the_key_of_a_removed_job_is_known(site: Site, crash: bool) -> None:
    """After `rm` the same request started a second job."""

    async def scenario() -> None:
        async with site.async_worker() as worker:
            first = await ended(worker, start("echo", "one"))
            removal = asyncio.ensure_future(worker.client.remove(first.id))
            # In the same turn, as likely as not.
            with pytest.raises(KeyTaken, match="has been removed since"):
                await asyncio.gather(removal, worker.client.start(start("echo", "one")))
            await removal
            if crash:
                site.signal_supervisor()
            with pytest.raises(KeyTaken) as raised:
                await worker.client.start(start("echo", "one"))
            assert str(raised.value) == (
                f"the request ID nightly has started job {first.id}, which has been removed "
                "since: it starts nothing again within a day, use another request ID"
            )
            with pytest.raises(KeyTaken, match="with another command, which has been removed"):
                await worker.client.start(start("echo", "two"))
            assert await worker.list() == []
            await ended(worker, start("echo", "one", key="another"))
            await ended(worker, start("echo", "one", key=""))

    asyncio.run(scenario())


def test_after_a_day_it_is_free(site: Site) -> None:
    async def once(worker: AsyncJobWorker) -> str:
        job = await ended(worker, start("echo", "one"))
        await worker.client.remove(job.id)
        return job.id

    async def scenario() -> str:
        async with site.async_worker() as worker:
            return await once(worker)

    first = asyncio.run(scenario())
    day_ns = int(start_keys.KNOWN_SECONDS * 1e9)
    with closing(sqlite3.connect(site.state / "journal.sqlite")) as database:
        database.execute("UPDATE start_key SET created_ns = created_ns - ?", (day_ns,))
        database.commit()
    assert asyncio.run(scenario()) != first
    with closing(sqlite3.connect(site.state / "journal.sqlite")) as database:
        # The old one has gone from the table.
        assert database.execute("SELECT count(*) FROM start_key").fetchone() == (1,)


def test_a_start_that_failed_takes_no_key(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            for _ in range(2):
                with pytest.raises(CannotExecute):
                    await worker.client.start(start("/nowhere"))
            assert (await ended(worker, start("true"))).exit_code == 0

    asyncio.run(scenario())


# -- what differs --------------------------------------------------------------------------


def request(**fields: object) -> Request:
    return Request(**{"id": "1", "owner": "a", "tenant": "", "argv": ("x",), **fields})


def test_a_fingerprint_tells_nothing_but_what_differs() -> None:
    secret = fingerprint(request(environment={"TOKEN": "secret"}))
    assert "secret" not in secret
    assert "TOKEN" not in secret
    assert differences(secret, fingerprint(request())) == ["environment"]
    assert differences(secret, fingerprint(request(id="2", environment={"TOKEN": "secret"}))) == []
    assert fingerprint(request(argv=("\udcff",))) != fingerprint(request(argv=("\ufffd",)))


def test_what_only_one_version_knows_does_not_differ() -> None:
    assert differences('{"argv": "1", "later": "2"}', '{"argv": "1", "earlier": "3"}') == []
    assert differences("", '{"argv": "1"}') == []


def test_a_job_of_an_older_version_is_compared_as_far_as_it_goes() -> None:
    known = request(cwd="/resolved", grace=1.0)
    asked = request(id="2", request_id="k")
    start_keys.check_same(known, request(asked=fingerprint(asked)))
    with pytest.raises(KeyTaken, match="another command"):
        start_keys.check_same(known, request(asked=fingerprint(request(argv=("y",)))))
