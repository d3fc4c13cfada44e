"""Starting porters: how many at once, as whom, and into which mounts."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

from jobworker.supervisor.errors import CannotPlace, Exhausted
from jobworker.supervisor.exact_text import to_bytes
from jobworker.supervisor.host.inside import Entrance, can_enter, open_entrance
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.job import Job
from jobworker.supervisor.porter import porter
from jobworker.supervisor.porter.places import Place, Places

# At once, in all and for one Unix user: each is a process of some 10 MiB.
MOST = 64
MOST_OF_A_USER = 16
# How long a sandbox may take until it is there.
_MADE_SECONDS = 5.0
_LOOK_SECONDS = 0.01
# Of a sandbox's namespaces those that paths and rights are about (clone(2)).
_USER, _MOUNTS = 0x10000000, 0x00020000


class Porters:
    """Those that run. They end when who they were made for lets go of them."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._running: Counter[int] = Counter()

    async def begin(self, job: Job, main: Callable[[], int], *, put: bool) -> socket.socket:
        """A porter for a file of the job's, as in `start`.

        `main` says which its main process is, 0 if that has ended. Raises AlreadyEnded, too.
        """
        if main() and job.request.profile is Profile.PRIVATE:
            entrance = await _entrance(main)
            if entrance is not None:
                try:
                    return self.start(self._places.inside(job), entrance, put=put)
                finally:
                    os.close(entrance.pidfd)
        elif main():
            return self.start(self._places.inside(job), None, put=put)
        return self.start(self._places.left_by(job), None, put=put)

    def start_before(self, job: Job) -> socket.socket:
        """A porter that puts a file for a job whose program is to be executed; as in `start`."""
        return self.start(self._places.before(job), None, put=True)

    def start(self, place: Place, entrance: Entrance | None, *, put: bool) -> socket.socket:
        """A porter for one file, and the socket to tell it which: it does not block.

        With an `entrance`, whose pidfd stays the caller's, it is within that sandbox. Raises
        Exhausted, CannotPlace and OSError.
        """
        uid = place.account.uid if place.account else os.geteuid()
        if self._running[uid] >= MOST_OF_A_USER or self._running.total() >= MOST:
            raise Exhausted("too many files are being carried at once: try again later")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                porter.send_json(ours, _orders(place, entrance, put=put))
                self._watch(_process(theirs, entrance), uid)
            except EOFError:
                ours.close()
                raise CannotPlace("the porter, which carries files, does not start") from None
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        return ours

    def _watch(self, process: "subprocess.Popen[bytes]", uid: int) -> None:
        """Count it until it has ended."""
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(process.pid)
        self._running[uid] += 1

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            process.wait()
            self._running[uid] -= 1

        loop.add_reader(pidfd, ended)


async def _entrance(main: Callable[[], int]) -> Entrance | None:
    """The way into the sandbox around a main process; None once that has ended.

    Raises CannotPlace.
    """
    if not can_enter():
        raise CannotPlace(
            "this host cannot carry files into an isolated job, or out of it, while that runs: "
            "job-worker was installed without a C compiler"
        )
    deadline = time.monotonic() + _MADE_SECONDS
    while pid := main():
        try:
            entrance = open_entrance(pid)
        except BlockingIOError:
            # The sandbox is being made.
            if time.monotonic() > deadline:
                raise CannotPlace("the job's sandbox cannot be entered") from None
            await asyncio.sleep(_LOOK_SECONDS)
        except ProcessLookupError:
            return None
        else:
            # The number may have been another's by then, unless it lives still.
            if main() == pid:
                return entrance
            os.close(entrance.pidfd)
    return None


def _orders(place: Place, entrance: Entrance | None, *, put: bool) -> dict[str, object]:
    account = place.account
    way = None
    if entrance is not None:
        way = (entrance.pidfd, entrance.namespaces & (_USER | _MOUNTS))
    return {
        "user": (account.uid, account.gid, account.groups) if account else None,
        "entrance": way,
        "roots": [(_text(base), _text(path)) for path, base in place.roots],
        "min_free": place.min_free,
        "most": place.most,
        "put": put,
    }


def _text(path: str) -> str:
    return to_bytes(path).decode("latin-1")


def _process(line: socket.socket, entrance: Entrance | None) -> "subprocess.Popen[bytes]":
    passed = [line.fileno()]
    if entrance is not None:
        passed.append(entrance.pidfd)
    return subprocess.Popen(
        # Isolated, and without site: it starts in a third of the time.
        [sys.executable, "-IS", porter.__file__, str(line.fileno())],
        pass_fds=passed,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
