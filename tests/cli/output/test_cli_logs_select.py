"""`jobworker logs`: a part of the output, several jobs, times and streams."""

import json
import re
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.server import Server

DEADLINE_SECONDS = 60
LINES = "".join(f"line {number}\n" for number in range(1, 11)).encode()


@pytest.fixture(scope="module")
def lines(server: Server) -> str:
    """A job that has written ten lines and ended."""
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; done"
    return _ended(server, script)


@pytest.fixture(scope="module")
def streams(server: Server) -> str:
    """A job that has written to both streams, the second time later, and ended."""
    return _ended(server, "echo out; echo err >&2; sleep 0.3; echo later; echo worse >&2")


def _ended(server: Server, script: str) -> str:
    job = server.ask("alice", "start", "sh", "-c", script)
    server.run("alice", "logs", "-f", job)
    return job


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-n", "3"], b"line 8\nline 9\nline 10\n"),
        (["-n", "0"], b""),
        (["-n", "99"], LINES),
        (["-c", "8"], b"line 10\n"),
        (["--bytes", "1K"], LINES),
        (["--offset", "63"], b"line 10\n"),
        (["--since", "1h"], LINES),
        (["--until", "1h"], b""),
        (["--since", "1h", "--until", "0s"], LINES),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_part_of_the_output(
    server: Server, lines: str, options: list[str], expected: bytes
) -> None:
    assert server.run("alice", "logs", *options, lines).stdout == expected


def test_two_beginnings_are_refused(server: Server, lines: str) -> None:
    done = server.run("alice", "logs", "-n", "3", "--offset", "7", lines)
    assert done.returncode == 2
    assert b"cannot both" in done.stderr


def test_one_stream(server: Server, streams: str) -> None:
    assert server.run("alice", "logs", "--stdout", streams).stdout == b"out\nlater\n"
    assert server.run("alice", "logs", "--stderr", streams).stdout == b"err\nworse\n"
    assert server.run("alice", "logs", "--stderr", "-n", "1", streams).stdout == b"worse\n"


def test_both_streams_are_both(server: Server, streams: str) -> None:
    """The one that was named last hid the other."""
    for both in ([], ["--stdout", "--stderr"]):
        done = server.run("alice", "logs", *both, streams)
        assert (done.stdout, done.stderr) == (b"out\nlater\n", b"err\nworse\n")


def test_lines_come_where_they_were_written(server: Server, streams: str, lines: str) -> None:
    """What jobs wrote to stderr came out on stdout."""
    done = server.run("alice", "logs", "-t", streams)
    assert [line.split()[1] for line in done.stdout.splitlines()] == [b"out", b"later"]
    assert [line.split()[1] for line in done.stderr.splitlines()] == [b"err", b"worse"]
    done = server.run("alice", "logs", streams, lines)
    assert [line.split()[-1] for line in done.stderr.splitlines()] == [b"err", b"worse"]
    assert [line.split()[-1] for line in done.stdout.splitlines()][:2] == [b"out", b"later"]


def test_merged_all_comes_on_stdout_in_the_order_of_arrival(server: Server, streams: str) -> None:
    done = server.run("alice", "logs", "--merge", streams)
    assert done.stderr == b""
    assert {*done.stdout.split()[:2]} == {b"out", b"err"}
    assert {*done.stdout.split()[2:]} == {b"later", b"worse"}
    done = server.run("alice", "logs", "--merge", "-t", streams)
    assert (len(done.stdout.splitlines()), done.stderr) == (4, b"")


def test_a_long_line_has_one_prefix(server: Server, lines: str, tmp_path: Path) -> None:
    """A line of 100 MB was cut into some 96, each with a prefix."""
    (tmp_path / "line").write_bytes(b"x" * 5_000_000)
    job = _ended(server, f"echo first; cat {tmp_path}/line; echo; echo last")
    for options in (["-t", job], [job, lines], ["-f", "--merge", "-t", job]):
        printed = server.run("alice", "logs", *options).stdout.splitlines()
        first, long, last = printed[:3]
        assert first.endswith(b" first")
        assert last.endswith(b" last")
        assert long.split(b" ")[-1] == b"x" * 5_000_000
        assert len(long) < 5_000_100


