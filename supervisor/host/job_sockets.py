"""Which processes are a job's, and where they listen: what a look takes long for, in a thread."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from jobworker.supervisor.host import network, tree
from jobworker.supervisor.host.tcp_sockets import (
    LISTEN,
    Address,
    Endpoint,
    TcpSocket,
    sockets_at,
    sockets_of,
    ways_to,
)
from jobworker.supervisor.host.whole_tree import WholeTree
from jobworker.supervisor.keeper.proc import start_ticks

# So many processes are held at once while they are looked at.
_BATCH = 64


@dataclass(frozen=True)
class Owner:
    """A job's processes, and the user they run as; None for the service's own."""

    whole: WholeTree
    uid: int | None

    @property
    def job_id(self) -> str:
        """The job's ID."""
        return self.whole.root.job_id

    def processes(self) -> Iterator[int]:
        """The directories in /proc of its processes, each open until the next.

        An open one is that process's for ever: what is read through it is of no
        process that got its PID later. Raises OSError.
        """
        if self.whole.cgroup is not None:
            pids = self.whole.cgroup.pids()
            for at in range(0, len(pids), _BATCH):
                yield from self._held(pids[at : at + _BATCH])
            return
        for process in tree.members(tree.snapshot(), self.whole.root):
            with _directory(process.pid) as directory:
                if directory is not None and self._is(process, directory):
                    yield directory

    def _held(self, pids: list[int]) -> Iterator[int]:
        """Those that still are in the cgroup once their PIDs cannot change hands any more."""
        assert self.whole.cgroup is not None  # noqa: S101 - as `processes` looked
        with contextlib.ExitStack() as held:
            directories = {pid: held.enter_context(_directory(pid)) for pid in pids}
            there = set(self.whole.cgroup.pids())
            for pid, directory in directories.items():
                if directory is not None and pid in there:
                    yield directory

    def _is(self, process: tree.Process, directory: int) -> bool:
        """Whether it is, of those that merely may be: signs but a cgroup are there to be copied."""
        with contextlib.suppress(OSError):
            uid = os.fstat(directory).st_uid
            same = start_ticks(process.pid) == process.start
            return same and (self.uid is None or uid == self.uid)
        return False

    def has(self, inode: int) -> bool:
        """Whether a socket is one of its processes'. Raises OSError."""
        return any(inode in _sockets_of(process) for process in self.processes())


@contextlib.contextmanager
def _directory(pid: int) -> Iterator[int | None]:
    """A process's directory in /proc; None if it has ended."""
    try:
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        yield None
        return
    try:
        yield directory
    finally:
        os.close(directory)


def _sockets_of(process: int) -> set[int]:
    # One that has ended, or whose descriptors this user may not see, has none.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        return sockets_of(process)
    return set()


def _lasting(process: int, place: int) -> int:
    """A process in a network, to look at it through: this one, which stays, where it is in it."""
    if place == network.own_network():
        return os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return os.dup(process)


@dataclass
class Listening:
    """Where a job listens at a port: in a network, seen through a process in it. Close it."""

    owner: Owner
    port: int
    process: int
    ways: list[Address] = field(default_factory=list)
    # What listens there, the job's own.
    inodes: frozenset[int] = frozenset()

    def socket_to(self, way: Address) -> socket.socket:
        """A socket that can be connected to there. Raises OSError."""
        family = socket.AF_INET if way.version == 4 else socket.AF_INET6
        return network.socket_in(self.process, family)

    def other_end(self, way: Address, own: Endpoint) -> TcpSocket | None:
        """What a connection from `own` has led to, if it is in this network. Raises OSError."""
        here = (Endpoint(way, self.port), own)
        found = (each for each in sockets_at(self.process, self.port) if each.state != LISTEN)
        return next((each for each in found if (each.local, each.remote) == here), None)

    def still(self, way: Address) -> bool:
        """Whether the very sockets still listen there, and nobody else's. Raises OSError."""
        listening = [each for each in sockets_at(self.process, self.port) if each.state == LISTEN]
        own = {inode for inode in self.inodes if self.owner.has(inode)}
        return way in ways_to(listening, own)

    def close(self) -> None:
        """Let go of the process."""
        os.close(self.process)


def listening_at(owner: Owner, port: int) -> Listening | None:
    """Where the job listens at a port, None if nowhere. Raises OSError."""
    networks: dict[int, int] = {}
    own: set[int] = set()
    try:
        for process in owner.processes():
            own |= _sockets_of(process)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                place = network.network_of(process)
                if place not in networks:
                    networks[place] = _lasting(process, place)
        for place, process in networks.items():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                listening = [each for each in sockets_at(process, port) if each.state == LISTEN]
                if ways := ways_to(listening, own):
                    inodes = frozenset(each.inode for each in listening if each.inode in own)
                    del networks[place]
                    return Listening(owner, port, process, ways, inodes)
        return None
    finally:
        for process in networks.values():
            os.close(process)
