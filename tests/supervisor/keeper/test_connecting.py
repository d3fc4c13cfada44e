"""Who gets a pipe to whom."""

import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.config import KeeperConfig, ServiceConfig
from jobworker.supervisor.keeper.mailbox import Mailbox
from jobworker.supervisor.keeper.services import Services

NOTHING = ServiceConfig("no.such:thing", "{}")


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def mailbox(selector: selectors.BaseSelector, opened: ExitStack) -> tuple[Mailbox, socket.socket]:
    """The keeper's end of a service's socket, and the service's."""
    ours, theirs = packets.pair()
    opened.callback(theirs.close)
    theirs.setblocking(False)
    ours_too = Mailbox(ours, selector)
    opened.callback(ours_too.close)
    return ours_too, theirs


def pipes(end: socket.socket) -> int:
    """How many ends of pipes the service has been sent."""
    count = 0
    while True:
        try:
            received = packets.receive(end)
        except BlockingIOError:
            return count
        assert received is not None
        packet, descriptors = received
        assert packet == ("client",)
        packets.close_all(descriptors)
        count += 1


def test_a_new_front_gets_no_pipe_to_a_supervisor_that_makes_way(opened: ExitStack) -> None:
    """Fault: within an upgrade the new front talked to the old supervisor, in newer messages."""
    selector = opened.enter_context(selectors.DefaultSelector())
    services = Services(KeeperConfig("/nowhere", NOTHING, NOTHING, -1, {}), selector)
    services.supervisor.mailbox, supervisor = mailbox(selector, opened)
    front, client = mailbox(selector, opened)
    services.connect(front)
    assert (pipes(supervisor), pipes(client)) == (1, 1)
    services.supervisor.retires_by = 1.0
    services.connect(front)
    assert (pipes(supervisor), pipes(client)) == (0, 0)
    # The next one has no deadline, and is connected with everybody.
    services.supervisor.retires_by = None
    services.connect(front)
    assert (pipes(supervisor), pipes(client)) == (1, 1)
