"""What strangers can have the log say: not a line for each of them."""

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from jobworker.grpc_api.edge.crowd_log import CrowdLog
from tests.support.edge_site import edge_site

MANY = 600


def test_600_failed_handshakes_are_a_few_lines_and_a_sum(tmp_path: Path) -> None:
    """They were 600 lines."""
    with edge_site(tmp_path) as site:
        for _ in range(MANY):
            with site.tcp() as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
        assert site.edge.command("stop", grace=5) == {"stopped": True}
        line = site.edge.wait_for_log("refused connections: ")
        more = MANY - len([one for one in site.edge.seen if "refused a connection from" in one])
        assert f"{more} more within 60 s, from 1 hosts: {more}: it speaks HTTP without TLS" in line
        assert len(site.edge.seen) < 30


def test_each_interval_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    async def two_intervals() -> None:
        crowd = CrowdLog("refused connections", logging.INFO, interval=3600)
        for _ in range(2):
            for number in range(15):
                crowd.tell(f"number {number}", f"10.0.0.{number}:1", "it is late")
            crowd.sum_up()
        crowd.sum_up()

    caplog.set_level(logging.INFO)
    asyncio.run(two_intervals())
    one = [f"number {number}" for number in range(5)]
    one += ["refused connections: 10 more within 3600 s, from 10 hosts: 10: it is late"]
    assert caplog.messages == 2 * one


def test_reasons_that_a_stranger_invents_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    async def invent() -> None:
        crowd = CrowdLog("refused connections", logging.INFO)
        for number in range(1000):
            crowd.tell("text", f"10.0.0.1:{number}", f"reason {number}")
        crowd.sum_up()

    caplog.set_level(logging.INFO)
    asyncio.run(invent())
    assert "987: for other reasons" in caplog.messages[-1]
    assert len(caplog.messages[-1]) < 300
