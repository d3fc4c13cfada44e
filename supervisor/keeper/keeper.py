"""The keeper: starts the supervisor and the front, restarts them, and holds what must outlive them.

It is the parent of every job and the subreaper (prctl(2),
PR_SET_CHILD_SUBREAPER) of what they leave behind, so an exit status has one
place to arrive at, whoever else dies. It is small, single-threaded, and imports
neither protobuf nor asyncio: it makes every job's process (births.py), and what
it has imported is what nobody can upgrade while jobs run.

SIGTERM and SIGINT stop every job and end the service. SIGHUP reads its file again
and replaces supervisor and front, SIGUSR1 ends them but stays, dormant, with
the jobs; in both cases the jobs run on.
"""

import os
import selectors
import signal
import socket
import time
from pathlib import Path

from jobworker.supervisor.keeper import logs, packets, sd_notify
from jobworker.supervisor.keeper.births import Births
from jobworker.supervisor.keeper.config import REFUSED, KeeperConfig
from jobworker.supervisor.keeper.ledger import ExitLedger
from jobworker.supervisor.keeper.mailbox import Mailbox
from jobworker.supervisor.keeper.program import in_memory
from jobworker.supervisor.keeper.services import Ending, Phase, Service, Services
from jobworker.supervisor.keeper.state_lock import DORMANT, SERVING, StateLock
from jobworker.supervisor.keeper.upgrade import Upgrade

