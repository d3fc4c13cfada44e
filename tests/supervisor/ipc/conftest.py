from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection, Pipe

import pytest

from jobworker.supervisor.ipc.client import SupervisorClient
from jobworker.supervisor.keeper import packets


@pytest.fixture
def supervisor() -> Iterator[tuple[SupervisorClient, Connection]]:
    """A client, and the other end of its pipe, which the test speaks for."""
    with ExitStack() as stack:
        control, keeper = map(stack.enter_context, packets.pair())
        end, other = map(stack.enter_context, Pipe())
        packets.send(keeper, ("client",), (other.fileno(),))
        yield SupervisorClient(control), end
