"""How an isolated job ended: its exit code or its signal, whatever bubblewrap makes of either."""

import signal
from pathlib import Path

import pytest

from jobworker.supervisor import Chunk, Job, JobWorker, Reason
from jobworker.supervisor.host import inside
from tests.supervisor.test_stop import written
from tests.support.library import Site, eventually

pytestmark = [
    pytest.mark.skipif(not Path("/usr/bin/bwrap").exists(), reason="needs bubblewrap"),
    pytest.mark.skipif(not inside.PROGRAM.exists(), reason="needs a C compiler to be built"),
]
PRIVATE = {"isolation": {"profile": "private"}}
# Those that a process cannot end by, or that nobody can send (glibc keeps 32 and 33).
HARMLESS = {
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
    32,
    33,
}
DEADLY = [number for number in range(1, 65) if number not in HARMLESS]


def ends(worker: JobWorker, scripts: list[str]) -> list[tuple[int, int, Reason]]:
    """How scripts end, as (exit status, signal, reason)."""
    jobs = [worker.start(["/bin/sh", "-c", script]) for script in scripts]
    found = [job.wait() for job in jobs]
    return [(job.exit_status, job.signal, job.reason) for job in found]


def everything(job: Job) -> bytes:
    """All that a job writes."""
    return b"".join(piece.data for piece in job.output() if isinstance(piece, Chunk))


def test_every_code_is_that_code(site: Site) -> None:
    """`exit 143` was told as "killed by SIGTERM"."""
    with site.worker(**PRIVATE) as worker:
        told = ends(worker, [f"exit {code}" for code in range(256)])
        assert told == [(code, 0, Reason.EXITED) for code in range(256)]


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs a device")
def test_devices_are_those_of_the_settings(site: Site) -> None:
    """A private job had no devices but null and its like: no GPU was to be had."""
    look = ["/bin/sh", "-c", "ls /dev"]
    with site.worker(**PRIVATE) as worker:
        assert b"fuse" not in everything(worker.start(look)).split()
    allowed = {"isolation": {"profile": "private", "devices": ["/dev/fu[rs]e", "/dev/none*"]}}
    with site.worker(**allowed) as worker:
        assert b"fuse" in everything(worker.start(look)).split()
        # Not only by name: it is the host's.
        numbers = everything(worker.start(["stat", "-c", "%t:%T", "/dev/fuse"]))
        assert numbers == b"a:e5\n"


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/../etc/passwd", "dev/fuse"])
def test_devices_are_below_dev(site: Site, path: str) -> None:
    with (
        pytest.raises(ValueError, match="devices are below /dev"),
        site.worker(isolation={"profile": "private", "devices": [path]}),
    ):
        pass


def test_every_signal_is_that_signal(site: Site) -> None:
    with site.worker(**PRIVATE) as worker:
        told = ends(worker, [f"kill -{number} $$; exec sleep 1000" for number in DEADLY])
        assert told == [(0, number, Reason.SIGNALED) for number in DEADLY]


def test_also_after_another_supervisor_took_over(site: Site) -> None:
    with site.worker(**PRIVATE) as worker:
        script = "trap 'exit 143' USR1; echo up; while :; do sleep 0.05; done"
        job = worker.start(["/bin/sh", "-c", script])
        written(job, b"up\n")
        before = site.signal_supervisor()
        eventually("another supervisor", lambda: site.supervisor() not in {None, before})
        # It reaches the program, too.
        job.signal(signal.SIGUSR1)
        assert job.wait().exit_status == 143


def test_a_stop_ends_it_as_ever(site: Site) -> None:
    with site.worker(**PRIVATE) as worker:
        script = "trap 'exit 143' TERM; echo up; while :; do sleep 0.05; done"
        jobs = [worker.start(["/bin/sh", "-c", script]) for _ in range(2)]
        for job in jobs:
            written(job, b"up\n")
        asked, killed = jobs[0].stop(1000), jobs[1].stop(0)
        assert (asked.exit_status, asked.signal, asked.reason) == (143, 0, Reason.STOPPED)
        assert (killed.signal, killed.reason) == (signal.SIGKILL, Reason.STOPPED)


def test_the_program_finds_nothing_of_it(site: Site) -> None:
    with site.worker(**PRIVATE) as worker:
        # The fourth is the directory that ls reads.
        assert output(worker.start(["/bin/ls", "/proc/self/fd"])).split() == [
            b"0",
            b"1",
            b"2",
            b"3",
        ]
        blocked = worker.start(["/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
        assert output(blocked).split() == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


def test_variables_of_the_loader_are_the_programs_alone(site: Site) -> None:
    env = {"LD_PRELOAD": "/nowhere/lib.so", "LD_BIND_NOW": "a=b", "PLAIN": "--"}
    with site.worker(**PRIVATE) as worker:
        found = output(worker.start(["/bin/sh", "-c", 'echo "$LD_BIND_NOW $PLAIN"'], env=env))
        # The loader of the shell complains, and nobody else's.
        assert found.count(b"/nowhere/lib.so") == 1
        assert b"a=b --\n" in found


def test_what_cannot_be_executed_inside_is_told(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/nowhere/sh\n")
    program.chmod(0o755)
    with site.worker(**PRIVATE) as worker:
        # It is there for the host, and in the sandbox /tmp is another.
        job = worker.start([str(program)], cwd="/")
        assert job.wait().exit_status == 127
        assert output(job).startswith(b"cannot execute ")


def output(job: Job) -> bytes:
    return b"".join(piece.data for piece in job.output() if isinstance(piece, Chunk))
