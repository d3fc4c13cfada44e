"""A job in the foreground: its output comes here, what is typed here goes to it.

The output is read in a thread of its own. What that finds, what the keyboard says, and
the signals that arrive here come to the main thread as events of one queue, and only
the main thread decides.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Self

from jobworker.cli.errors import failure
from jobworker.cli.keyboard import LAST_SECONDS, Keyboard, raw
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.cli.display.sink import Sink
    from jobworker.client.connection import Service
    from jobworker.client.input import InputSender
    from jobworker.client.messages import JobStatus
    from jobworker.proto import workerservice_pb2 as pb


@dataclass(frozen=True, slots=True)
class Started:
    """There is a job to follow."""

    job: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended, and its output has been written."""

    job: "JobStatus"


@dataclass(frozen=True, slots=True)
class Failed:
    """The job cannot be started or followed."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Someone wants it to end: Ctrl-C, or a signal that ends programs."""


@dataclass(frozen=True, slots=True)
class Left:
    """The user has typed the keys that leave the job, or their terminal is gone."""


@dataclass(frozen=True, slots=True)
class Resized:
    """The user's terminal has another size."""


@dataclass(frozen=True, slots=True)
class CannotType:
    """What is typed does not reach the job any more."""

    error: ClientError


Event = Started | Ended | Failed | Interrupted | Left | Resized | CannotType
Events = SimpleQueue[Event]


@contextmanager
def signals_to(events: Events) -> Iterator[None]:
    """Turn the signals that would end this process into events."""

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        # SimpleQueue.put is reentrant: the docs allow it in a signal handler.
        events.put(Interrupted())

    # Windows has no terminals that hang up.
    ending = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]
    # What was ignored when this process started stays so, as under nohup(1).
    before = {
        number: signal.signal(number, interrupted)
        for number in ending
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(
    service: "Service",
    events: Events,
    begin: Callable[[], str],
    wanted: "pb.GetOutputRequest",
    sink_of: "Callable[[str], Sink]",
) -> None:
    """Write the output of the job that `begin` gives to its end; tell the events how that goes.

    `wanted` says how to ask for it; the job comes into it when it is known.
    """
    from jobworker.client.follow import read_output, wait_for_end
    from jobworker.client.messages import read_job
    from jobworker.proto import workerservice_pb2 as pb

    try:
        wanted.jobID = job = begin()
        events.put(Started(job))
        sink = sink_of(job)
        for piece in read_output(service, wanted):
            sink.write(piece)
        ended = wait_for_end(service, pb.WaitRequest(jobID=job))
        events.put(Ended(read_job(ended)))
    except ClientError as error:
        events.put(Failed(failure(error, service.endpoint)))
    except Exception as error:  # noqa: BLE001 - the main thread raises it
        events.put(Failed(error))


def follow_in_thread(
    service: "Service",
    events: Events,
    begin: Callable[[], str],
    wanted: "pb.GetOutputRequest",
    sink_of: "Callable[[str], Sink]",
) -> None:
    """As `follow`, in a thread of its own."""
    arguments = (service, events, begin, wanted, sink_of)
    threading.Thread(target=follow, args=arguments, daemon=True).start()


class Typing:
    """What is typed goes to the job from `begin` to the end of the block.

    With `terminal` the job's is connected to the user's: every key goes there.
    """

    def __init__(
        self,
        service: "Service",
        events: Events,
        *,
        terminal: bool,
        keys: bytes,
        sharing: "pb.InputSharing | None" = None,
    ) -> None:
        self._service = service
        self._events = events
        self._keys = keys
        self._sharing = sharing
        self._keyboard: Keyboard | None = None
        self._stack = ExitStack()
        self.terminal = terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, job: str, *, redraw: bool = False) -> None:
        """There is a job to type to; `redraw` has its program show again what it shows."""
        from jobworker.client.input import InputSender
        from jobworker.proto import workerservice_pb2 as pb

        self._keyboard = Keyboard(
            InputSender(self._service, job, self._sharing or pb.INPUT_SHARING_ALONE),
            keys=self._keys if self.terminal else b"",
            left=lambda: self._events.put(Left()),
            failed=lambda error: self._events.put(CannotType(error)),
        )
        self._stack.callback(self._keyboard.stop)
        if self.terminal:
            self._stack.enter_context(raw())
            self._stack.enter_context(_sizes_to(self._events))
        if self.terminal:
            self._keyboard.resized(redraw=redraw)
        self._keyboard.begin()

    def resized(self) -> None:
        """The user's terminal has another size."""
        if self._keyboard is not None:
            self._keyboard.resized()

    def end(self) -> None:
        """Read nothing more, and put the terminal back."""
        with contextlib.closing(self._stack):
            self._keyboard = None


@contextmanager
def attending(service: "Service", job: str) -> "Iterator[InputSender]":
    """Attend to a job that one sends nothing, so that it does not go on without."""
    from jobworker.client.input import InputSender

    sender = InputSender(service, job)

    def attend() -> None:
        # Its output tells what there is to tell of the connection.
        with contextlib.suppress(ClientError):
            sender.run()

    thread = threading.Thread(target=attend, daemon=True)
    thread.start()
    try:
        yield sender
    finally:
        sender.close()
        thread.join(LAST_SECONDS)


@contextmanager
def _sizes_to(events: Events) -> Iterator[None]:
    before = signal.signal(signal.SIGWINCH, lambda *_: events.put(Resized()))
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
