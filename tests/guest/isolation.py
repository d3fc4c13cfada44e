"""The profile `private`: a job that sees its own processes, files and network alone."""

import os
import shutil
import signal
import stat
from collections.abc import Iterator

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.guest.site import TRACE, Tenant, server_of_root, tenant
from tests.support.client import refused
from tests.support.server import Server

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="needs bubblewrap: apt install bubblewrap"
)
ISOLATION = """\
  isolation:
    tenants:
      team-a: {profile: private, devices: ["/dev/gpu*"]}
"""
# Of the guest's kernel, and read by whoever may open it (hw_random.rst).
HARDWARE_RANDOM = os.makedev(10, 183)
HIDDEN_FILE = "/home/bob/diary"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_of_root(ISOLATION) as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[Tenant]:
    """Someone whose jobs must be private."""
    with tenant(server, "alice") as person:
        yield person


@pytest.fixture
def bob(server: Server) -> Iterator[Tenant]:
    """Someone whose jobs need not be."""
    with tenant(server, "bob") as person:
        yield person


def test_files_of_others_are_not_there(alice: Tenant, bob: Tenant) -> None:
    """Not even those that anybody may read."""
    assert bob.run(f"umask 0; chmod 755 ~; echo secret > {HIDDEN_FILE}; cat ~/diary") == "secret\n"
    assert "No such file" in alice.run(f"cat {HIDDEN_FILE} 2>&1")
    assert bob.run("echo draft > /tmp/draft; ls /tmp/draft") == "/tmp/draft\n"
    assert alice.run("ls -A /tmp /var/tmp /run /home; echo $?").split() == [
        "/home:",
        "alice",
        "/run:",
        "/tmp:",
        "/var/tmp:",
        "0",
    ]


def test_the_state_of_the_service_is_not_there(server: Server, alice: Tenant) -> None:
    assert alice.run("ls -A $1; echo $?", str(server.directory / "state")) == "0\n"


def test_processes_of_others_are_not_there(alice: Tenant, bob: Tenant) -> None:
    job = bob.started("echo ready; exec sleep 1000")
    pid = str(bob.status(job).pid)
    count, seen = alice.run("ls /proc | grep -c '^[0-9]'; ls -d /proc/$1 2>&1", pid).splitlines()
    # Its own: process 1 of bubblewrap, and what it runs.
    assert int(count) <= 5
    assert "No such file" in seen
    assert "No such process" in alice.run("kill -0 $1 2>&1", pid)
    assert alice.run(TRACE, pid) == "No such process\n"
    assert bob.status(job).JobStatus == pb.RUNNING
    bob.stop(job)


def test_two_private_jobs_of_one_user_share_no_memory_and_no_signals(alice: Tenant) -> None:
    job = alice.started("echo mine > /dev/shm/note; echo ready; exec sleep 1000")
    assert alice.run("ls -A /dev/shm; pidof sleep; echo $?") == "1\n"
    alice.stop(job)


def test_the_system_is_read_only_and_home_is_not(alice: Tenant) -> None:
    script = "for d in / /etc /usr /sys/fs/cgroup; do touch $d/x 2>&1; done; pwd; touch ~/kept"
    *refusals, directory = alice.run(script).splitlines()
    assert len(refusals) == 4
    assert all("Read-only file system" in line or "denied" in line for line in refusals)
    assert directory == "/home/alice"
    assert alice.run("ls ~/kept") == "/home/alice/kept\n"


def test_descriptors_are_three(alice: Tenant) -> None:
    """`ls` opens one more; what bubblewrap had its options on is closed."""
    assert alice.run("ls /proc/self/fd").split() == ["0", "1", "2", "3"]


def test_limits_hold_in_it(alice: Tenant) -> None:
    hog = alice.start("head -c 100M /dev/zero | tail", limits=pb.Limits(memoryBytes=48 << 20))
    assert alice.wait(hog).endReason == pb.END_REASON_OUT_OF_MEMORY


def test_no_network(alice: Tenant, bob: Tenant) -> None:
    """The loopback of the host, with the server on it, cannot be reached."""
    script = "tail -n +3 /proc/net/dev | cut -d: -f1; cat /proc/net/tcp | wc -l"
    assert alice.run(script, noNetwork=True).split() == ["lo", "1"]
    assert bob.run(script, noNetwork=True).split() == ["lo", "1"]
    assert int(alice.run(script).split()[-1]) > 1


@pytest.fixture
def gpus() -> Iterator[None]:
    """A device that the kernel lets everybody open, and one that is root's alone."""
    devices = {"/dev/gpu0": 0o666, "/dev/gpu1": 0o600}
    for path, mode in devices.items():
        os.mknod(path, mode | stat.S_IFCHR, HARDWARE_RANDOM)
        os.chmod(path, mode)
    yield
    for path in devices:
        os.unlink(path)


