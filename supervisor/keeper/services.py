"""The keeper's two services: starting them, connecting them, noting how they end."""

import contextlib
import multiprocessing
import selectors
import signal
import socket
import time
from enum import Enum
from multiprocessing.process import BaseProcess

from jobworker.supervisor.keeper import child, packets
from jobworker.supervisor.keeper.backoff import Backoff
from jobworker.supervisor.keeper.config import REFUSED, KeeperConfig, ServiceConfig
from jobworker.supervisor.keeper.ledger import Listening
from jobworker.supervisor.keeper.mailbox import Mailbox


class Phase(Enum):
    """What the keeper is up to, and so which services it wants to run."""

    # Both.
    SERVING = "serving"
    # Neither: the jobs run on.
    DORMANT = "dormant"
    # A supervisor, which stops every job; a front that is there may stay.
    STOPPING = "stopping"
    # Neither: the end.
    ENDING = "ending"


class Service:
    """One of the keeper's processes, over all its lives."""

    def __init__(self, name: str, config: ServiceConfig) -> None:
        self.name = name
        self.config = config
        self.process: BaseProcess | None = None
        self.mailbox: Mailbox | None = None
        # It has said that it is at work.
        self.up = False
        self._backoff = Backoff()
        self._started = 0.0
        # Until when it may end by itself, on the monotonic clock, if it has been told to
        # make way for another.
        self.retires_by: float | None = None
        # When to start it, on the monotonic clock.
        self.due = 0.0

    @property
    def pid(self) -> int | None:
        """Its process's, while it has one."""
        return self.process.pid if self.process is not None else None

    def started(self, process: BaseProcess, mailbox: Mailbox) -> None:
        """It has a process."""
        self.process, self.mailbox = process, mailbox
        self._started = time.monotonic()
        self.up = False

    def retire(self, seconds: float) -> None:
        """Its process, if it has one, is going to end for another's sake, within so long."""
        if self.process is not None:
            self.retires_by = time.monotonic() + seconds

    def forgive(self) -> None:
        """What it is started with is another from now on: its failures say nothing any more."""
        self._backoff, self.due = Backoff(), 0.0

    def hang_up(self) -> None:
        """Close its socket, which tells its process to end."""
        if self.mailbox is not None:
            self.mailbox.close()
            self.mailbox = None

    def put_off(self, seconds: float) -> None:
        """It could not be started, or not whole: have it started again, no sooner than that."""
        self.due = time.monotonic() + seconds
        self.kill()

    def kill(self) -> None:
        """SIGKILL its process, if it has one."""
        if self.process is not None:
            self.process.kill()

    def ended(self, exitcode: int) -> "Ending":
        """Its process has been reaped; `exitcode` is -N for signal N."""
        lived = time.monotonic() - self._started
        self.hang_up()
        self.process = None
        if self.retires_by is not None:
            self.retires_by = None
            self.forgive()
            return Ending.RETIRED
        own_fault = not self.up and exitcode != -signal.SIGKILL
        self._backoff = self._backoff.after_death(lived, own_fault=own_fault)
        self.due = time.monotonic() + self._backoff.delay
        if exitcode == REFUSED:
            return Ending.REFUSED
        return Ending.HOPELESS if self._backoff.hopeless else Ending.DIED

    def story(self, exitcode: int) -> str:
        """How it ended, and what comes next, for the log."""
        how = f"exit status {exitcode}" if exitcode >= 0 else f"signal {-exitcode}"
        return (
            f"{self.name} ended ({how}), {self._backoff.failures} in a row; "
            f"next start in {self._backoff.delay:.2f} s"
        )


class Ending(Enum):
    """How a service's process came to end."""

    RETIRED = "it was told to make way"
    DIED = "it died; the next one may do better"
    REFUSED = "its settings cannot be served with"
    HOPELESS = "none before it did any better"


class Services:
    """The supervisor, and the front or the program that uses the library in its place."""

    def __init__(self, config: KeeperConfig, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._spawn = multiprocessing.get_context("spawn")
        self.supervisor = Service("supervisor", config.supervisor)
        self.front = Service("front", config.front) if config.front else None
        # Of the front's.
        self.listening = Listening()
        self.library: Mailbox | None = None
        if config.client_fd >= 0:
            self.library = Mailbox(socket.socket(fileno=config.client_fd), selector)

    def all(self) -> list[Service]:
        """Those that are processes of the keeper's."""
        return [self.supervisor, self.front] if self.front else [self.supervisor]

    def of(self, pid: int) -> Service | None:
        """The service that has this process."""
        return next((service for service in self.all() if service.pid == pid), None)

    def wanted(self, phase: Phase) -> list[Service]:
        """Those that are to be running."""
        if phase is Phase.SERVING:
            return self.all()
        return [self.supervisor] if phase is Phase.STOPPING else []

    def configure(self, config: KeeperConfig) -> None:
        """What the next ones are started with."""
        self.supervisor.config = config.supervisor
        if self.front is not None and config.front is not None:
            self.front.config = config.front

    def start(self, service: Service) -> Mailbox:
        """Start a process of the service, in a new interpreter (multiprocessing's spawn).

        Raises OSError when there can be none now.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            control, their_control = packets.pair()
            ours.enter_context(control)
            theirs.enter_context(their_control)
            bell, their_bell = socket.socketpair()
            ours.enter_context(bell)
            theirs.enter_context(their_bell)
            # While there is no process yet that would go on without its end, if this is refused.
            mailbox = Mailbox(control, self._selector, bell)
            ours.pop_all()
            ours.callback(mailbox.close)
            listening = self.listening.sockets() if service is self.front else ()
            line = packets.Line(their_control, their_bell, listening)
            process = self._spawn.Process(
                target=child.run,
                args=(service.name, service.config.target, service.config.config, line),
                name=service.name,
            )
            process.start()
            ours.pop_all()
        service.started(process, mailbox)
        return mailbox

    def connect_clients(self) -> None:
        """Give each client that is there, and the supervisor, the two ends of a new pipe."""
        for client in (self.front.mailbox if self.front else None, self.library):
            if client is not None:
                self.connect(client)

    def connect(self, client: Mailbox) -> None:
        """Give a client and the supervisor, if there is one, the two ends of a new pipe.

        Not one that is about to end for another's sake: the client may be of other code
        by now, and the next supervisor is connected with all clients.
        """
        if self.supervisor.mailbox is None or self.supervisor.retires_by is not None:
            return
        one, other = socket.socketpair()
        for mailbox, end in ((self.supervisor.mailbox, one), (client, other)):
            mailbox.post(("client",), (end.detach(),), close=True)
