"""What the system refuses the keeper once, it tries again: it and every job live on."""

import errno
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobworker.supervisor.keeper import packets, sd_notify
from jobworker.supervisor.keeper.config import KeeperConfig, ServiceConfig
from jobworker.supervisor.keeper.mailbox import Mailbox
from jobworker.supervisor.keeper.services import Services
from jobworker.supervisor.keeper.state_lock import DORMANT, SERVING, Holder, StateLock, holder_of
from tests.supervisor.keeper.test_births import open_files
from tests.supervisor.keeper.test_keeper_exhausted import descriptors_of
from tests.support.library import Site, eventually

NOW_AND_THEN = [errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS]


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 6, 8, 12])
def test_a_service_that_cannot_be_started_now_is_started_later(
    site: Site, left: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The keeper ended, and every job with it, when a supervisor died while descriptors ran out."""
    with site.worker() as worker:
        job = worker.start(["sleep", "1000"])
        keeper = site.keeper()
        with descriptors_of(keeper, left):
            dead = site.signal_supervisor()
            eventually(
                "the keeper has tried",
                lambda: (
                    "cannot start the supervisor" in capfd.readouterr().err
                    or site.supervisor() not in (None, dead)
                ),
            )
        # One that was started has its limit from then.
        site.signal_supervisor()
        assert not job.status().ended
        assert job.stop(0).signal == signal.SIGKILL
        assert worker.start(["true"]).wait().exit_code == 0


class Refusing:
    """Stands for a function of `packets` that the system refuses the first `times`."""

    def __init__(self, real: Any, number: int, times: int) -> None:
        self._real, self._number, self._times = real, number, times

    def __call__(self, *args: Any) -> Any:
        if self._times:
            self._times -= 1
            raise OSError(self._number, os.strerror(self._number))
        return self._real(*args)


@pytest.mark.parametrize("number", NOW_AND_THEN)
def test_a_packet_that_is_refused_is_sent_later(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the keeper: ETOOMANYREFS comes of what other programs of its user do."""
    before = open_files()
    ours, theirs = packets.pair()
    with selectors.DefaultSelector() as selector, theirs:
        mailbox = Mailbox(ours, selector)
        monkeypatch.setattr(packets, "send", Refusing(packets.send, number, 2))
        mailbox.post(("first",), (os.dup(theirs.fileno()),), close=True)
        mailbox.post(("second",))
        assert mailbox.refused
        assert not mailbox.idle
        mailbox.flush()
        mailbox.flush()
        assert mailbox.idle
        assert not mailbox.refused
        packet, descriptors = packets.receive(theirs) or ((), ())
        assert (packet, len(descriptors)) == (("first",), 1)
        packets.close_all(descriptors)
        assert packets.receive(theirs) == (("second",), ())
        mailbox.close()
    assert open_files() == before


@pytest.mark.parametrize("number", NOW_AND_THEN)
def test_a_packet_is_received_later(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = packets.pair()
    with selectors.DefaultSelector() as selector, theirs:
        mailbox = Mailbox(ours, selector)
        monkeypatch.setattr(packets, "receive", Refusing(packets.receive, number, 1))
        packets.send(theirs, ("packet",))
        with pytest.raises(BlockingIOError):
            mailbox.receive()
        assert mailbox.refused
        mailbox.flush()
        assert mailbox.receive() == (("packet",), ())
        assert not mailbox.refused
        mailbox.close()


class Selector(selectors.DefaultSelector):
    """One that the kernel refuses another descriptor (epoll_ctl(2)) as often as is said."""

    refuses = 0

    def register(self, *args: Any) -> selectors.SelectorKey:
        if self.refuses:
            self.refuses -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().register(*args)


def test_a_service_that_cannot_be_heard_is_not_started() -> None:
    """It had its process, beside which another was started a second later."""
    before, children = open_files(), psutil.Process().children()
    with Selector() as selector:
        nothing = ServiceConfig("os:getpid", "{}")
        services = Services(KeeperConfig("/nowhere", nothing, None, -1, {}), selector)
        selector.refuses = 1
        with pytest.raises(OSError, match="No space"):
            services.start(services.supervisor)
        assert psutil.Process().children() == children
        assert not selector.get_map()
    assert open_files() == before


def test_a_packet_waits_also_where_nobody_tells_of_room() -> None:
    ours, theirs = packets.pair()
    bell, rung = socket.socketpair()
    with Selector() as selector, theirs, rung:
        mailbox = Mailbox(ours, selector, bell)
        selector.refuses = 1
        sent = 0
        while mailbox.idle:
            mailbox.post(("packet", sent))
            sent += 1
        assert mailbox.refused
        mailbox.flush()
        assert not mailbox.refused
        assert [packets.receive(theirs) for _ in range(sent - 1)] == [
            (("packet", number), ()) for number in range(sent - 1)
        ]
        ((key, events),) = selector.select(0)
        assert (key.data, events) == (mailbox, selectors.EVENT_WRITE)
        mailbox.flush()
        assert packets.receive(theirs) == (("packet", sent - 1), ())
        mailbox.close()
        assert not selector.get_map()


@pytest.mark.parametrize(
    "data", [b"5", b"null", b'"text"', b"{}", b"\xff", b"[1", b"[" * sys.getrecursionlimit() * 2]
)
def test_what_is_no_packet_is_refused_with_its_descriptors(data: bytes) -> None:
    """A number ended the keeper, and what is no JSON left it the descriptors that came along."""
    ours, theirs = packets.pair()
    with ours, theirs:
        before = open_files()
        socket.send_fds(ours, [data], [ours.fileno(), theirs.fileno()])
        with pytest.raises(ValueError, match="not a packet"):
            packets.receive(theirs)
        assert open_files() == before


def test_systemd_that_does_not_listen_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the keeper."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    sd_notify.notify("READY=1")


def test_who_holds_the_lock_is_told_also_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was emptied first: on a full disk nobody was told who holds the lock."""
    lock = StateLock(tmp_path)
    lock.tell(SERVING)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as failing:
        failing.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            lock.tell(DORMANT)
    assert holder_of(tmp_path) == Holder(os.getpid(), SERVING)
    # As versions before read it.
    assert Holder(*json.loads((tmp_path / "lock").read_text())).state == SERVING
    lock.tell(DORMANT)
    assert holder_of(tmp_path) == Holder(os.getpid(), DORMANT)
    os.close(lock._descriptor)


def test_a_keeper_that_cannot_tell_its_state_keeps_the_jobs(site: Site) -> None:
    """The keeper ended, and its jobs went on with nobody to stop them."""
    with site.worker() as worker:
        job = worker.start(["sleep", "1000"])
        keeper: psutil.Process = site.keeper()
        before = site.supervisor()
        limits = keeper.rlimit(psutil.RLIMIT_FSIZE)
        # write(2): EFBIG, as SIGXFSZ is ignored by Python.
        keeper.rlimit(psutil.RLIMIT_FSIZE, (0, limits[1]))
        keeper.send_signal(signal.SIGHUP)
        eventually("there is another", lambda: site.supervisor() not in (None, before))
        keeper.rlimit(psutil.RLIMIT_FSIZE, limits)
        # It has its limit from then.
        site.signal_supervisor()
        assert job.stop(0).signal == signal.SIGKILL
