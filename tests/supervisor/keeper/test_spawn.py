"""Making processes, natively and by fork(2): what a program finds, and how a failure is told."""

import errno
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobworker.supervisor.keeper import spawn
from jobworker.supervisor.keeper.program import REPORT, STEPS, Program
from jobworker.supervisor.keeper.spawn import WAY_VARIABLE, Spawner
from tests.support.file_systems import Hanging
from tests.support.library import eventually

SOURCE = Path(spawn.__file__).with_name("spawn.c")
PATHS = (b"/usr/bin", b"/bin")
# Descriptors as a keeper of a thousand jobs has them.
MANY = 4000
RSS_MARK = 1 << 40


@dataclass
class Ended:
    """How a process came to its end: what it reported, wrote, and its wait status."""

    report: bytes
    output: bytes
    status: int

    @property
    def failure(self) -> tuple[int, str]:
        """The errno, and the step."""
        number, step = REPORT.unpack(self.report)
        return number, STEPS[step]


@pytest.fixture(params=["native", "python"])
def spawner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spawner]:
    """Each way in turn."""
    if request.param == "native" and not spawn.BUILT:
        pytest.skip("the native way was not built here: it takes a C compiler, on x86_64")
    monkeypatch.setenv(WAY_VARIABLE, request.param)
    before = {int(name) for name in os.listdir("/proc/self/fd")}
    made = Spawner()
    assert made.native == (request.param == "native")
    yield made
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in before and os.path.exists(f"/proc/self/fd/{name}"):
            os.close(int(name))


def program(*argv: str, **fields: object) -> Program:
    """A program of the PATH."""
    paths = tuple(path + b"/" + argv[0].encode() for path in PATHS)
    if "/" in argv[0]:
        paths = (argv[0].encode(),)
    return Program(paths, tuple(map(str.encode, argv)), **fields)  # type: ignore[arg-type]