def test_devices_are_the_tenants(gpus: None, alice: Tenant, bob: Tenant) -> None:
    """Made after the server's start, as by a driver that is loaded late."""
    read = "head -c 100 $1 2>&1 | wc -c"
    assert alice.run(read, "/dev/gpu0") == "100\n"
    # What the user may not open outside, neither inside.
    assert "Permission denied" in alice.run("cat $1 2>&1", "/dev/gpu1")
    assert "Permission denied" in bob.run("cat $1 2>&1", "/dev/gpu1")
    private = {"isolation": pb.ISOLATION_PRIVATE}
    assert bob.run(read, "/dev/gpu0") == "100\n"
    assert "No such file" in bob.run("cat $1 2>&1", "/dev/gpu0", **private)
    # Nor can one be made.
    script = "mknod /dev/gpu0 c 10 183 2>&1 || mknod ~/gpu0 c 10 183 2>&1; echo $?"
    assert bob.run(script, **private).endswith("1\n")


def test_less_than_demanded_is_refused(alice: Tenant, bob: Tenant) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        alice.start("true", isolation=pb.ISOLATION_NONE)
    assert "jobs of tenant team-a run in the isolation profile private" in words[0]
    assert alice.status(alice.start("true")).isolation == pb.ISOLATION_PRIVATE
    assert bob.status(bob.start("true")).isolation == pb.ISOLATION_NONE
    asked = bob.status(bob.start("true", isolation=pb.ISOLATION_PRIVATE))
    assert asked.isolation == pb.ISOLATION_PRIVATE


def test_a_program_that_cannot_be_executed_is_refused(alice: Tenant) -> None:
    for name, error in (("/no/such/program", "ENOENT"), ("nonesuch", "ENOENT"), ("/etc", "EACCES")):
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
            alice.worker.Start(pb.StartRequest(commandName=name))
        assert f"cannot execute {name}" in words[0]
        assert error in words[0]


def test_signals_reach_the_program(alice: Tenant) -> None:
    """And not bubblewrap, which they would end."""
    script = "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    job = alice.started(script)
    alice.worker.Signal(pb.SignalRequest(jobID=job, signal=signal.SIGUSR1))
    ended = alice.wait(job)
    assert (ended.exitCode, ended.endReason) == (5, pb.END_REASON_EXITED)
    assert alice.output(job) == "ready\ncaught\n"


def test_a_stop_lets_it_end_well(alice: Tenant) -> None:
    job = alice.started("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done")
    alice.worker.Stop(pb.StopRequest(jobID=job, graceSeconds=30))
    ended = alice.wait(job)
    assert (ended.exitCode, ended.endReason) == (7, pb.END_REASON_STOPPED)
    # The shell may say as well how its sleep has ended.
    assert "bye\n" in alice.output(job)


def test_ends_by_signals_are_told(alice: Tenant) -> None:
    ended = alice.wait(alice.start("kill -KILL $$"))
    assert (ended.exitCode, ended.signal) == (137, signal.SIGKILL)
    assert ended.endReason == pb.END_REASON_SIGNALED


def test_variables_do_not_reach_bubblewrap(alice: Tenant) -> None:
    """A library of the tenant's, run outside, would see what the job must not."""
    job = alice.start("echo ran", environment={"LD_PRELOAD": "/home/alice/lib.so", "WORD": "a b"})
    assert alice.wait(job).exitCode == 0
    # The complaint is the job's own program's, not one more of bubblewrap's.
    assert alice.output(job).count("/home/alice/lib.so") == 1
    assert alice.run('echo "$WORD"', environment={"WORD": "a b"}) == "a b\n"


def test_a_program_within_a_private_job(alice: Tenant, bob: Tenant) -> None:
    """As its user, who is nobody special in there, and sees what the job sees."""
    job = alice.started("echo mine > /tmp/note; echo ready; exec sleep 1000")
    script = (
        "id -un; cat /tmp/note; grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | uniq;"
        f"cat {HIDDEN_FILE} 2>&1; pwd; ls /proc | grep -c '^[0-9]'"
    )
    asked = pb.StartRequest(commandName="sh", Arguments=["-c", script])
    inner = alice.worker.Exec(pb.ExecRequest(jobID=job, start=asked)).jobID
    assert alice.wait(inner).user == "alice"
    name, note, capabilities, hidden, home, count = alice.output(inner).splitlines()
    assert (name, note, home) == ("alice", "mine", "/home/alice")
    assert int(capabilities, 16) == 0
    assert "No such file" in hidden
    assert int(count) <= 8
    with refused(grpc.StatusCode.NOT_FOUND):
        bob.worker.Exec(pb.ExecRequest(jobID=job, start=asked))
    alice.stop(job)
