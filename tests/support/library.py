"""Workers for tests of the library, their processes, and proof that nothing of them is left."""

import contextlib
import gc
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from unittest import mock

import psutil

from jobworker.supervisor import AsyncJobWorker, Job, JobWorker
from tests.support.server import leaving_no_process

DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.002


def eventually(what: str, condition: Callable[[], bool]) -> None:
    """Wait for something that nothing tells of; fails after DEADLINE_SECONDS."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:g} s: {what}"
        time.sleep(POLL_SECONDS)


def own_cgroup() -> Path | None:
    """The cgroup v2 (cgroups(7)) of this process, if it may make others in it."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    names = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    if not places or not names:
        return None
    own = Path(places[0], names[0])
    return own if os.access(own / "cgroup.procs", os.W_OK) and os.access(own, os.W_OK) else None


def service_cgroup(state: Path) -> Path | None:
    """The cgroup of the service on a directory; None where there is none."""
    own = own_cgroup()
    if own is None:
        return None
    cgroup = own / f"jobworker-{hashlib.sha256(str(state).encode()).hexdigest()[:12]}"
    return cgroup if cgroup.exists() else None


def running(pid: int) -> bool:
    """Whether the process executes anything; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Site:
    """A state directory, the workers on it and their processes. `cgroup` is the setting."""

    state: Path
    cgroup: str

    def worker(self, **settings: object) -> JobWorker:
        """A worker on the directory, not yet entered."""
        return JobWorker(self.state, **{"cgroup": self.cgroup, "grace_seconds": 5.0, **settings})

    def async_worker(self, **settings: object) -> AsyncJobWorker:
        """The same for asyncio."""
        return AsyncJobWorker(
            self.state, **{"cgroup": self.cgroup, "grace_seconds": 5.0, **settings}
        )

    def keeper(self) -> psutil.Process:
        """The keeper that is running, of this program or of one that it started."""
        (keeper,) = filter(_is_keeper, psutil.Process().children(recursive=True))
        return keeper

    def supervisor(self) -> psutil.Process | None:
        """The supervisor, from its first moment on; None between two."""
        return next(filter(_is_supervisor, self.keeper().children()), None)

    def signal_supervisor(self, number: int = signal.SIGKILL) -> psutil.Process:
        """Send a signal to the supervisor as soon as there is one."""
        sent: list[psutil.Process] = []

        def send() -> bool:
            supervisor = self.supervisor()
            if supervisor is None:
                return False
            try:
                supervisor.send_signal(number)
            except psutil.NoSuchProcess:
                return False
            sent.append(supervisor)
            return True

        eventually("a supervisor to signal", send)
        return sent[0]

    def cgroups(self) -> set[str]:
        """The cgroups of jobs; empty without cgroups."""
        service = service_cgroup(self.state)
        if service is None:
            return set()
        names = {path.name for path in service.iterdir() if path.is_dir()}
        return names - {"service", "probe"}


def _is_keeper(process: psutil.Process) -> bool:
    if _KEEPER not in _command_line(process):
        return False
    # A fork of the keeper has its command line until it executes a program.
    with contextlib.suppress(psutil.NoSuchProcess):
        return _KEEPER not in _command_line(process.parent())
    return False


def _is_supervisor(process: psutil.Process) -> bool:
    line = _command_line(process)
    return "jobworker: supervisor" in line or "spawn_main" in line


_KEEPER = "jobworker.supervisor.keeper"


def _command_line(process: psutil.Process | None) -> str:
    try:
        return "" if process is None else " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def leaving_nothing(directory: Path) -> Iterator[None]:
    """Fail if the block leaves a process, thread, descriptor or stray file behind.

    A stray file is one in the working directory, HOME or TMPDIR, which are an
    empty directory below `directory` for as long as the block lasts.
    """
    home = directory / "home"
    home.mkdir()
    threads = set(threading.enumerate())
    descriptors = _descriptors()
    before = Path.cwd()
    os.chdir(home)
    try:
        with mock.patch.dict(os.environ, HOME=str(home), TMPDIR=str(home)), leaving_no_process():
            yield
    finally:
        os.chdir(before)
    gc.collect()
    left = {number: what for number, what in _descriptors().items() if number not in descriptors}
    assert not left, f"descriptors left open: {left}"
    assert not set(threading.enumerate()) - threads
    assert not list(home.rglob("*")), "stray files"


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # The listing's own.
            continue
    return found


_numbers = count(100_000_000 + os.getpid() * 1000)


class Sign:
    """A number that is in the command line of every process of one job, and of no other."""

    def __init__(self) -> None:
        self.number = str(next(_numbers))

    def processes(self) -> list[psutil.Process]:
        """Those that carry it and have not ended."""
        return [process for process in psutil.process_iter() if self._carries(process)]

    def _carries(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return any(self.number in word for word in process.cmdline())
        except psutil.NoSuchProcess:
            return False


# How a job spreads: a script that is given the sign, and how many processes carry it in the end.
TREES = {
    "one process": ("exec sleep $1", 1),
    "children": ("sleep $1 & sleep $1 & wait", 3),
    "a double fork": ("(sleep $1 &) ; exec sleep $1", 2),
    "sessions of their own": ("setsid sleep $1 & setsid -f sleep $1; wait", 3),
    "a daemon": ("(setsid sh -c 'cd /; sleep $1 & sleep 0' sh $1 &) ; exec sleep $1", 2),
    "a cleared environment": ("exec env -i /bin/sleep $1", 1),
    "a daemon with a cleared environment": (
        "setsid -f env -i /bin/sh -c '/bin/sleep $1 & exit' sh $1; exec sleep $1",
        2,
    ),
    "only what the main process left": ("setsid -f sleep $1; sleep $1 & exit 3", 2),
    "only a daemon with a cleared environment": ("setsid -f env -i /bin/sleep $1; exit 3", 1),
    "stopped": ("sleep $1 & kill -STOP $!; kill -STOP $$; exec sleep $1", 2),
    "without output": ("exec >/dev/null 2>&1; sleep $1 & exec sleep $1", 2),
}


def spread(worker: JobWorker, sign: Sign, tree: str, before: str = "") -> Job:
    """Start a job that spreads as TREES says, and wait until it has."""
    script, processes = TREES[tree]
    job = worker.start(["sh", "-c", f"{before}{script}", "sh", sign.number])
    eventually("the job has spread", lambda: len(sign.processes()) == processes)
    if "exit 3" in script:
        assert job.wait().exit_code == 3
    return job
