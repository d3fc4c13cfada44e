"""Starting jobs: what a program finds, how it ends, and what comes of one that cannot run."""

import asyncio
import errno
import json
import os
import pwd
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uuid_utils

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    AsyncJob,
    AsyncJobWorker,
    CannotExecute,
    CannotPlace,
    Chunk,
    InvalidRequest,
    Job,
    JobSnapshot,
    Limits,
    NoSuchJob,
    Reason,
    State,
    SupervisorUnavailable,
)
from jobworker.supervisor.config import BASE_ENVIRONMENT
from tests.support.file_systems import Hanging
from tests.support.library import DEADLINE_SECONDS, Site

# Signals that do not end a process by default (signal(7)).
HARMLESS = {
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
}
DEADLY = sorted(set(signal.Signals) - HARMLESS)
# Says which descriptors are open: the listing's own is closed by then.
OPEN_DESCRIPTORS = """
import json, os
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
print(json.dumps([n for n in map(int, os.listdir("/proc/self/fd")) if is_open(n)]))
"""


def output(job: Job) -> bytes:
    """All output of a job, which is complete."""
    pieces = list(job.output())
    assert all(isinstance(piece, Chunk) for piece in pieces)
    return b"".join(piece.data for piece in pieces if isinstance(piece, Chunk))


def on_record(site: Site) -> int:
    """How many jobs the journal has, once nobody has it open."""
    with sqlite3.connect(site.state / "journal.sqlite") as database:
        (count,) = database.execute("SELECT count(*) FROM job").fetchone()
    database.close()
    return int(count)


# -- how jobs end ----------------------------------------------------------------------


def test_every_exit_code_is_told(site: Site) -> None:
    with site.worker() as worker:
        jobs = [worker.start(["sh", "-c", f"exit {code}"]) for code in range(256)]
        for code, job in enumerate(jobs):
            status = job.wait()
            assert (status.exit_code, status.exit_status, status.signal) == (code, code, 0)
            assert (status.state, status.reason) == (State.ENDED, Reason.EXITED)


def test_every_deadly_signal_is_told_as_a_shell_would(site: Site) -> None:
    with site.worker() as worker:
        jobs = {
            number: worker.start(["sh", "-c", f"ulimit -c 0; kill -{number} $$; sleep 60"])
            for number in DEADLY
        }
        for number, job in jobs.items():
            status = job.wait()
            assert (status.exit_code, status.signal) == (128 + number, number)
            assert status.reason is Reason.SIGNALED


def test_times_are_those_of_the_job(site: Site) -> None:
    with site.worker() as worker:
        before = time.time_ns()
        status = worker.start(["sleep", "0.2"]).wait()
        after = time.time_ns()
    assert before <= status.created_ns < status.ended_ns <= after
    assert status.ended_ns - status.created_ns >= 190_000_000


def test_a_job_is_found_again_by_a_later_worker(site: Site) -> None:
    with site.worker() as worker:
        job = worker.start(["sh", "-c", "echo out; exit 5"])
        assert output(job) == b"out\n"
        status = job.wait()
    with site.worker() as worker:
        again = worker.job(job.id)
        assert replace(again.wait(), gone=True) == replace(status, gone=True)
        assert output(again) == b"out\n"
        assert [found.id for found in worker.list()] == [job.id]


# -- what a program finds ----------------------------------------------------------------


def test_the_environment_is_what_is_allowed_and_no_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the service")
    monkeypatch.setenv("LD_PRELOAD", "")
    with site.worker() as worker:
        job = worker.start(["env", "-0"], env={"EXTRA": "1\n2", "LANG": "C"})
        variables = dict(line.split(b"=", 1) for line in output(job).split(b"\0") if line)
    wanted = {**BASE_ENVIRONMENT, "LANG": "C", "EXTRA": "1\n2", "JOBWORKER_JOB_ID": job.id}
    wanted |= own_variables()
    assert variables == {name.encode(): text.encode() for name, text in wanted.items()}


