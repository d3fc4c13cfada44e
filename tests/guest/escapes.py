"""What a tenant's job might try against the service, the host and others, without isolation.

Each is tried as a job of alice's, whose jobs run as the Unix user alice.
"""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import psutil
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.guest.boot import USERS
from tests.guest.site import TRACE, Tenant, server_of_root, tenant
from tests.support.client import refused
from tests.support.file_systems import hanging_copy
from tests.support.server import Server
from tests.support.waiting import until

# Connects to each unix socket; the names of abstract ones begin with @.
CONNECT = r"""
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path.replace("@", "\0", 1))
        print("connected")
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_of_root("  start_seconds: 60\n") as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[Tenant]:
    with tenant(server, "alice") as person:
        yield person


@pytest.fixture
def bob(server: Server) -> Iterator[Tenant]:
    with tenant(server, "bob") as person:
        yield person


def service(server: Server, name: str) -> psutil.Process:
    """A process of the service by its title."""
    keeper = psutil.Process(server.process.pid)
    if name == "keeper":
        return keeper
    title = f"jobworker: {name}"
    return next(child for child in keeper.children() if child.cmdline()[:1] == [title])


@contextmanager
def directory_beside_state(server: Server, owner: str) -> Iterator[Path]:
    """A directory of a user's, on the file system that the state is on: hard links need that."""
    with TemporaryDirectory(dir=server.directory.parent) as name:
        os.chown(name, USERS[owner], USERS[owner])
        yield Path(name)


