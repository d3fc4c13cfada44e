"""The audit log: what is written stays as it was, and what was changed is noticed."""

import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobworker.authz.audit.files import AuditBroken, Follower, files_of, last_lines, verify
from jobworker.authz.audit.log import AuditLog
from jobworker.authz.audit.record import (
    GENESIS,
    MAX_COMMAND,
    AuditError,
    Changed,
    Decided,
    Event,
    Recovered,
    decided,
    line_hash,
)
from jobworker.authz.policy.policy import JobFacts
from tests.support.policies import identity, policy

DEADLINE_SECONDS = 60
POLICY = policy('rules:\n  - {allow: "*", to: "cn:alice", jobs: "*/*"}\n')


def event(number: int = 0) -> Event:
    return Changed(job=f"job-{number}", owner="alice", tenant="a", state="running", detail="")


def decision(cn: str, action: str = "start", command: str = "/bin/ls", *arguments: str) -> Decided:
    who, job = identity(cn, "a", "b"), JobFacts(cn, "a", command, arguments)
    return decided(
        identity=who,
        peer="10.0.0.1:5",
        action=action,
        job_id="",
        job=job,
        decision=POLICY.decide(who, action, job),
        version="v1",
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    opened = AuditLog(tmp_path / "audit")
    yield opened
    opened.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A log of three files with 30 records."""
    path = tmp_path / "audit"
    log = AuditLog(path, max_file_bytes=2500)
    for number in range(30):
        log.append(event(number))
    log.close()
    assert len(files_of(path)) >= 3
    return path


def test_a_decision_is_recorded_with_all_that_it_was_about(log: AuditLog, tmp_path: Path) -> None:
    assert log.append(decision("alice", "start", "/bin/ls", "-l", "a b")) == 1
    assert log.append(decision("bob", "stop")) == 2
    first, second = last_lines(tmp_path / "audit", 2)
    assert first.record.event == Decided(
        cn="alice",
        tenants=("a", "b"),
        serial="1",
        peer="10.0.0.1:5",
        action="start",
        job="",
        owner="alice",
        tenant="a",
        command="/bin/ls -l 'a b'",
        command_sha256="",
        allowed=True,
        rule="policy.yaml:2",
        policy="v1",
    )
    assert isinstance(second.record.event, Decided)
    assert (second.record.event.allowed, second.record.event.rule) == (False, "")
    assert first.record.previous == GENESIS
    assert second.record.previous == line_hash(first.text)
    assert datetime.now(UTC) - first.record.time < timedelta(seconds=DEADLINE_SECONDS)


def test_every_line_is_json_whatever_it_is_about(log: AuditLog, tmp_path: Path) -> None:
    for text in ('"}\n{"', "\0\x1b\x7f", "\u2028\u202e", "x" * 1_000_000, "\U0001f600", "\udc80"):
        log.append(decision("bob", "start", text, text))
    (file,) = files_of(tmp_path / "audit")
    lines = file.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(len(line) < 8 * MAX_COMMAND for line in lines)


def test_a_long_command_is_cut_and_known_by_its_hash() -> None:
    one, two = (decision("bob", "start", "/bin/ls", "x" * 10_000, end) for end in ("a", "b"))
    assert one.command == two.command
    assert len(one.command) == MAX_COMMAND
    assert one.command_sha256 != two.command_sha256


def test_the_files_are_their_owners_alone(log: AuditLog, tmp_path: Path) -> None:
    log.append(event())
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o700
    (file,) = files_of(tmp_path / "audit")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    for number in range(1, 4):
        log = AuditLog(tmp_path / "audit")
        assert log.append(event()) == number
        log.close()
    found = verify(tmp_path / "audit")
    assert (found.files, found.first, found.last) == (1, 1, 3)


def test_files_are_followed_by_new_ones(directory: Path) -> None:
    found = verify(directory)
    assert (found.first, found.last) == (1, 30)
    assert all(file.stat().st_size < 3000 for file in files_of(directory))
    assert [line.record.number for line in last_lines(directory, 25)] == list(range(6, 31))
    assert len(last_lines(directory, 100)) == 30
    assert last_lines(directory, 0) == []


def test_old_files_are_removed_and_the_rest_still_holds_together(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", max_file_bytes=2500, keep_files=2)
    for number in range(50):
        log.append(event(number))
    log.close()
    found = verify(tmp_path / "audit")
    assert found.files == 2
    assert found.last == 50
    assert 1 < found.first < 50


def test_an_empty_log_is_as_it_was_written(log: AuditLog, tmp_path: Path) -> None:
    found = verify(tmp_path / "audit")
    assert (found.first, found.last, found.head) == (0, 0, GENESIS)


def test_one_process_writes(log: AuditLog, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="another process writes the audit log"):
        AuditLog(tmp_path / "audit")
    log.append(event())
    assert verify(tmp_path / "audit").last == 1


def test_threads_may_append_at_once(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", max_file_bytes=20_000)
    threads = [
        threading.Thread(target=lambda: [log.append(event(n)) for n in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert verify(tmp_path / "audit").last == 800


Damage = Callable[[list[bytes]], list[bytes]]
DAMAGES: dict[str, Damage] = {
    "a changed word": lambda lines: [lines[0].replace(b"alice", b"mallo"), *lines[1:]],
    "a removed line": lambda lines: lines[:2] + lines[3:],
    "a doubled line": lambda lines: lines[:2] + lines[1:],
    "exchanged lines": lambda lines: [lines[1], lines[0], *lines[2:]],
    "a line of garbage": lambda lines: [*lines[:2], b"garbage\n", *lines[2:]],
    "a blank line": lambda lines: [*lines[:2], b"\n", *lines[2:]],
    "a space": lambda lines: [lines[0].replace(b",", b", ", 1), *lines[1:]],
    "an unknown field": lambda lines: [
        lines[0].replace(b'"number"', b'"x":1,"number"'),
        *lines[1:],
    ],
    "a removed beginning": lambda lines: lines[1:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("which", [0, 1])
def test_every_damage_is_noticed(directory: Path, damage: Damage, which: int) -> None:
    file = files_of(directory)[which]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(damage(lines)))
    with pytest.raises(AuditBroken, match=r"audit-\d+\.jsonl:\d+: "):
        verify(directory)


def test_a_missing_file_is_noticed(directory: Path) -> None:
    files_of(directory)[1].unlink()
    with pytest.raises(AuditBroken, match=r"begins with record \d+, but the file before it ended"):
        verify(directory)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_byte_before_the_last_line_can_be_changed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("audit")
    log = AuditLog(path)
    for number in range(3):
        log.append(decision("alice", "start", f"/bin/{number}"))
    log.close()
    (file,) = files_of(path)
    content = bytearray(file.read_bytes())
    last = bytes(content).rstrip(b"\n").rfind(b"\n")
    at = data.draw(st.integers(0, last - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    with pytest.raises(AuditBroken):
        verify(path)


def test_a_log_that_was_cut_off_is_noticed_by_a_hash_noted_before(directory: Path) -> None:
    head = verify(directory).head
    assert verify(directory, head).last == 30
    last = files_of(directory)[-1]
    lines = last.read_bytes().splitlines(keepends=True)
    last.write_bytes(b"".join(lines[:-1]))
    assert verify(directory).last == 29
    with pytest.raises(AuditBroken, match=f"no line has the hash {head}"):
        verify(directory, head)


def test_an_unfinished_line_is_dropped_and_that_is_recorded(directory: Path) -> None:
    last = files_of(directory)[-1]
    with last.open("ab") as file:
        file.write(b'{"number":31,"ti')
    # It may as well be one that is being written now.
    assert verify(directory).last == 30
    log = AuditLog(directory)
    log.append(event())
    log.close()
    recovered, _ = last_lines(directory, 2)
    assert recovered.record.event == Recovered(dropped_bytes=16)
    assert verify(directory).last == 32


def test_a_file_that_was_begun_and_not_written_is_gone_on_with(directory: Path) -> None:
    (directory / "audit-000000000031.jsonl").touch()
    log = AuditLog(directory)
    assert log.append(event()) == 31
    log.close()
    assert verify(directory).last == 31


def test_a_damaged_end_is_not_written_after(directory: Path) -> None:
    last = files_of(directory)[-1]
    last.write_bytes(last.read_bytes() + b"garbage\n")
    with pytest.raises(AuditBroken, match="not a record"):
        AuditLog(directory)


def test_what_cannot_be_written_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    """The file may grow by a part of a line only, as on a disk that fills up."""
    path = tmp_path / "audit"
    log = AuditLog(path)
    for number in range(5):
        log.append(event(number))
    (file,) = files_of(path)
    size = file.stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for room in (0, 1, 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
            with pytest.raises(AuditError, match="nothing is done that cannot be recorded"):
                log.append(event())
            assert file.stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert log.append(event()) == 6
    log.close()
    assert verify(path).last == 6


def test_a_failed_repair_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit"
    log = AuditLog(path)
    log.append(event())
    real = os.write

    def short(handle: int, content: bytes) -> int:
        return real(handle, content[:7])

    def fails(handle: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        patch.setattr(os, "ftruncate", fails)
        with pytest.raises(AuditError):
            log.append(event())
    assert log.append(event()) == 2
    log.close()
    assert verify(path).last == 2


def _append_for_ever(path: Path) -> None:
    log = AuditLog(path, max_file_bytes=5000)
    while True:
        log.append(event())


def test_a_killed_writer_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    context = multiprocessing.get_context("spawn")
    last = 0
    for _ in range(3):
        process = context.Process(target=_append_for_ever, args=(path,))
        process.start()
        follower: Follower | None = None
        try:
            seen = 0
            while seen < 50:
                # Waits a little, and no longer than the process lives.
                process.join(0.01)
                assert process.exitcode is None
                if follower is None and path.exists():
                    follower = Follower(path)
                seen += len(list(follower.new_lines())) if follower else 0
        finally:
            process.kill()
            process.join(DEADLINE_SECONDS)
            process.close()
        found = verify(path)
        assert found.last >= last + 50
        last = found.last


def test_a_follower_sees_every_record_once_over_all_files(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", max_file_bytes=2500)
    log.append(event())
    follower = Follower(tmp_path / "audit")
    assert list(follower.new_lines()) == []
    seen = []
    for number in range(60):
        log.append(event(number))
        if number % 7 == 0:
            seen += [line.record.number for line in follower.new_lines()]
    seen += [line.record.number for line in follower.new_lines()]
    log.close()
    assert seen == list(range(2, 62))
    assert all(later == earlier + 1 for earlier, later in pairwise(seen))


def test_a_durable_log_is_the_same_log(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", durable=True)
    log.append(event())
    log.close()
    assert verify(tmp_path / "audit").last == 1


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AuditError, match="cannot write the audit log"):
        AuditLog(tmp_path / "file" / "audit")
    with pytest.raises(AuditError, match=r"cannot read the audit log .*: No such file"):
        verify(tmp_path / "missing")