def test_timestamps_are_those_of_the_writing(server: Server, streams: str) -> None:
    printed = server.run("alice", "logs", "-t", "--stdout", streams).stdout.decode()
    stamped = [line.split(" ", 1) for line in printed.splitlines()]
    assert [text for _, text in stamped] == ["out", "later"]
    first, second = (datetime.fromisoformat(stamp) for stamp, _ in stamped)
    assert 0.25 < (second - first).total_seconds() < 30
    assert abs((datetime.now(UTC) - first).total_seconds()) < DEADLINE_SECONDS


def test_since_a_time_that_timestamps_gave(server: Server, streams: str) -> None:
    printed = server.run("alice", "logs", "-t", "--stdout", streams).stdout.decode()
    stamp = printed.splitlines()[1].split(" ")[0]
    assert b"later\n" in server.run("alice", "logs", "--since", stamp, streams).stdout
    assert b"out\n" not in server.run("alice", "logs", "--since", stamp, streams).stdout


def test_as_json_each_piece_has_its_stream_and_time(server: Server, streams: str) -> None:
    printed = server.run("alice", "logs", "-o", "json", streams).stdout
    pieces = [json.loads(line) for line in printed.splitlines()]
    assert {piece["stream"] for piece in pieces} == {"stdout", "stderr"}
    assert all(datetime.fromisoformat(piece["time"]).tzinfo for piece in pieces)


def test_of_several_jobs_each_line_says_whose_it_is(server: Server) -> None:
    one, two = (_ended(server, f"echo {word}; printf more") for word in ("one", "two"))
    printed = server.run("alice", "logs", one, two).stdout.decode().splitlines()
    label = re.compile(r"([0-9a-f-]{8,36}) \| (.*)")
    found = [label.fullmatch(line) for line in printed]
    assert all(found)
    assert [match[2] for match in found if match] == ["one", "more", "two", "more"]
    labels = [match[1] for match in found if match]
    assert one.endswith(labels[0])
    assert two.endswith(labels[2])
    assert labels[0] != labels[2]


def test_raw_of_several_jobs_is_nothing_but_the_bytes(server: Server) -> None:
    one, two = (_ended(server, f"printf {word}") for word in ("one", "two"))
    assert server.run("alice", "logs", "--raw", one, two).stdout == b"onetwo"


def test_raw_and_timestamps_contradict(server: Server, lines: str) -> None:
    done = server.run("alice", "logs", "--raw", "-t", lines)
    assert done.returncode == 2
    assert b"--raw" in done.stderr


def test_several_jobs_are_followed_at_once(server: Server) -> None:
    script = "echo $0 on; trap 'echo $0 off; exit' TERM; while :; do sleep 0.1; done"
    one, two = (server.ask("alice", "start", "sh", "-c", script, word) for word in ("one", "two"))
    with server.popen("alice", "logs", "-f", one, two) as follower:
        assert follower.stdout is not None
        on = [follower.stdout.readline() for _ in range(2)]
        assert sorted(line.split(b" | ")[1] for line in on) == [b"one on\n", b"two on\n"]
        server.ask("alice", "stop", two)
        server.ask("alice", "stop", one)
        rest = follower.stdout.read()
        assert follower.wait(DEADLINE_SECONDS) == 0
    ends = [line.split(b" | ")[1] for line in rest.splitlines()]
    # The shell may say before it that TERM has ended its sleep, too.
    assert [line for line in ends if line.endswith(b"off")] == [b"two off", b"one off"]


def test_ctrl_c_ends_the_following_of_several_jobs_not_the_jobs(server: Server) -> None:
    jobs = [server.ask("alice", "start", "sh", "-c", "echo on; sleep 1000") for _ in range(2)]
    with server.popen("alice", "logs", "-f", *jobs) as follower:
        assert follower.stdout is not None
        for _ in jobs:
            follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(DEADLINE_SECONDS) == 130
    assert set(jobs) <= set(server.ask("alice", "list", "-q", "--running").split())
    server.ask("alice", "stop", *jobs)