def test_the_environment_that_jobs_inherit_is_a_setting(site: Site) -> None:
    with site.worker(environment={"PATH": "/bin", "A": "b"}) as worker:
        job = worker.start(["env"])
        wanted = {**own_variables(), "PATH": "/bin", "A": "b", "JOBWORKER_JOB_ID": job.id}
        lines = output(job).decode().splitlines()
        assert sorted(lines) == sorted(f"{name}={text}" for name, text in wanted.items())


def test_a_job_has_the_variables_of_its_user(site: Site) -> None:
    """Without users of their own, jobs had no HOME, USER, LOGNAME and SHELL."""
    with site.worker() as worker:
        job = worker.start(["sh", "-c", 'cd; echo "$HOME $PWD $USER $LOGNAME $SHELL"'])
        own = own_variables()
        assert output(job).decode().split() == [
            own["HOME"],
            own["HOME"],
            own["USER"],
            own["LOGNAME"],
            own["SHELL"],
        ]
        mine = worker.start(["sh", "-c", 'echo "$HOME"'], env={"HOME": "/elsewhere"})
        assert output(mine) == b"/elsewhere\n"
    with site.worker(environment={"PATH": "/bin:/usr/bin", "HOME": "/srv"}) as worker:
        assert output(worker.start(["sh", "-c", 'echo "$HOME"'])) == b"/srv\n"


def test_a_private_job_finds_a_home_of_its_own(site: Site) -> None:
    if not Path("/usr/bin/bwrap").exists():
        pytest.skip("needs bubblewrap")
    with site.worker(isolation={"profile": "private"}) as worker:
        job = worker.start(["sh", "-c", "cd && pwd && ls -A"])
        assert output(job).decode() == f"{own_variables()['HOME']}\n"


