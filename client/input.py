"""Sending a job its input, each byte once, also across broken connections."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobworker.client.connection import Service
from jobworker.client.errors import CallFailed, ClientError
from jobworker.client.follow import outlast
from jobworker.client.outage import Outage
from jobworker.proto import workerservice_pb2 as pb

# The most that a message holds; the server takes 1 MiB.
MESSAGE_BYTES = 1024 * 1024
# How much may be under way before `send` waits.
WINDOW_BYTES = 4 * 1024 * 1024


@dataclass(eq=False)
class _Message:
    data: bytes
    end: bool = False
    leave: bool = False
    terminal: pb.Terminal | None = None
    # Where its data begins among all that this sender has sent.
    offset: int = 0


class InputSender:
    """Sends input to one job: `run` does, in a thread of its own; any may call the others.

    `sharing` is whom it sends beside: alone, each byte arrives exactly once. Shared,
    what was under way when a connection broke may arrive twice.
    """

    def __init__(
        self,
        service: Service,
        job: str,
        sharing: "pb.InputSharing" = pb.INPUT_SHARING_ALONE,
        outage: Outage | None = None,
    ) -> None:
        self._service = service
        self._job = job
        self._sharing = sharing
        self._outage = outage or Outage()
        self._name = os.urandom(16).hex()
        self._changed = threading.Condition()
        # What is to be sent, and what was sent and not yet answered, in order.
        self._waiting: deque[_Message] = deque()
        self._sent: deque[_Message] = deque()
        self._under_way = 0
        self._offset = 0
        # How much input the job had been sent by others before.
        self._base: int | None = None
        self._closed = self._ended = False
        # The call that is made; those of before end. It is ready once the server has
        # said where it goes on.
        self._call = 0
        self._ready = False
        self.over = False

    # -- for who has something to send --------------------------------------------------

    def send(self, data: bytes) -> bool:
        """Send that, as soon as there is room; False when the job takes no more."""
        for begin in range(0, len(data), MESSAGE_BYTES):
            piece = data[begin : begin + MESSAGE_BYTES]
            with self._changed:
                self._changed.wait_for(
                    lambda: self._under_way < WINDOW_BYTES or self.over or self._closed
                )
                if self.over or self._closed:
                    return False
                self._put(_Message(piece, offset=self._offset))
                self._offset += len(piece)
                self._under_way += len(piece)
        return True

    def end(self) -> None:
        """There is no more: the job is to find the end of its input."""
        with self._changed:
            self._ended = True
            self._put(_Message(b"", end=True, offset=self._offset))

    def resize(self, rows: int, columns: int) -> None:
        """The terminal has another size now."""
        with self._changed:
            self._put(_Message(b"", terminal=pb.Terminal(rows=rows, columns=columns)))

    def leave(self) -> None:
        """Take leave: that one is gone is no disconnection."""
        with self._changed:
            self._put(_Message(b"", leave=True))

    def close(self) -> None:
        """Send what is there, and nothing more; `run` returns then."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, message: _Message) -> None:
        self._waiting.append(message)
        self._changed.notify_all()

    @property
    def refused(self) -> bool:
        """Whether the job did not take all, as it has ended or closed its stdin."""
        with self._changed:
            left = any(message.data for message in (*self._sent, *self._waiting))
            return left or (self.over and not self._ended)

    # -- the calls ---------------------------------------------------------------------------

    def run(self) -> None:
        """Send until closed, or until the job takes no more.

        Raises:
            CallFailed: The server refused.
            CertificateEnded: One's certificate has expired meanwhile, or was revoked.
            GaveUp: The connection broke and did not come back in time.
        """
        try:
            while not self._finished():
                try:
                    self._serve_one_call()
                except CallFailed as error:
                    if error.reason == "ALREADY_ENDED":
                        self._end()
                        break
                    outlast(error, self._outage, self._service, f"the input of {self._job}")
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        """Nothing more is sent: who waits to send is told."""
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def _finished(self) -> bool:
        return self.over or (self._closed and not self._waiting and not self._sent)

    def _serve_one_call(self) -> None:
        with self._changed:
            self._call += 1
            self._ready = False
            # They may have arrived, or not: what the server says decides.
            self._waiting.extendleft(reversed(self._sent))
            self._sent.clear()
        for response in self._service.input(self._messages(self._call)):
            self._outage.over()
            with self._changed:
                if self._ready:
                    self._under_way -= len(self._sent.popleft().data)
                else:
                    self._resume_at(response.received)
                self.over = self.over or response.over
                self._changed.notify_all()

    def _resume_at(self, received: int) -> None:
        """Send nothing again that the job has been sent."""
        if self._base is None:
            self._base = received
        while self._alone and self._waiting and self._arrived(self._waiting[0], received):
            self._under_way -= len(self._waiting.popleft().data)
        self._ready = True

    def _arrived(self, message: _Message, received: int) -> bool:
        end = message.offset + len(message.data)
        return bool(message.data) and (self._base or 0) + end <= received

    @property
    def _alone(self) -> bool:
        return self._sharing != pb.INPUT_SHARING_SHARED

    def _messages(self, call: int) -> Iterator[pb.InputRequest]:
        """The messages of a call, as they come to be sent; gRPC asks for them in a thread."""
        yield pb.InputRequest(jobID=self._job, sharing=self._sharing, sender=self._name)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: call != self._call or self._has_news())
                if call != self._call or self.over or not self._waiting:
                    return
                message = self._waiting.popleft()
                self._sent.append(message)
            yield self._request(message)

    def _has_news(self) -> bool:
        return self.over or (self._ready and (bool(self._waiting) or self._closed))

    def _request(self, message: _Message) -> pb.InputRequest:
        request = pb.InputRequest(
            data=message.data, end=message.end, terminal=message.terminal, leave=message.leave
        )
        if self._alone and (message.data or message.end):
            request.offset = (self._base or 0) + message.offset
        return request


@contextmanager
def sending(
    service: Service,
    job: str,
    sharing: "pb.InputSharing" = pb.INPUT_SHARING_ALONE,
    outage: Outage | None = None,
) -> Iterator[InputSender]:
    """Send what the block says; on leaving it has arrived, or the job takes no more.

    Raises ClientError.
    """
    sender = InputSender(service, job, sharing, outage)
    failed: list[ClientError] = []

    def run() -> None:
        try:
            sender.run()
        except ClientError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield sender
    except BaseException:
        sender.close()
        raise
    sender.close()
    thread.join()
    if failed:
        raise failed[0]
