"""`jobworker admin`: root on the host may always list, stop, drain and count; it is recorded."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.authz.audit.files import files_of
from jobworker.grpc_api.admin.caller import ask
from jobworker.grpc_api.admin.desk import Peer, peer_of
from jobworker.grpc_api.errors import AdminRefused
from jobworker.proto import admin_pb2
from tests.front.test_front_killed import front_of
from tests.support.server import Server, running_server, serving
from tests.support.waiting import until

# Nobody may do anything but start what is their own: not even stop it.
POLICY = 'rules:\n  - {allow: start, to: "cn:*", jobs: "{ou}/{cn}"}\n'
USERS = (("alice", "team-a"), ("bob", "team-b"), ("eve", "team-a"))
GAMES = 60
FAILED, USAGE, REFUSED, UNREACHABLE = 1, 2, 4, 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    with running_server(directory, USERS, POLICY, "audit: {directory: audit}\n") as running:
        yield running


def admin(server: Server, command: str, *words: str, code: int = 0) -> str:
    """What `jobworker admin COMMAND` prints, which takes no certificate; on stderr if it fails."""
    config = str(server.directory / "server.yaml")
    done = server.run("bob", "admin", command, "--config", config, *words)
    assert done.returncode == code, done.stderr.decode()
    return (done.stderr if code else done.stdout).decode()


def audited(server: Server, action: str) -> list[dict[str, object]]:
    """What stands in the audit log of an action."""
    lines = b"".join(file.read_bytes() for file in files_of(server.directory / "audit"))
    events = [json.loads(line)["event"] for line in lines.splitlines()]
    return [event for event in events if event.get("action") == action]


def start(server: Server, user: str, *words: str) -> str:
    return server.ask(user, "start", "--", *(words or ("sleep", "1000")))


def test_everybodys_jobs_are_listed(server: Server) -> None:
    """Once bob's certificate was revoked nobody could see his jobs, under any policy but root's."""
    jobs = {user: start(server, user) for user in ("alice", "bob", "eve")}
    assert server.run("alice", "status", jobs["bob"]).returncode != 0
    lines = admin(server, "list", "--running").splitlines()
    assert lines[0].split() == ["JOB", "OWNER", "TENANT", "AGE", "STATE", "COMMAND"]
    assert {line.split()[0] for line in lines[1:]} == {job[-8:] for job in jobs.values()}
    of_a = admin(server, "list", "--tenant", "team-a", "-o", "json").splitlines()
    assert {json.loads(line)["owner"] for line in of_a} == {"alice", "eve"}
    assert len(admin(server, "list", "-n", "1", "-o", "json").splitlines()) == 1
    who = audited(server, "admin list")[0]
    assert (who["allowed"], who["job"], who["command"]) == (True, "", "*/*")
    assert str(who["peer"]).startswith(f"unix:uid={os.geteuid()},pid=")
    admin(server, "stop", "--owner", "bob", "--owner", "", *jobs.values())


def test_jobs_are_stopped_by_owner_and_by_tenant(server: Server) -> None:
    bobs = [start(server, "bob") for _ in range(2)]
    # It does not heed SIGTERM.
    stubborn = start(server, "eve", "sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done")
    alices = start(server, "alice")
    stopped = admin(server, "stop", "--owner", "bob").split()
    assert sorted(stopped) == sorted(bobs)
    running = [json.loads(line)["id"] for line in listed(server)]
    assert sorted(running) == sorted([stubborn, alices])
    (job,) = admin(
        server, "stop", "--tenant", "team-a", "--owner", "eve", "--grace", "0", "-o", "json"
    ).splitlines()
    assert (json.loads(job)["id"], json.loads(job)["signal"]) == (stubborn, signal.SIGKILL)
    assert admin(server, "stop", alices[:20]).split() == [alices]
    assert listed(server) == []
    assert {event["job"] for event in audited(server, "admin stop")} >= {*bobs, stubborn, alices}
    assert {event["owner"] for event in audited(server, "admin stop")} >= {"alice", "bob", "eve"}
    assert admin(server, "stop", "--owner", "bob") == ""


def test_a_job_is_stopped_by_the_end_of_its_id_and_by_its_name(server: Server) -> None:
    jobs = [start(server, "bob"), server.ask("bob", "start", "--name", "by-name", "sleep", "1000")]
    stopped = admin(server, "stop", "--grace", "0", jobs[0][-8:], "bob/by-name").split()
    assert sorted(stopped) == sorted(jobs)


def listed(server: Server) -> list[str]:
    return admin(server, "list", "--running", "-o", "json").splitlines()


def test_what_begins_several_ids_lists_them(server: Server) -> None:
    """There were said to be several, and no more; and an empty word was the only job there was."""
    jobs = [start(server, "bob", "true") for _ in range(2)]
    said = admin(server, "stop", jobs[0][:4], code=FAILED)
    assert all(job in said for job in jobs)
    alone = start(server, "alice")
    admin(server, "stop", "", code=FAILED)
    assert [json.loads(line)["id"] for line in listed(server)] == [alone]
    admin(server, "stop", alone)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["stop"], USAGE, "say which jobs: JOB, --owner or --tenant"),
        (["stop", "0190-nonesuch"], FAILED, "'0190-nonesuch' is no job"),
        (["stop", "nonesuch"], FAILED, "or OWNER/NAME"),
        (["stop", "bob/nonesuch"], FAILED, "there is no job bob/nonesuch"),
        (["stop", "ffffffff"], FAILED, "there is no job ffffffff"),
        (["stop", ""], FAILED, "'' is no job: give its ID, 4 characters or more"),
        (["stop", "019"], FAILED, "'019' is no job: give its ID, 4 characters or more"),
        (["stop", "--owner", "*"], FAILED, "owner"),
        (["drain", ""], FAILED, "say why in 1 to 500 characters"),
        (["drain", "x" * 501], FAILED, "say why in 1 to 500 characters"),
        (["drain", "--off", "x"], USAGE, "--off takes no words"),
        (["list", "--config", "/nonesuch"], USAGE, "cannot read /nonesuch"),
        (["lst"], USAGE, "did you mean 'list'?"),
    ],
)
def test_what_means_nothing_is_refused(
    server: Server, words: list[str], code: int, said: str
) -> None:
    if words[0] == "lst":
        assert said in server.run("bob", "admin", "lst").stderr.decode()
        return
    assert said in admin(server, *words, code=code)
    assert admin(server, "drain") == "jobs are started\n"


def test_a_drained_server_starts_nothing_new_and_says_why(server: Server) -> None:
    """There was nothing between serving and stopping every job."""
    running = start(server, "alice")
    first = server.run("alice", "start", "--request-id", "k1", "--", "sleep", "1000")
    words = "the disk is replaced, until 18:00"
    assert admin(server, "drain", words) == f"no new jobs are started: {words}\n"
    for command in ("start", "run"):
        refused = server.run("alice", command, "--", "true")
        assert f"the server starts no new jobs: {words}" in refused.stderr.decode()
    assert words in server.run("alice", "can-i", "start", "--", "true").stdout.decode()
    # What was started before goes on, and is found again.
    again = server.run("alice", "start", "--request-id", "k1", "--", "sleep", "1000")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert json.loads(admin(server, "drain", "-o", "json")) == {"drained": True, "words": words}
    assert running in "".join(listed(server))
    assert audited(server, "admin drain")[0]["command"] == words
    # Over a new front, too.
    config = str(server.directory / "server.yaml")
    assert server.run("bob", "serve", "--upgrade", "--config", config).returncode == 0
    assert words in server.run("alice", "start", "--", "true").stderr.decode()
    assert admin(server, "drain", "--off") == "jobs are started\n"
    server.ask("alice", "start", "--", "true")
    admin(server, "stop", "--tenant", "team-a")


def test_usage_by_tenant(server: Server) -> None:
    before = {one["tenant"]: one for one in map(json.loads, usage(server))}
    writes = "head -c 100000 /dev/zero; exec sleep 1000"
    start(server, "bob", "sh", "-c", writes)
    start(server, "bob", "sh", "-c", writes)
    job = start(server, "alice")
    until_written(server, 200_000 + before.get("team-b", {"output_bytes": 0})["output_bytes"])
    now = {one["tenant"]: one for one in map(json.loads, usage(server))}
    assert now["team-b"]["running"] == 2
    assert now["team-b"]["disk_bytes"] >= 200_000
    assert now["team-b"]["memory_bytes"] > 0
    assert now["team-a"]["running"] == 1
    assert now["team-a"]["jobs"] == before.get("team-a", {"jobs": 0})["jobs"] + 1
    lines = admin(server, "usage").splitlines()
    assert lines[0].split() == [
        *("TENANT", "JOBS", "RUNNING", "PROCESSES", "CPU", "MEMORY", "OUTPUT", "DISK")
    ]
    assert [line.split()[0] for line in lines[1:]] == sorted(now)
    assert audited(server, "admin usage")
    admin(server, "stop", "--owner", "bob")
    admin(server, "stop", job)


def usage(server: Server) -> list[str]:
    return admin(server, "usage", "-o", "json").splitlines()


def until_written(server: Server, size: int) -> None:
    def written() -> bool:
        found = {one["tenant"]: one for one in map(json.loads, usage(server))}
        return int(found["team-b"]["output_bytes"]) >= size

    until(written)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nobody_else_may(server: Server) -> None:
    """The kernel says who has connected; the directory is closed to them as well."""
    runtime = server.directory / "state" / "front"
    way = [runtime, *runtime.parents]
    modes = {path: path.stat().st_mode for path in way}
    request = admin_pb2.Request(usage=admin_pb2.Usage())
    # What nobody may do, in a process of theirs.
    assert as_games(lambda: list(ask(runtime, request))) == "AdminRefused"
    try:
        for path in way:
            path.chmod(modes[path] | 0o055)
        (runtime / "admin.sock").chmod(0o666)
        said = as_games(lambda: list(ask(runtime, request)), words=True)
    finally:
        for path in way:
            path.chmod(modes[path])
    assert said == "only root may, or the service's user; you are games"
    refused = audited(server, "admin usage")[-1]
    assert (refused["cn"], refused["allowed"]) == ("games", False)


def as_games(act: object, *, words: bool = False) -> str:
    """The name, or the words, of the refusal that a process of another user's meets."""
    assert callable(act)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(GAMES, GAMES, GAMES)
            os.setresuid(5, 5, 5)
            act()
        except AdminRefused as error:
            os.write(writing, (str(error) if words else type(error).__name__).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    os.waitpid(pid, 0)
    return said


def test_the_kernel_tells_who_it_is() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_of(one) == Peer(os.getpid(), os.geteuid(), os.getegid())


def test_what_is_no_request_ends_the_connection_alone(server: Server) -> None:
    path = server.directory / "state" / "front" / "admin.sock"
    for data in (b"", b"\0\0\0\4nons", b"\xff\xff\xff\xff", b"\0\0\0\0"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(60)
            while sock.recv(65536):
                pass
    assert admin(server, "drain") == "jobs are started\n"


def test_a_front_that_was_killed_is_waited_for(server: Server) -> None:
    front_of(server).kill()
    assert admin(server, "drain") == "jobs are started\n"


def test_without_a_server(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY) as server:
        admin(server, "drain", "for good")
    assert "no server answers on" in admin(server, "list", code=UNREACHABLE)
    with serving(tmp_path / "server.yaml"):
        assert admin(server, "drain") == "no new jobs are started: for good\n"