def test_open_files_are_limited_as_they_were_for_the_server(site: Site) -> None:
    """The keeper raised its own soft limit, and all jobs had that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(soft, hard - 1, 700)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        with site.worker() as worker:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            job = worker.start(["sh", "-c", "ulimit -Sn; ulimit -Hn"])
            assert [int(line) for line in output(job).split()] == [lower, hard]
            site.signal_supervisor()
            again = worker.start(["sh", "-c", "ulimit -Sn; ulimit -Hn"])
            assert [int(line) for line in output(again).split()] == [lower, hard]
            asked = worker.start(["sh", "-c", "ulimit -Sn"], limits=Limits(open_files=lower + 1))
            assert output(asked) == f"{lower + 1}\n".encode()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def own_variables() -> dict[str, str]:
    """What login(1) would set for whom the tests run as."""
    me = pwd.getpwuid(os.geteuid())
    names = {"USER": me.pw_name, "LOGNAME": me.pw_name}
    return {**names, "HOME": me.pw_dir, "SHELL": me.pw_shell or "/bin/sh"}


def test_a_program_is_looked_up_on_the_jobs_own_path(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    with site.worker() as worker:
        found = worker.start(["only-here"], env={"PATH": f"/nowhere:{tmp_path}:/bin"})
        assert output(found) == b"found\n"
        with pytest.raises(CannotExecute):
            worker.start(["only-here"])


def test_the_working_directory_is_the_one_asked_for(site: Site, tmp_path: Path) -> None:
    with site.worker(working_directory="/usr") as worker:
        assert output(worker.start(["pwd", "-P"])) == b"/usr\n"
        assert output(worker.start(["pwd", "-P"], cwd=str(tmp_path))) == f"{tmp_path}\n".encode()


def test_arguments_arrive_as_they_were_given(site: Site) -> None:
    arguments = [
        "",
        " ",
        "*",
        "$HOME",
        "a\nb",
        "'\"",
        "\\",
        "-n",
        "é\u4e2d\U0001f680",
        "x" * 100_000,
    ]
    with site.worker() as worker:
        job = worker.start(
            [sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *arguments]
        )
        assert json.loads(output(job)) == arguments


SAY_BYTES = "import os, sys; os.write(1, b'|'.join(map(os.fsencode, sys.argv[1:])))"


def test_bytes_arrive_as_they_were_given(site: Site, tmp_path: Path) -> None:
    odd = [bytes(range(1, 256)), b"\xff", "\u00fc".encode("latin-1"), b"\xed\xa0\x80"]
    texts = [os.fsdecode(text) for text in odd]
    place = tmp_path / os.fsdecode(b"\xfc")
    place.mkdir()
    with site.worker() as worker:
        job = worker.start([sys.executable, "-c", SAY_BYTES, *texts], cwd=str(place))
        assert output(job) == b"|".join(odd)
        # From the record, as a supervisor that comes after has it.
        site.signal_supervisor()
        again = job.status()
        assert again.argv[3:] == tuple(texts)
        assert again.cwd == str(place)
        env = worker.start(["env", "-0"], env={"a.b-c": os.fsdecode(b"\xff"), "%\udcfe": ""})
        assert {b"a.b-c=\xff", b"%\xfe="} <= set(output(env).split(b"\0"))
    with site.worker() as worker:
        assert worker.job(job.id).status() == again


@pytest.mark.parametrize("name", ["", "a=b", "\0"])
def test_what_is_no_variable(site: Site, name: str) -> None:
    with site.worker() as worker, pytest.raises(InvalidRequest):
        worker.start(["true"], env={name: "x"})


def test_an_isolated_job_is_told_what_bubblewrap_does_not_take(site: Site) -> None:
    if not Path("/usr/bin/bwrap").exists():
        pytest.skip("needs bubblewrap")
    with site.worker(isolation={"profile": "private"}) as worker:
        job = worker.start(
            ["sh", "-c", 'printf "%s" $# "$X"', "x", *["y"] * 7000], env={"X": "\udcff"}
        )
        assert output(job) == b"7000\xff"
        with pytest.raises(CannotPlace, match="8000 arguments at most"):
            worker.start(["true", *["y"] * 9000])


def test_only_the_three_standard_descriptors_are_open(site: Site) -> None:
    with site.worker() as worker:
        # The second finds those of the first in the supervisor and in the keeper.
        idle = worker.start(["sleep", "60"])
        job = worker.start([sys.executable, "-SEc", OPEN_DESCRIPTORS])
        assert json.loads(output(job)) == [0, 1, 2]
        links = worker.start(["readlink", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"])
        null, stdout, stderr = output(links).split()
        assert null == b"/dev/null"
        assert stdout.startswith(b"pipe:")
        assert stderr.startswith(b"pipe:")
        assert stdout != stderr
        idle.stop()


PROGRAM_WITH_SIGNALS_CHANGED = """
import signal, sys
from jobworker.supervisor import JobWorker
from jobworker.supervisor.keeper.signals import system_action
for number in (32, 33):
    system_action(number, signal.SIG_IGN)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
with JobWorker(sys.argv[1], cgroup=sys.argv[2]) as worker:
    job = worker.start(["cat", "/proc/self/status"])
    for chunk in job.output():
        sys.stdout.buffer.write(chunk.data)
