"""What a node's user could put into a job's directory: nothing of it is followed or waited for."""

import json
import os
from pathlib import Path

import pytest

from jobworker.supervisor.core import retention
from jobworker.supervisor.job import Reason
from jobworker.supervisor.output.segments import Segment, data_path, index_path
from jobworker.supervisor.slurm.controller import Seen
from jobworker.supervisor.slurm.files import EXIT, STARTED, Order, Places
from jobworker.supervisor.slurm.told import look
from jobworker.supervisor.slurm.words import ENDED, ending, waiting, without_record


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path, "job", "nonce")
    found.output.mkdir(parents=True)
    return found


def test_a_claim_is_made_once(places: Places) -> None:
    assert places.claim()
    assert not places.claim()


def test_an_order_comes_as_it_was() -> None:
    order = Order(["a", "\udcff"], {"X": "\udc80"}, "/", 0o22, 65536, rlimits=[(4, 0)])
    assert Order.decode(order.encode()).argv == order.argv
    assert Order.decode(order.encode()).environment == order.environment


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"code": 4096}', '{"code": "0"}', '{"code": -65}', "\0" * 100_000]
)
def test_nonsense_is_as_good_as_nothing(places: Places, text: str) -> None:
    places.told(EXIT).write_text(text)
    assert look(places).ended is None


@pytest.mark.parametrize(
    "text",
    [
        '{"pid": 1000000000000, "node": "n", "slurm": 1}',
        '{"pid": 0, "node": "n", "slurm": 1}',
        '{"pid": 5, "node": "n", "slurm": -1}',
    ],
)
def test_no_process_has_such_a_number(places: Places, text: str) -> None:
    places.told(STARTED).write_text(text)
    assert look(places).started is None


@pytest.mark.parametrize(
    "text", ['{"user_seconds": 1e999}', '{"peak_kib": -1}', '{"read_blocks": 1e30}']
)
def test_nothing_uses_as_much(places: Places, text: str) -> None:
    places.told(EXIT).write_text(text)
    assert look(places).ended is None


def test_what_is_told_can_be_shown(places: Places) -> None:
    places.told(EXIT).write_text(json.dumps({"error": 2, "step": "execute \x1b[2J\n"}))
    found = look(places).ended
    assert found is not None
    assert found.what == "execute ?[2J?"


def test_more_output_than_there_can_be_is_none(places: Places) -> None:
    (places.output / f"{2**63}.data").touch()
    assert look(places).output_end == 0


def test_room_is_made_by_no_file_of_others(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        retention._empty(tmp_path / "link")
    assert precious.read_text() == "precious"
    assert retention._empty(precious) > 0
    assert precious.read_text() == ""


def test_links_and_pipes_are_as_good_as_nothing(places: Places, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(json.dumps({"code": 3}))
    places.told(EXIT).symlink_to(elsewhere)
    assert look(places).ended is None
    places.told(EXIT).unlink()
    os.mkfifo(places.told(EXIT))
    assert look(places).ended is None
    places.told(EXIT).unlink()
    elsewhere.rename(places.told(EXIT))
    found = look(places).ended
    assert found is not None
    assert found.code == 3


def test_names_that_no_recorder_gives_are_nothing(places: Places) -> None:
    (places.output / "x.data").touch()
    assert look(places).output_end == 0


def test_output_is_not_read_through_a_link(places: Places, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    index_path(places.output, 0).touch()
    data_path(places.output, 0).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        Segment(places.output, 0)


def seen(state: str, reason: str = "None", nodes: str = "") -> Seen:
    return Seen(7, "jobworker:job:nonce", state, reason, nodes)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("TIMEOUT", Reason.TIMED_OUT),
        ("DEADLINE", Reason.TIMED_OUT),
        ("OUT_OF_MEMORY", Reason.OUT_OF_MEMORY),
        ("NODE_FAIL", Reason.LOST),
        ("BOOT_FAIL", Reason.LOST),
        ("PREEMPTED", Reason.LOST),
        ("CANCELLED", Reason.STOPPED),
        ("COMPLETED", Reason.NONE),
        ("FAILED", Reason.NONE),
    ],
)
def test_slurms_states_in_words(state: str, reason: Reason) -> None:
    assert state in ENDED
    assert ending(state).reason is reason
    assert bool(ending(state).detail) == bool(reason)
    assert without_record(seen(state, nodes="n1")).reason is (reason or Reason.LOST)


def test_what_a_job_waits_for_in_words() -> None:
    assert waiting(seen("PENDING", "Resources")).endswith("free processors or memory (Resources)")
    assert waiting(seen("PENDING", "Unheard")) == "waits in Slurm: Unheard"
    assert "knows it no more" in without_record(None).detail
    assert without_record(seen("NODE_FAIL", nodes="n1")).detail == "the node failed (node n1)"