# Seconds that the front has to end by itself once told to.
FRONT_END_SECONDS = 10.0
# And the supervisor, to make way for another.
SUPERVISOR_END_SECONDS = 30.0
# How long to wait before trying again what the system has refused: a service's start, a packet.
REFUSED_START_SECONDS = 1.0
REFUSED_PACKET_SECONDS = 0.05
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Keeper:
    """The event loop and everything it owns. `run` returns the exit status."""

    def __init__(self, path: Path, config: KeeperConfig, lock: StateLock) -> None:
        self._path = path
        self._lock = lock
        self._selector = selectors.DefaultSelector()
        self._births = Births()
        # What a supervisor has under way from jobs' pipes to a gap in their output.
        self._limbo = in_memory("jobworker-limbo", b"")
        # What a supervisor tells this keeper, and so its jobs, from another by.
        self._identity = os.urandom(8).hex()
        self._ledger = ExitLedger()
        self._services = Services(config, self._selector)
        self._upgrading = Upgrade(path, config)
        self._phase = Phase.SERVING
        self._ending_since = 0.0
        self._status = 0
        self._wakeup = _signals_as_descriptor()
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)

    def run(self) -> int:
        """Keep the service running until it is told to stop or refuses its configuration."""
        while True:
            self._start_due()
            if self._finished():
                return self._status
            for key, events in self._selector.select(self._seconds_to_next()):
                if key.data is None:
                    self._take_signals()
                else:
                    self._serve(key.data, events)
            if self._services.supervisor.mailbox is not None:
                # It rings only for what is urgent.
                self._drain(self._services.supervisor.mailbox)
            for mailbox in self._refused():
                mailbox.flush()
                self._drain(mailbox)
            self._kill_overdue()
            self._reap()
            self._report_exits()

    # -- starting and ending the services ------------------------------------

    def _start_due(self) -> None:
        for service in self._services.wanted(self._phase):
            if service.process is None and time.monotonic() >= service.due:
                try:
                    self._start(service)
                except OSError as error:
                    # Its processes, its descriptors: a host that is out of them has them again.
                    log(f"cannot start the {service.name} now: {error.strerror}", "warning")
                    service.put_off(REFUSED_START_SECONDS)

    def _start(self, service: Service) -> None:
        mailbox = self._services.start(service)
        if service is self._services.supervisor:
            self._hand_over(mailbox)
        else:
            self._services.connect(mailbox)

    def _hand_over(self, mailbox: Mailbox) -> None:
        """Give a new supervisor what the one before left: descriptors, exits, clients."""
        for key, born in self._births.items():
            mailbox.post(("kept", key, born.pid, born.start), born.kept)
        mailbox.post(("limbo",), (self._limbo,))
        mailbox.post(("can", "input"))
        mailbox.post(("keeper", os.getpid(), self._identity))
        self._ledger.resend_all()
        self._services.connect_clients()
        if self._phase is Phase.STOPPING:
            mailbox.post(("stop",))

    def _ended(self, service: Service, exitcode: int) -> None:
        """A service's process has been reaped; `exitcode` is -N for signal N."""
        if service.mailbox is not None:
            self._drain(service.mailbox)
        ending = service.ended(exitcode)
        stopping = self._phase is Phase.STOPPING
        if ending is Ending.RETIRED:
            if service is self._services.front and self._phase in (Phase.SERVING, Phase.DORMANT):
                self._retire_supervisor()
            return
        if stopping and service is self._services.supervisor and exitcode == 0:
            self._end()
        elif ending in (Ending.REFUSED, Ending.HOPELESS) and self._upgrading.under_way:
            self._go_back(f"{service.name}: {ending.value} (exit status {exitcode})", exitcode)
        elif ending in (Ending.REFUSED, Ending.HOPELESS) and (stopping or not len(self._births)):
            log(f"{service.name}: {ending.value}, and there is no job to stay for", "error")
            self._status = REFUSED if ending is Ending.REFUSED else 1
            self._services.supervisor.kill()
            self._end()
        elif service in self._services.wanted(self._phase):
            log(service.story(exitcode), "warning")

    def _end(self) -> None:
        """Tell the front to end; when it has, so does the keeper."""
        self._phase = Phase.ENDING
        self._ending_since = time.monotonic()
        self._services.listening.close()
        if self._services.front is not None:
            self._services.front.hang_up()

    def _finished(self) -> bool:
        if self._phase is not Phase.ENDING:
            return False
        if time.monotonic() > self._ending_since + FRONT_END_SECONDS:
            for service in self._services.all():
                service.kill()
        return all(service.process is None for service in self._services.all())

    def _seconds_to_next(self) -> float | None:
        """How long to wait for events: to the next start or deadline."""
        if self._phase is Phase.ENDING:
            times = [self._ending_since + FRONT_END_SECONDS]
        else:
            wanted = self._services.wanted(self._phase)
            times = [service.due for service in wanted if service.process is None]
            retiring = [service.retires_by for service in self._services.all()]
            times += [by for by in retiring if by is not None]
        if self._refused():
            times.append(time.monotonic() + REFUSED_PACKET_SECONDS)
        return max(0.0, min(times) - time.monotonic()) + 0.001 if times else None

    def _refused(self) -> list[Mailbox]:
        """Those whose packets the system would not have."""
        mailboxes = [self._services.library, *(one.mailbox for one in self._services.all())]
        return [mailbox for mailbox in mailboxes if mailbox is not None and mailbox.refused]

    # -- messages -------------------------------------------------------------

    def _serve(self, mailbox: Mailbox, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            mailbox.flush()
        if events & selectors.EVENT_READ:
            mailbox.silence()
            if not self._drain(mailbox) and mailbox is self._services.library:
                # The program that uses the library has ended, or has had enough.
                # (For the services, reaping tells.)
                mailbox.close()
                self._services.library = None
                self._stop()

    def _drain(self, mailbox: Mailbox) -> bool:
        """Take in every packet that is there; False at the end of the socket."""
        while True:
            try:
                received = mailbox.receive()
            except BlockingIOError:
                return True
            except ValueError:
                log("ignored a packet that is none", "warning")
                continue
            if received is None:
                return False
            if mailbox is self._services.supervisor.mailbox:
                self._take(*received)
            else:
                self._take_from_client(*received)

    def _take(self, packet: packets.Packet, descriptors: tuple[int, ...]) -> None:
        """Do what the supervisor says."""
        match packet:
            case ("launch", str(key), str(cgroup)):
                self._launch(key, cgroup, descriptors)
            case ("launch", str(key), str(cgroup), int(more)) if more > 0:
                self._launch(key, cgroup, descriptors, more)
            case ("shut", str(key), int(index)):
                self._births.shut(key, index)
            case ("drop", str(key)):
                self._births.drop(key)
            case ("recorded", int(serial)):
                self._ledger.acknowledge(serial)
            case ("up", _, _):
                self._came_up(self._services.supervisor)
            case _:
                packets.close_all(descriptors)
                log(f"ignored a packet it does not know: {packet!r}", "warning")

    def _take_from_client(self, packet: packets.Packet, descriptors: tuple[int, ...]) -> None:
        """Hear the front out: it faces the network, and has nothing else to say."""
        if packet == ("listening",) and self._services.front is not None:
            if not self._services.listening.keep(descriptors):
                log("ignored what the front listens on: it is not sockets that do", "warning")
            return
        packets.close_all(descriptors)
        match packet:
            case ("up", _, str(address)) if self._services.front is not None:
                self._came_up(self._services.front)
                log(f"serving on {address}")
                sd_notify.notify("READY=1", f"STATUS=serving on {address}")
            case _:
                log("ignored a packet of a client's", "warning")

    def _launch(self, key: str, cgroup: str, descriptors: tuple[int, ...], more: int = 0) -> None:
        """Make a job's process, once however often it is asked for, and tell of it."""
        answer: packets.Packet
        pidfd: tuple[int, ...]
        try:
            born = self._births.make(key, cgroup, descriptors, more)
            answer, pidfd = ("made", key, born.pid, born.start), (os.dup(born.pidfd),)
        except OSError as error:
            self._births.undo(key)
            answer, pidfd = ("refused", key, error.errno or 0), ()
        mailbox = self._services.supervisor.mailbox
        if mailbox is not None:
            mailbox.post(answer, pidfd, close=True)
        else:
            packets.close_all(pidfd)

    def _report_exits(self) -> None:
        mailbox = self._services.supervisor.mailbox
        while mailbox is not None and mailbox.idle:
            report = self._ledger.next_unsent()
            if report is None:
                return
            mailbox.post(report)
            self._ledger.sent(report)

    # -- signals ---------------------------------------------------------------

    def _take_signals(self) -> None:
        numbers = self._wakeup.recv(4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        elif self._phase not in (Phase.SERVING, Phase.DORMANT):
            return
        elif signal.SIGHUP in numbers:
            self._upgrade()
        elif signal.SIGUSR1 in numbers:
            self._enter(Phase.DORMANT)
            self._retire_all()
            # Nobody will come to answer: who connects is better refused at once.
            self._services.listening.close()
            log("dormant: the jobs run on, until a service is started here again")

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        try:
            self._lock.tell(DORMANT if phase is Phase.DORMANT else SERVING)
        except OSError as error:
            log(f"cannot tell that it is {phase.value}: {error.strerror}", "warning")

    def _stop(self) -> None:
        """Have the supervisor stop every job and end; then the front, then this process."""
        if self._phase in (Phase.SERVING, Phase.DORMANT):
            sd_notify.notify("STOPPING=1")
            self._enter(Phase.STOPPING)
            if self._services.supervisor.mailbox is not None:
                self._services.supervisor.mailbox.post(("stop",))

    def _upgrade(self) -> None:
        """Replace supervisor and front by what the configuration and the code are now."""
        try:
            config = KeeperConfig.read(self._path)
        except (OSError, ValueError) as error:
            log(f"cannot read {self._path} ({error}): going on as before", "error")
            self._upgrading.refuse(f"cannot read {self._path}: {error}")
            return
        sd_notify.reloading()
        self._upgrading.begin(config)
        self._replace_services(config)
        log("upgrading: the jobs run on")

    def _replace_services(self, config: KeeperConfig) -> None:
        self._services.configure(config)
        os.environ.update(config.environment)
        self._retire_all()
        self._enter(Phase.SERVING)

    def _came_up(self, service: Service) -> None:
        service.up = True
        if all(one.up and one.retires_by is None for one in self._services.all()):
            self._upgrading.succeed()

    def _go_back(self, reason: str, exitcode: int) -> None:
        """There is no serving with what an upgrade has brought: what was before is tried again."""
        config = self._upgrading.fail(reason, refused=exitcode == REFUSED)
        log(f"{reason}: going on with the settings of before the upgrade", "error")
        for service in self._services.all():
            service.forgive()
        self._replace_services(config)

    def _retire_all(self) -> None:
        """Have supervisor and front end without touching a job.

        The front first: what it has been asked for it can finish while there is
        a supervisor, and clients wait no longer than it takes the next front.
        """
        front = self._services.front
        if front is None or front.process is None:
            self._retire_supervisor()
            return
        front.retire(FRONT_END_SECONDS)
        front.hang_up()

    def _retire_supervisor(self) -> None:
        supervisor = self._services.supervisor
        supervisor.retire(SUPERVISOR_END_SECONDS)
        if supervisor.mailbox is not None:
            supervisor.mailbox.post(("retire",))

    def _kill_overdue(self) -> None:
        """End the services that were to make way for others and have not."""
        for service in self._services.all():
            if service.retires_by is not None and time.monotonic() > service.retires_by:
                log(f"{service.name}: killed, as it did not end by itself", "warning")
                service.kill()
                service.retire(FRONT_END_SECONDS)

    def _reap(self) -> None:
        """Collect every process that has ended."""
        for service in self._services.all():
            # Starting a process makes multiprocessing look for ended ones, too.
            if service.process is not None and service.process.exitcode is not None:
                self._ended(service, service.process.exitcode)
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._services.of(pid)
            if ended is not None:
                self._ended(ended, os.waitstatus_to_exitcode(status))
            else:
                self._ledger.add(pid, status, usage)


def _signals_as_descriptor() -> socket.socket:
    """A socket that yields the number of each signal as a byte (signal.set_wakeup_fd)."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    return ours


def log(text: str, level: str = "info") -> None:
    """Say something on the service's stderr, in the keeper's name."""
    logs.say("keeper", text, level)