def test_a_job_is_its_user_and_nobody_else(alice: Tenant, bob: Tenant) -> None:
    ids = alice.run(
        "id -u; id -g; id -G; umask; pwd; grep -E '^(Uid|Gid|Cap|NoNew)' /proc/$$/status"
    )
    number = str(USERS["alice"])
    lines = ids.splitlines()
    assert lines[:5] == [number, number, number, "0022", "/home/alice"]
    status = dict(line.split(":\t") for line in lines[5:])
    assert set(status["Uid"].split() + status["Gid"].split()) == {number}
    assert {status[name] for name in ("CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    told = alice.status(alice.start("true"))
    assert (told.user, told.userShared) == ("alice", False)
    assert bob.run("id -un") == "bob\n"


def test_whoever_has_no_user_starts_nothing(server: Server) -> None:
    with tenant(server, "eve") as eve, refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        eve.start("true")
    assert "no Unix user is set for the jobs of eve (tenant team-e)" in words[0]


def test_root_is_no_user_for_jobs(server: Server) -> None:
    with tenant(server, "ruth") as ruth, refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        ruth.start("true")
    assert "the jobs of ruth would run as root" in words[0]


def test_setuid_programs_give_nothing(alice: Tenant) -> None:
    """Not even what this one gives to a process of alice's that is no job."""
    own = Path("/tmp/setuid-id")
    own.write_bytes(Path("/usr/bin/id").read_bytes())
    own.chmod(0o4755)
    outside = subprocess.run(
        [own, "-u"], user=USERS["alice"], capture_output=True, text=True, check=True
    )
    assert outside.stdout == "0\n"
    assert alice.run(f"{own} -u") == f"{USERS['alice']}\n"
    own.unlink()


def test_the_environment_is_the_jobs_own(server: Server, alice: Tenant) -> None:
    """Nothing of the administrator's is in it, and what a job sets concerns the job alone."""
    names = {line.partition("=")[0] for line in alice.run("env").splitlines()}
    expected = {"PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "JOBWORKER_JOB_ID", "PWD"}
    assert names == expected
    job = alice.start("id -u", environment={"LD_PRELOAD": "/home/alice/lib.so"})
    alice.wait(job)
    # Beside the complaints of ld.so(8), which come on another pipe.
    assert str(USERS["alice"]) in alice.output(job).splitlines()
    for name in ("keeper", "supervisor", "front"):
        assert "LD_PRELOAD" not in service(server, name).environ()


def test_descriptors_are_three(alice: Tenant) -> None:
    """`ls` opens one more, of what it lists."""
    assert alice.run("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    listing = alice.run("ls -l /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2")
    assert re.findall(r"-> (\S+?)(?::|$)", listing, re.MULTILINE) == ["/dev/null", "pipe", "pipe"]


def test_state_cannot_be_read_or_written(server: Server, alice: Tenant) -> None:
    state = server.directory / "state"
    alice.run("echo output")
    files = [path for path in state.rglob("*") if not path.is_dir()]
    assert {path.suffix for path in files} >= {".sqlite", ".json", ""}
    readable = [path for path in files if path.stat().st_mode & stat.S_IROTH]
    assert [path.name for path in readable] == ["openssl.cnf"]
    script = 'for f; do cat "$f" 2>/dev/null | head -c 1; echo x >> "$f"; done; touch ${1%/*}/new'
    secret = [str(path) for path in files if path not in readable]
    told = alice.run(f"({script}) 2>&1", *secret)
    assert told.count("ermission denied") == len(secret) + 1
    assert alice.run("ls $1 2>&1", str(state)).count("ermission denied") == 1


def test_links_cannot_be_planted_in_the_state(server: Server, alice: Tenant) -> None:
    """The service writes there as root: not where a link leads that a tenant has made."""
    alice.run("echo output")
    state = server.directory / "state"
    directories = [str(path) for path in (state, *state.rglob("*")) if path.is_dir()]
    assert len(directories) >= 3
    script = """
    echo mine > file
    for d; do ln -s /etc/passwd "$d/soft"; ln file "$d/hard"; mv file "$d/moved"; done 2>&1
    """
    with directory_beside_state(server, "alice") as own:
        told = alice.run(script, *directories, workingDirectory=str(own))
    assert told.count("ermission denied") == 3 * len(directories), told


def test_hard_links_to_the_state_give_nothing(server: Server, alice: Tenant) -> None:
    """Also on a host where anybody may make them (proc(5), protected_hardlinks)."""
    script = '(ln "$1" hard && echo linked; cat hard; echo x > hard) 2>&1'
    setting = Path("/proc/sys/fs/protected_hardlinks")
    before = setting.read_text()
    journal = str(server.directory / "state/journal.sqlite")
    with directory_beside_state(server, "alice") as own:
        setting.write_text("0")
        told = alice.run(script, journal, workingDirectory=str(own))
        assert told.splitlines()[0] == "linked"
        assert told.count("ermission denied") == 2, told
    with directory_beside_state(server, "alice") as own:
        setting.write_text("1")
        told = alice.run(script, journal, workingDirectory=str(own))
        assert "not permitted" in told.splitlines()[0]
    setting.write_text(before)


def test_links_in_the_working_directory_lead_to_nothing_new(
    server: Server, alice: Tenant, bob: Tenant
) -> None:
    """A directory is entered, and a program executed, as the job's user and not as root."""
    bob.run("chmod 700 ~; mkdir -p ~/private")
    journal = server.directory / "state/journal.sqlite"
    alice.run("ln -sfn /home/bob/private ~/link; ln -sfn $1 ~/program", str(journal))
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        alice.start("true", workingDirectory="/home/alice/link")
    assert "cannot change to directory /home/alice/link: Permission denied" in words[0]
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        alice.worker.Start(pb.StartRequest(commandName="/home/alice/program"))
    assert "Permission denied" in words[0]
    assert "ermission denied" in alice.run("cat ~/program 2>&1")


def test_proc_of_the_service_is_closed(server: Server, alice: Tenant) -> None:
    for name in ("keeper", "supervisor", "front"):
        proc = f"/proc/{service(server, name).pid}"
        script = "for f in environ mem maps fd/0 cwd/. root/. ; do cat $1/$f >/dev/null; done 2>&1"
        told = alice.run(script, proc)
        assert told.count("ermission denied") == 6, told


def test_tracing_and_signals_stop_at_the_user(server: Server, alice: Tenant, bob: Tenant) -> None:
    theirs = bob.started("echo ready; exec sleep 1000")
    targets = [service(server, name).pid for name in ("keeper", "supervisor", "front")]
    pids = [str(pid) for pid in (*targets, bob.status(theirs).pid)]
    mine = alice.started("echo ready; exec sleep 1000")
    told = alice.run(TRACE, *pids, str(alice.status(mine).pid))
    assert told == "Operation not permitted\n" * 4 + "traced\n"
    alice.stop(mine)
    told = alice.run('for p; do kill -9 "$p"; done 2>&1', *pids)
    assert told.count("not permitted") == 4
    bob.stop(theirs)


def test_a_process_on_its_way_to_a_program_is_closed_to_its_jobs_user(
    server: Server, alice: Tenant
) -> None:
    """It is alice's already, and still has the memory of a process of root's."""
    mine = alice.started("echo ready; exec sleep 1000")
    script = "cd /proc/$1 && { cat environ maps mem; ls fd/ cwd/ root/; } 2>&1 >/dev/null"

    def on_their_way() -> list[int]:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        alices = [one.pid for one in processes if one.uids().real == USERS["alice"]]
        return [pid for pid in alices if pid != alice.status(mine).pid]

    with hanging_copy(Path("/srv/hanging"), "/usr/bin/true") as program:
        starting = alice.worker.Start.future(pb.StartRequest(commandName=program.name))
        until(lambda: len(on_their_way()) == 1)
        assert alice.run(script, str(on_their_way()[0])).count("ermission denied") == 6
        program.release()
        assert starting.result().success
    assert "ermission denied" not in alice.run(script, str(alice.status(mine).pid))
    alice.stop(mine)


def test_the_front_is_a_user_without_rights(server: Server) -> None:
    front = service(server, "front")
    number = USERS["jobfront"]
    assert set(front.uids()) == set(front.gids()) == {number}
    status = Path(f"/proc/{front.pid}/status").read_text()
    assert re.search(r"CapEff:\t0{16}\n", status)
    assert re.search(r"NoNewPrivs:\t1\n", status)
    assert service(server, "supervisor").uids().real == 0


def test_the_front_reads_output_and_not_the_journal(server: Server, alice: Tenant) -> None:
    job = alice.start("echo hello")
    assert alice.output(job) == "hello\n"
    state = server.directory / "state"
    data = next(path for path in (state / "output" / job).iterdir())
    assert (data.stat().st_uid, data.stat().st_gid) == (0, USERS["jobfront"])
    assert not data.stat().st_mode & (stat.S_IWGRP | stat.S_IRWXO)
    assert not (state / "journal.sqlite").stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def test_sockets_of_the_front_are_closed(server: Server, alice: Tenant) -> None:
    """Its socket by path, and every abstract one (unix(7)) that there is."""
    # A call, so that there is a connection, with an abstract name of its own.
    alice.run("true")
    words = Path("/proc/net/unix").read_text().split()
    abstract = [word for word in words if word.startswith("@")]
    assert abstract
    backend = str(server.directory / "state/front/grpc.sock")
    job = alice.worker.Start(
        pb.StartRequest(commandName=sys.executable, Arguments=["-c", CONNECT, backend, *abstract])
    ).jobID
    assert alice.wait(job).exitCode == 0
    told = ["Permission denied"] + ["Connection refused"] * len(abstract)
    assert alice.output(job).splitlines() == told


def test_cgroups_cannot_be_written(alice: Tenant) -> None:
    script = """
    own=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
    for f in $own/cgroup.procs $own/memory.max $own/../cgroup.procs /sys/fs/cgroup/cgroup.procs
    do echo 0 > $f; done 2>&1
    mkdir $own/below 2>&1
    """
    assert alice.run(script).count("ermission denied") == 5


def test_no_core_dumps(alice: Tenant) -> None:
    """Whatever it was that had the memory: a dump would be a file of it."""
    job = alice.start("ulimit -c; ulimit -Hc; cd ~; ulimit -c unlimited; kill -SEGV $$")
    ended = alice.wait(job)
    assert (ended.exitCode, ended.signal) == (139, 11)
    assert alice.output(job).splitlines()[:2] == ["0", "0"]
    assert alice.run("ls ~ | grep -c core").strip() == "0"


def test_others_homes_and_files(alice: Tenant, bob: Tenant) -> None:
    bob.run("chmod 700 ~; echo secret > ~/diary")
    assert "ermission denied" in alice.run("cat /home/bob/diary 2>&1")
    assert os.stat("/home/bob/diary").st_uid == USERS["bob"]
