"""Limits hold for a job's whole tree, say so when they end it, and leave its neighbours alone."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.guest.site import Tenant, server_of_root, tenant
from tests.support.client import refused
from tests.support.server import Server
from tests.support.waiting import until

MIB = 1024 * 1024
LIMITS = """\
  limits:
    default: {processes: 200}
    most: {memory: 536870912}
    tenants:
      team-b:
        default: {memory: 67108864, open_files: 64}
        most: {memory: 134217728, cpus: 0.5, processes: 20, open_files: 100, timeout: 60}
"""
# Takes $1 MiB of memory and says so: dd(1) has read its block, and waits to get rid of it.
TAKE = """
dd if=/dev/zero bs="$1"M count=1 status=none | { head -c 1 >/dev/null; echo ready; sleep 1000; }
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_of_root(LIMITS) as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[Tenant]:
    with tenant(server, "alice") as person:
        yield person


@pytest.fixture
def bob(server: Server) -> Iterator[Tenant]:
    with tenant(server, "bob") as person:
        yield person


def test_memory_hog_is_killed_and_its_neighbour_runs_on(alice: Tenant, bob: Tenant) -> None:
    neighbour = bob.started("echo ready; sleep 1000")
    hog = alice.start("head -c 200M /dev/zero | tail", limits=pb.Limits(memoryBytes=48 * MIB))
    ended = alice.wait(hog)
    assert ended.endReason == pb.END_REASON_OUT_OF_MEMORY
    assert (ended.exitCode, ended.signal) == (137, 9)
    assert bob.status(neighbour).JobStatus == pb.RUNNING
    bob.stop(neighbour)


def test_memory_is_counted_over_the_whole_tree(alice: Tenant) -> None:
    """No process of it takes more than a quarter, and they hide from their parent."""
    script = 'for i in 1 2 3 4; do setsid sh -c "$2" sh "$1" & done; wait'
    one = alice.started(TAKE, "20", limits=pb.Limits(memoryBytes=64 * MIB))
    four = alice.start(script, "20", TAKE, limits=pb.Limits(memoryBytes=64 * MIB))
    assert alice.wait(four).endReason == pb.END_REASON_OUT_OF_MEMORY
    assert alice.status(one).JobStatus == pb.RUNNING
    alice.stop(one)


def test_fork_bomb_is_held(alice: Tenant, bob: Tenant) -> None:
    bomb = alice.start(
        "bomb() { bomb | bomb & }; bomb; exec sleep 1000", limits=pb.Limits(processes=40)
    )
    until(lambda: "fork" in alice.output_so_far(bomb))
    assert alice.status(bomb).usage.processes <= 40
    assert bob.run("echo works") == "works\n"
    alice.stop(bomb)
    assert alice.status(bomb).endReason == pb.END_REASON_STOPPED


def test_processor_time_is_shared_out(alice: Tenant) -> None:
    """Two busy processes get a fifth of a processor between them."""
    job = alice.started(
        "(while :; do :; done) & echo ready; while :; do :; done", limits=pb.Limits(cpus=0.2)
    )
    until(lambda: alice.status(job).usage.wallSeconds > 3)
    used = alice.status(job).usage
    alice.stop(job)
    assert 0.1 < used.userSeconds + used.systemSeconds < 0.4 * used.wallSeconds


def test_open_files(alice: Tenant, bob: Tenant) -> None:
    assert alice.run("ulimit -n; ulimit -Hn", limits=pb.Limits(openFiles=50)) == "50\n50\n"
    assert bob.run("ulimit -n") == "64\n"


def test_io_weight_is_kept_or_refused(alice: Tenant) -> None:
    """The guest's kernel has the io controller, but nothing in it that weighs."""
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        alice.start("true", limits=pb.Limits(ioWeight=200))
    assert "io.weight" in words[0]


def test_defaults_and_the_most_of_a_tenant(alice: Tenant, bob: Tenant) -> None:
    limits = bob.status(bob.start("true")).limits
    assert (limits.memoryBytes, limits.cpus) == (64 * MIB, 0.5)
    assert (limits.processes, limits.openFiles) == (20, 64)
    limits = alice.status(alice.start("true")).limits
    assert (limits.memoryBytes, limits.cpus, limits.processes) == (512 * MIB, 0, 200)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        bob.start("true", limits=pb.Limits(cpus=2))
    assert "cpus of 2 is more than a job of tenant team-b may have: ask for 0.5" in words[0]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        bob.start("true", timeoutSeconds=61)
    assert "timeout of 61 is more" in words[0]


def test_usage_during_and_after(alice: Tenant) -> None:
    job = alice.started(TAKE, "40")
    during = alice.status(job).usage
    assert during.memoryBytes > 40 * MIB
    assert during.processes >= 2
    alice.stop(job)
    after = alice.status(job).usage
    assert after.peakMemoryBytes > 40 * MIB
    assert after.userSeconds + after.systemSeconds > 0
    assert after.wallSeconds > 0
    assert not after.HasField("memoryBytes")
    assert not after.HasField("processes")


def test_usage_counts_what_nobody_waited_for(alice: Tenant) -> None:
    """Grandchildren that outlive the main process are in it, too.

    They begin only once the end of the main process is known, however late that comes.
    """
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        gate = Path(directory, "gate")
        spin = (
            f"until [ -e {gate} ]; do sleep 0.02; done; "
            "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; echo spun"
        )
        job = alice.start('(setsid sh -c "$1" &) ; exit 0', spin)
        at_exit = alice.worker.Wait(pb.WaitRequest(jobID=job)).usage
        gate.touch()
        assert alice.output(job) == "spun\n"

    def grown() -> bool:
        used = alice.status(job).usage
        return used.userSeconds > at_exit.userSeconds + 0.05

    until(grown)


def test_what_runs_within_a_job_has_its_limits(alice: Tenant) -> None:
    """Both together: the job has taken 40 MiB of its 64."""
    job = alice.started(TAKE, "40", limits=pb.Limits(memoryBytes=64 * MIB))

    def within(script: str, *arguments: str) -> pb.QueryStatusResponse:
        asked = pb.StartRequest(commandName="sh", Arguments=["-c", script, "sh", *arguments])
        inner = alice.worker.Exec(pb.ExecRequest(jobID=job, start=asked)).jobID
        return alice.wait(inner)

    assert within("exit 3").exitCode == 3
    assert alice.status(job).state == pb.JOB_STATE_RUNNING
    assert within(TAKE, "40").signal == 9
    assert alice.wait(job).endReason == pb.END_REASON_OUT_OF_MEMORY


def test_without_cgroups_what_cannot_be_kept_is_refused() -> None:
    with server_of_root("  cgroup: 'off'\n") as server, tenant(server, "alice") as alice:
        for limits, name in (
            (pb.Limits(memoryBytes=64 * MIB), "memory"),
            (pb.Limits(cpus=1), "cpus"),
            (pb.Limits(ioWeight=50), "io_weight"),
        ):
            with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
                alice.start("true", limits=limits)
            assert f"cannot keep a limit of {name}: there are no cgroups" in words[0]
        script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all"
        job = alice.start(script, limits=pb.Limits(processes=5))
        assert alice.wait_for_main(job).exitCode != 0
        assert "fork" in alice.output_so_far(job)
        alice.stop(job)
