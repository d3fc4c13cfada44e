"""The life of a program on a node: what it is told, what it leaves behind, how it ended."""

import contextlib
import json
import os
import resource
import select
import signal
import time
from pathlib import Path

from jobworker.supervisor.slurm.files import EXIT, Places
from jobworker.supervisor.slurm.recording import Recording

# How often it is looked for signals that the service has written down.
_LOOK_SECONDS = 0.1
# How often its memory is added up.
_MEASURE_SECONDS = 0.5
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# With these Slurm has a job end, of itself or for others.
_FROM_SLURM = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)


def tell(places: Places, what: str, facts: dict[str, int | float | str]) -> None:
    """Put it into the job's directory, whole or not at all, and on the disk."""
    path = places.told(what)
    part = path.with_suffix(f".{what}-part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, json.dumps(facts).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(path)


class Watch:
    """Hears signals from its first moment on: Slurm's to this process, the service's in a file."""

    def __init__(self, places: Places, memory: int) -> None:
        """The program has `memory` bytes at most, 0 for any number."""
        self._places = places
        self._memory = memory
        self._measured = 0.0
        self._out_of_memory = False
        self._read = 0
        # Of Slurm's signals, that are to be passed on.
        self._heard: list[int] = []
        self._termed = 0
        # A stop is going on: what the main process leaves may end by itself.
        self._patient = False
        self._main = 0
        self._status: int | None = None
        self._wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _FROM_SLURM:
            signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: object) -> None:
        self._heard.append(number)

    def until_ended(self, main: int, recording: Recording) -> int:
        """Record until nothing is left of the program; its status, -N for signal N."""
        self._main = main
        more = False
        while True:
            self._wait(recording, 0.0 if more else _LOOK_SECONDS)
            more = recording.move()
            self._reap()
            self._pass_on()
            self._measure()
            if self._status is not None:
                left = _descendants()
                if not left:
                    break
                if not self._patient:
                    _send(left, signal.SIGKILL)
        recording.drain()
        code = os.waitstatus_to_exitcode(self._status)
        self._tell_exit(code)
        return code

    def _wait(self, recording: Recording, seconds: float) -> None:
        poll = select.poll()
        for descriptor in (self._wake, *recording.pipes):
            poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._main:
                    self._status = found[1]

    def _pass_on(self) -> None:
        while self._heard:
            number = self._heard.pop(0)
            self._termed = number
            _send(_descendants(), number, go_on=True)
        for line in self._new_lines():
            number_text, _, whom = line.partition(" ")
            number = int(number_text)
            stop = whom.endswith("stop")
            self._patient = self._patient or stop
            if whom.startswith("main") and self._status is None:
                _send([self._main], number, go_on=stop)
            else:
                _send(_descendants(), number, go_on=stop)
            if number == signal.SIGKILL:
                self._patient = False

    def _measure(self) -> None:
        """Kill what has too much memory: not every cluster of Slurm's does, nor says so."""
        if not self._memory or time.monotonic() < self._measured + _MEASURE_SECONDS:
            return
        self._measured = time.monotonic()
        pids = _descendants()
        if sum(map(_resident, pids)) > self._memory:
            self._out_of_memory = True
            _send(pids, signal.SIGKILL)

    def _new_lines(self) -> list[str]:
        try:
            with self._places.signals.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode().splitlines()

    def _tell_exit(self, code: int) -> None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        tell(
            self._places,
            EXIT,
            {
                "code": code,
                "user_seconds": used.ru_utime,
                "system_seconds": used.ru_stime,
                "peak_kib": used.ru_maxrss,
                "read_blocks": used.ru_inblock,
                "written_blocks": used.ru_oublock,
                "termed": self._termed,
                "out_of_memory": self._out_of_memory,
            },
        )


def _send(pids: list[int], number: int, *, go_on: bool = False) -> None:
    """Signal them; with `go_on` those that stand still get to see it."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)
            if go_on:
                os.kill(pid, signal.SIGCONT)


def _descendants() -> list[int]:
    """The processes below this one (proc(5)), that have not ended."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The second field, the name, may itself hold spaces and parentheses.
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found: list[int] = []
    new = [os.getpid()]
    while new:
        new = [child for pid in new for child in children.get(pid, ())]
        found += new
    return found


def _resident(pid: int) -> int:
    """The bytes of memory that a process has of its own (proc(5), statm)."""
    with contextlib.suppress(OSError):
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
        return (int(resident) - int(shared)) * _PAGE_BYTES
    return 0
