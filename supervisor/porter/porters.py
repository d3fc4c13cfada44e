"""Starting porters: how many at once, as whom, and into which mounts."""

import asyncio
import os
import socket
import subprocess
import sys
from collections import Counter
from typing import NamedTuple

from jobworker.supervisor.errors import CannotPlace, Exhausted
from jobworker.supervisor.exact_text import to_bytes
from jobworker.supervisor.host.inside import Entrance
from jobworker.supervisor.host.users import Account
from jobworker.supervisor.porter import porter

# At once, in all and for one Unix user: each is a process of some 10 MiB.
MOST = 64
MOST_OF_A_USER = 16
# Of a sandbox's namespaces those that paths and rights are about (clone(2)).
_USER, _MOUNTS = 0x10000000, 0x00020000


class Place(NamedTuple):
    """Where a job's files are, and whose.

    `account` is None for the service's own user. `roots` are pairs: the first is the job's
    directory. A pair is a directory and what its path must not lead out of, `/` for any.
    `min_free` is what is to stay free on a disk (-1: see disk_space.py), `most` the most
    bytes of a file that is put, 0 for any.
    """

    account: Account | None
    roots: tuple[tuple[str, str], ...]
    min_free: int
    most: int


class Porters:
    """Those that run. They end when who they were made for lets go of them."""

    def __init__(self) -> None:
        self._running: Counter[int] = Counter()

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