"""


def test_signals_are_at_their_defaults_whatever_the_program_made_of_its_own(site: Site) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM_WITH_SIGNALS_CHANGED, str(site.state), site.cgroup],
        stdout=subprocess.PIPE,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    fields = dict(line.split(b":\t", 1) for line in done.stdout.splitlines() if b":\t" in line)
    for name in (b"SigBlk", b"SigIgn", b"SigCgt", b"SigPnd", b"ShdPnd"):
        assert int(fields[name], 16) == 0, name


def test_it_leads_a_session_of_its_own_without_a_terminal(site: Site) -> None:
    with site.worker() as worker:
        job = worker.start(["cat", "/proc/self/stat"])
        fields = output(job).rpartition(b")")[2].split()
        pid = str(job.status().pid).encode()
    group, session, terminal = fields[2:5]
    assert (group, session, terminal) == (pid, pid, b"0")


def test_umask_and_scheduling_are_as_the_settings_say(site: Site) -> None:
    with site.worker(umask=0o027) as worker:
        assert output(worker.start(["sh", "-c", "umask"])) == b"0027\n"
        fields = output(worker.start(["cat", "/proc/self/stat"])).rpartition(b")")[2].split()
    # policy, the 41st field: SCHED_OTHER.
    assert fields[38] == b"0"


def test_it_is_in_a_cgroup_of_its_own(site: Site) -> None:
    if site.cgroup == "off":
        pytest.skip("needs a cgroup")
    with site.worker() as worker:
        one, other = (output(worker.start(["cat", "/proc/self/cgroup"])) for _ in range(2))
    assert b"/jobworker-" in one
    assert one != other


# -- what cannot be executed ---------------------------------------------------------------


@contextmanager
def _made(tmp_path: Path) -> Iterator[dict[str, tuple[list[str], str | None, int]]]:
    """Starts that must fail: (argv, cwd, errno)."""
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"\x01\x02\x03")
    rubbish.chmod(0o755)
    orphan = tmp_path / "orphan"
    orphan.write_text("#!/no/such/interpreter\n")
    orphan.chmod(0o755)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    busy = tmp_path / "busy"
    shutil.copy("/bin/true", busy)
    with busy.open("r+b"):
        yield {
            "no such path": (["/no/such/program"], None, errno.ENOENT),
            "not on PATH": (["no-such-program"], None, errno.ENOENT),
            "no interpreter": ([str(orphan)], None, errno.ENOENT),
            "not executable": ([str(plain)], None, errno.EACCES),
            "a directory": ([str(tmp_path)], None, errno.EACCES),
            "no program format": ([str(rubbish)], None, errno.ENOEXEC),
            "below a file": ([f"{plain}/x"], None, errno.ENOTDIR),
            "a loop": ([str(loop)], None, errno.ELOOP),
            "a long name": (["/" + "x" * 300], None, errno.ENAMETOOLONG),
            "open for writing": ([str(busy)], None, errno.ETXTBSY),
            "too long an argument": (["/bin/true", "x" * 200_000], None, errno.E2BIG),
            "cwd is no directory": (["/bin/true"], str(plain), errno.ENOTDIR),
            "cwd is not there": (["/bin/true"], "/no/such/directory", errno.ENOENT),
        }


def test_a_start_that_fails_says_why_and_leaves_no_job(site: Site, tmp_path: Path) -> None:
    with _made(tmp_path) as starts, site.worker() as worker:
        for name, (argv, cwd, number) in starts.items():
            with pytest.raises(CannotExecute) as raised:
                worker.start(argv, cwd=cwd)
            assert raised.value.errno == number, name
            assert raised.value.program is (cwd is None), name
            assert os.strerror(number) in str(raised.value), name
            assert errno.errorcode[number] in str(raised.value), name
            # What could not be used is named, as far as a sentence can.
            assert (cwd or argv[0])[:50] in str(raised.value), name
        assert worker.list() == []
        assert list((site.state / "output").iterdir()) == []
        # After it, a start works as ever, and fails as ever.
        assert worker.start(["true"]).wait().exit_code == 0
    assert on_record(site) == 1


@pytest.mark.parametrize(
    ("argv", "env", "cwd"),
    [
        ([], {}, None),
        ([""], {}, None),
        (["a\0b"], {}, None),
        (["true"], {"A": "b\0c"}, None),
        (["true"], {"A=B": "c"}, None),
        (["true"], {"": "c"}, None),
        (["true"], {"JOBWORKER_JOB_ID": "mine"}, None),
        (["true"], {}, "x" * 5000),
        (["true"], {}, "/\0"),
        (["true", *["x" * 100_000] * 70], {}, None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_makes_no_sense_is_refused(
    site: Site, argv: list[str], env: dict[str, str], cwd: str | None
) -> None:
    with site.worker() as worker:
        with pytest.raises(InvalidRequest):
            worker.start(argv, env=env, cwd=cwd)
        assert worker.list() == []


# -- one start, one job --------------------------------------------------------------------


def request(argv: list[str], job_id: str | None = None, request_id: str = "") -> ipc.Start:
    """A start as a client of the supervisor sends it."""
    return ipc.Start(
        id=job_id or str(uuid_utils.uuid7()),
        owner="someone",
        request=pb.StartRequest(
            rawArguments=map(os.fsencode, argv), graceSeconds=5, requestID=request_id
        ),
    )


async def start(worker: AsyncJobWorker, asked: ipc.Start) -> JobSnapshot:
    """Send a start of our own making."""
    return await worker.client.start(asked)


def test_a_start_repeated_under_its_job_id_runs_once(site: Site, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    async def scenario() -> None:
        async with site.async_worker() as worker:
            asked = request(["sh", "-c", f"echo x >> {ran}; sleep 60"])
            at_once = await asyncio.gather(*(start(worker, asked) for _ in range(20)))
            later = await start(worker, asked)
            assert {job.pid for job in [*at_once, later]} == {later.pid}
            await worker.job(asked.id).stop(0)
            ended = await start(worker, asked)
            assert (ended.id, ended.state) == (asked.id, State.ENDED)
            assert len(await worker.list()) == 1

    asyncio.run(scenario())
    assert ran.read_text() == "x\n"


def test_a_start_repeated_under_its_request_id_runs_once(site: Site, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    argv = ["sh", "-c", f"echo x >> {ran}"]

    async def scenario() -> None:
        async with site.async_worker() as worker:
            at_once = await asyncio.gather(
                *(start(worker, request(argv, request_id="mine")) for _ in range(20))
            )
            later = await start(worker, request(argv, request_id="mine"))
            assert {job.id for job in [*at_once, later]} == {later.id}
            await worker.job(later.id).wait()
            other = request(argv, request_id="mine")
            other.owner = "another"
            assert (await start(worker, other)).id != later.id
            await worker.job(other.id).wait()

    asyncio.run(scenario())
    assert ran.read_text() == "x\nx\n"


def test_a_job_id_is_its_owners_alone(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            asked = request(["sleep", "60"])
            await start(worker, asked)
            asked.owner = "another"
            with pytest.raises(InvalidRequest, match="taken"):
                await start(worker, asked)
            both = [request(["true"]) for _ in range(2)]
            both[1].id, both[1].owner = both[0].id, "another"
            results = await asyncio.gather(
                *(start(worker, one) for one in both), return_exceptions=True
            )
            assert {type(result) for result in results} == {JobSnapshot, InvalidRequest}

    asyncio.run(scenario())


def test_a_start_that_failed_may_be_repeated(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "later"

    async def scenario() -> None:
        async with site.async_worker() as worker:
            asked = request([str(program)], request_id="again")
            failures = await asyncio.gather(
                *(start(worker, asked) for _ in range(10)), return_exceptions=True
            )
            assert all(isinstance(failure, CannotExecute) for failure in failures), failures
            program.write_text("#!/bin/sh\nexit 4\n")
            program.chmod(0o755)
            await start(worker, asked)
            assert (await worker.job(asked.id).wait()).exit_code == 4

    asyncio.run(scenario())


def test_many_failing_starts_with_one_id_all_hear_why(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            asked = request(["/no/such/program"], request_id="again")

            async def repeat() -> None:
                for _ in range(30):
                    with pytest.raises(CannotExecute):
                        await start(worker, asked)

            await asyncio.gather(*(repeat() for _ in range(10)))
            assert await worker.list() == []

    asyncio.run(scenario())


def test_hundreds_of_starts_at_once(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            jobs = await asyncio.gather(
                *(worker.start(["sh", "-c", f"echo {n}; exit {n % 256}"]) for n in range(300))
            )
            for number, job in enumerate(jobs):
                assert (await job.wait()).exit_code == number % 256
                pieces = [piece async for piece in job.output()]
                assert b"".join(piece.data for piece in pieces if isinstance(piece, Chunk)) == (
                    f"{number}\n".encode()
                )
            pids = [(await job.status()).pid for job in jobs]
            assert len(set(pids)) == len(pids)

    asyncio.run(scenario())


# -- programs that hang in execve(2) ---------------------------------------------------------


async def start_of(worker: AsyncJobWorker, program: str) -> tuple[str, "asyncio.Task[AsyncJob]"]:
    """Start a program that hangs: its job's ID, once it is on record, and the start."""
    starting = asyncio.ensure_future(worker.start([program]))
    while not (found := await worker.list()):
        await asyncio.sleep(0)
    assert found[0].state is State.STARTING
    return found[0].id, starting