def run(spawner: Spawner, made: Program) -> Ended:
    """Run it to its end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    with ours, theirs, open(read, "rb") as output:
        pid, pidfd = spawner.spawn(made, (null, write, write), theirs.fileno())
        os.close(null)
        os.close(write)
        theirs.close()
        report, written = ours.recv(REPORT.size), output.read()
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    return Ended(report, written, status)


def test_a_program_is_executed_and_says_nothing_of_it(spawner: Spawner) -> None:
    ended = run(spawner, program("sh", "-c", "echo out; exit 7"))
    assert (ended.report, ended.output) == (b"", b"out\n")
    assert os.waitstatus_to_exitcode(ended.status) == 7


def test_arguments_and_variables_are_exact(spawner: Spawner) -> None:
    odd = b"\xff\n'*"
    found = run(spawner, Program((b"/usr/bin/env",), (b"env", b"-0", b"A=" + odd), (b"B=" + odd,)))
    assert sorted(found.output.split(b"\0")) == [b"", b"A=" + odd, b"B=" + odd]


def test_it_has_three_descriptors_and_no_more(spawner: Spawner) -> None:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    found = run(spawner, program("ls", "/proc/self/fd"))
    for descriptor in held:
        os.close(descriptor)
    # The listing's own is the fourth.
    assert found.output.split() == [b"0", b"1", b"2", b"3"]


def test_the_cost_is_not_that_of_descriptors_held(spawner: Spawner) -> None:
    """All of them are closed for the child, however many; one left would keep a pipe open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    read, write = os.pipe2(os.O_CLOEXEC)
    held = [os.dup(write) for _ in range(min(MANY, most // 2))]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    with ours, theirs:
        pid, pidfd = spawner.spawn(program("sleep", "1000"), (null, null, null), theirs.fileno())
        theirs.close()
        assert ours.recv(REPORT.size) == b""
        for descriptor in (*held, write, null):
            os.close(descriptor)
        # Nobody else has the write end.
        assert os.read(read, 1) == b""
        os.close(read)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        os.close(pidfd)


def test_signals_session_umask_and_directory_are_its_own(spawner: Spawner, tmp_path: Path) -> None:
    ignored = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    script = "grep -E 'SigBlk|SigIgn' /proc/self/status; umask; pwd; ps -o sid= -p $$; echo $$"
    try:
        found = run(
            spawner,
            program("sh", "-c", script, cwd=str(tmp_path).encode(), umask=0o027),
        )
    finally:
        signal.signal(signal.SIGUSR1, ignored)
    blocked, ignoring, umask, directory, session, own = found.output.splitlines()
    assert int(blocked.split()[1], 16) == int(ignoring.split()[1], 16) == 0
    assert (umask, directory) == (b"0027", str(tmp_path).encode())
    assert session.strip() == own


def test_limits_are_set_as_far_as_they_may_be(spawner: Spawner) -> None:
    limits = ((resource.RLIMIT_NOFILE, 50, 60), (resource.RLIMIT_RSS, RSS_MARK, RSS_MARK))
    found = run(spawner, program("sh", "-c", "ulimit -Sn; ulimit -Hn", limits=limits))
    assert found.output.split() == [b"50", b"60"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another")
def test_it_becomes_the_user_for_good(spawner: Spawner) -> None:
    user = (65534, 65534, (65534, 12))
    script = "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status"
    found = run(spawner, program("sh", "-c", script, user=user, no_new_privileges=True))
    assert found.output.split() == [b"65534", b"65534", b"65534", b"12", b"NoNewPrivs:", b"1"]
    assert os.getresuid() == (0, 0, 0)


def test_failures_name_their_step(spawner: Spawner, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"\1\2")
    rubbish.chmod(0o755)
    execute, change = "execute {program}", "change to directory {cwd}"
    expected = {
        program("no-such-program"): (errno.ENOENT, execute),
        program(str(plain)): (errno.EACCES, execute),
        program(str(rubbish)): (errno.ENOEXEC, execute),
        program("true", cwd=b"/no/such"): (errno.ENOENT, change),
        program("true", cwd=str(plain).encode()): (errno.ENOTDIR, change),
        program("true", check=(b"/no/such",)): (errno.ENOENT, execute),
        program("true", check=(b"/usr",)): (errno.EACCES, execute),
    }
    for made, failure in expected.items():
        ended = run(spawner, made)
        assert ended.failure == failure, made
        assert os.waitstatus_to_exitcode(ended.status) == 127
    # After them one that can be executed is.
    assert run(spawner, program("true", check=(b"/no/such", b"/bin/sh"))).status == 0


def test_a_hanging_execution_hangs_alone(spawner: Spawner, hanging: Hanging) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    with ours, theirs:
        pid, pidfd = spawner.spawn(program(hanging.name), (null, null, null), theirs.fileno())
        theirs.close()
        assert run(spawner, program("true")).status == 0
        with pytest.raises(BlockingIOError):
            ours.recv(REPORT.size, socket.MSG_DONTWAIT)
        hanging.release()
        assert ours.recv(REPORT.size) == b""
    assert os.waitpid(pid, 0)[1] == 0
    os.close(pidfd)
    os.close(null)


def test_nothing_of_a_process_is_kept_when_it_has_executed(spawner: Spawner) -> None:
    for _ in range(50):
        assert run(spawner, program("true")).status == 0
    if spawner.native:
        from jobworker.supervisor.keeper import _spawn

        eventually("no memory is shared", lambda: _spawn.sharing() == 0)


def test_one_that_must_be_apart_is_forked(
    spawner: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spawner, "_native", None)
    assert run(spawner, program("true", apart=True)).status == 0


def test_the_source_has_no_warnings(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None or os.uname().machine != "x86_64":
        pytest.skip("needs gcc on x86_64")
    import sysconfig

    headers = sysconfig.get_paths()["include"]
    if not Path(headers, "Python.h").exists():
        pytest.skip("needs Python's headers")
    options = ["-std=gnu11", "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    options += ["-Wno-missing-field-initializers", "-isystem", headers, "-c"]
    subprocess.run([compiler, *options, SOURCE, "-o", tmp_path / "spawn.o"], check=True)
    assert stat.S_ISREG((tmp_path / "spawn.o").stat().st_mode)