def test_a_program_that_hangs_in_execve_delays_nobody(site: Site, hanging: Hanging) -> None:
    async def scenario() -> None:
        async with site.async_worker(start_seconds=1000) as worker:
            _, starting = await start_of(worker, hanging.name)
            for _ in range(3):
                await (await worker.start(["true"])).wait()
            assert not starting.done()
            hanging.release()
            await (await starting).wait()

    asyncio.run(scenario())


def test_a_program_that_hangs_in_execve_fails_in_time(site: Site, hanging: Hanging) -> None:
    async def scenario() -> None:
        async with site.async_worker(start_seconds=0.5) as worker:
            began = time.monotonic()
            starting = asyncio.ensure_future(worker.start([hanging.name]))
            with pytest.raises(CannotExecute, match=f"{hanging.name}.* 0.5 s") as raised:
                await starting
            assert time.monotonic() - began >= 0.5
            assert raised.value.errno == errno.ETIMEDOUT
            assert await worker.list() == []

    asyncio.run(scenario())


def test_a_program_that_hangs_for_a_while_starts_at_last(site: Site, hanging: Hanging) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            _, starting = await start_of(worker, hanging.name)
            hanging.release()
            job = await starting
            assert (await job.wait()).exit_code == 0

    asyncio.run(scenario())


def test_a_start_that_is_repeated_while_it_hangs_is_one(site: Site, hanging: Hanging) -> None:
    async def scenario() -> None:
        async with site.async_worker() as worker:
            asked = request([hanging.name])
            starts = [asyncio.ensure_future(start(worker, asked)) for _ in range(5)]
            while not await worker.list():
                await asyncio.sleep(0)
            starts += [asyncio.ensure_future(start(worker, asked)) for _ in range(5)]
            await worker.list()
            hanging.release()
            assert len({job.pid for job in await asyncio.gather(*starts)}) == 1

    asyncio.run(scenario())


def test_who_watches_a_job_that_never_starts_hears_so(site: Site, hanging: Hanging) -> None:
    async def scenario() -> None:
        async with site.async_worker(start_seconds=1.0) as worker:
            job_id, starting = await start_of(worker, hanging.name)
            job = worker.job(job_id)
            watching = [asyncio.ensure_future(do()) for do in (job.wait, job.stop)]
            with pytest.raises(CannotExecute):
                await starting
            for watched in watching:
                with pytest.raises(NoSuchJob):
                    await watched
            with pytest.raises(NoSuchJob):
                await anext(job.output())

    asyncio.run(scenario())


def test_a_worker_ends_in_time_with_a_start_that_hangs(site: Site, hanging: Hanging) -> None:
    async def scenario() -> None:
        async with site.async_worker(start_seconds=60) as worker:
            _, starting = await start_of(worker, hanging.name)
            began = time.monotonic()
        with pytest.raises((SupervisorUnavailable, CannotExecute)):
            await starting
        assert time.monotonic() - began < 30

    asyncio.run(scenario())
