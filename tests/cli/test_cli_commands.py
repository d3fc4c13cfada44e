"""The client commands against a real server: what they print and how they end."""

import json
import os
import re
import signal
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import calling, refused, start
from tests.support.server import Server

JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_start_prints_the_job_id_alone(server: Server) -> None:
    assert JOB_ID.fullmatch(server.ask("alice", "start", "--", "true"))


def test_start_as_json(server: Server) -> None:
    reply = json.loads(server.ask("alice", "start", "-o", "json", "sleep", "1000"))
    assert JOB_ID.fullmatch(reply["id"])
    assert reply["pid"] > 0


def test_options_after_the_program_are_the_programs(server: Server) -> None:
    job = server.ask("alice", "start", "echo", "-n", "--output", "x")
    assert server.run("alice", "logs", "-f", job).stdout == b"--output x"


def test_a_start_with_the_request_id_of_another_is_that_one(server: Server) -> None:
    first, second = (
        server.ask("alice", "start", "--request-id", "nightly", "true") for _ in range(2)
    )
    assert first == second
    assert server.ask("alice", "start", "true") != first


def test_environment_and_directory_reach_the_job(server: Server) -> None:
    here = str(server.directory)
    done = server.run(
        *("alice", "run", "-e", "A=x=y", "--env", "HOME", "--cwd", here),
        *("--", "sh", "-c", 'echo "$A $HOME $PWD"'),
    )
    assert done.stdout.decode() == f"x=y {here} {here}\n"


@pytest.mark.parametrize("given", ["=x", "JOBWORKER_NOT_SET"])
def test_what_is_no_variable_is_a_usage_error(server: Server, given: str) -> None:
    done = server.run("alice", "start", "--env", given, "true")
    assert done.returncode == 2
    assert given.lstrip("=").encode() in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["start", "--processes", "99999999999", "true"],
        ["start", "--open-files", "99999999999", "true"],
        ["start", "--memory", "99999999999999999999G", "true"],
        ["start", "--output-limit", "99999999999999999999G", "true"],
        ["start", "--output-rate", "99999999999999999999G", "true"],
        ["start", "--cpus", "nan", "true"],
        ["start", "--timeout", "9" * 400, "true"],
        ["stop", "--grace", "9" * 400, "x"],
        ["prune", "--force", "--older-than", "9" * 400],
        ["logs", "-n", "18446744073709551616", "x"],
        ["logs", "-c", "18446744073709551616", "x"],
        ["logs", "--offset", "18446744073709551616", "x"],
        ["logs", "--since", "9" * 400, "x"],
        ["signal", "9" * 5000, "x"],
    ],
    ids=" ".join,
)
def test_a_number_that_nothing_holds_is_a_usage_error(server: Server, words: list[str]) -> None:
    """Such numbers do not fit the contract's fields; most ended in a traceback."""
    done = server.run("alice", *words)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_what_is_not_utf8_arrives_byte_for_byte(server: Server, tmp_path: Path) -> None:
    """Arguments, variables and directories that are not UTF-8 were a usage error."""
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfc"))
    place.mkdir()
    variables = server.run("alice", "run", "-e", "na.me=\udcff", "-e", "\udcfe=x", "env").stdout
    assert {b"na.me=\xff", b"\xfe=x"} <= set(variables.splitlines())
    script = ("sh", "-c", 'printf %s "$1"; pwd', "sh", "a\udcffb\u00fc")
    done = server.run("alice", "run", "--cwd", str(place), "--", *script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"a\xffb\xc3\xbc" + os.fsencode(place) + b"\n"
    job = json.loads(server.run("alice", "list", "-n", "1", "-o", "json").stdout)
    assert job["command"][-1] == "a\udcffb\u00fc"
    assert job["working_directory"] == str(place)
    assert "a\\udcffb" in server.ask("alice", "status", job["id"])


def test_a_program_that_is_not_there_is_told_in_letters(server: Server) -> None:
    done = server.run("alice", "run", "/nowhere/\udcff")
    assert done.returncode == 127
    assert "cannot execute /nowhere/\ufffd" in done.stderr.decode()


def test_more_than_execve_takes_is_told_in_words(server: Server) -> None:
    """4096 arguments, and 1 MiB of them, were the most."""
    many = ["x" * 1000] * 1000
    assert server.run("alice", "run", "echo", *many, *["y"] * 5000).returncode == 0
    done = server.run("alice", "run", "-e", f"BIG={'x' * 131_000}", "env", "-i", "true")
    assert done.returncode == 0, done.stderr
    with calling(server, "alice") as alice:
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as said:
            start(alice, "echo", "x" * 200_000)
        assert "Argument list too long (E2BIG): one argument or variable exceeds 128 KiB" in said[0]
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
            start(alice, "echo", *["x" * 100_000] * 70)
        assert "execve(2) takes 6291456 at most" in said[0]


def test_long_command_lines_keep_nobody_from_listing(server: Server) -> None:
    """A page of them was more than a frame, or a gRPC message, holds."""
    with calling(server, "alice") as alice:
        jobs = [start(alice, "true", *["'" * 100_000] * 15) for _ in range(4)]
        listed = alice.List(pb.ListRequest(pageSize=4)).jobs
        assert {job.jobID for job in listed} == set(jobs)
        assert all(job.argumentsCut and job.command.endswith(" ...") for job in listed)
        assert all(job.ByteSize() < 20_000 for job in listed)
        whole = alice.QueryStatus(pb.QueryStatusRequest(jobID=jobs[0]))
        assert whole.argumentsCut
        assert len(whole.Arguments) == 11


def test_wait_prints_the_exit_code_of_each_job(server: Server) -> None:
    jobs = [server.ask("alice", "start", "sh", "-c", f"exit {code}") for code in (0, 7)]
    assert server.end("alice", *jobs) == "0\n7"


def test_status_tells_how_a_job_ended(server: Server) -> None:
    job = server.ask("alice", "start", "sh", "-c", "echo hi; kill -9 $$")
    assert server.end("alice", job) == "137"
    text = server.ask("alice", "status", job)
    assert "State:     ended: killed by SIGKILL" in text
    status = json.loads(server.ask("alice", "status", "-o", "json", job))
    assert status["id"] == job
    assert (status["state"], status["reason"]) == ("ended", "signaled")
    assert (status["exit_code"], status["signal"]) == (137, signal.SIGKILL)
    assert (status["owner"], status["tenant"]) == ("alice", "team-a")


def test_a_unique_prefix_of_the_id_is_enough(server: Server) -> None:
    job = server.ask("alice", "start", "true")
    assert json.loads(server.ask("alice", "status", "-o", "json", job[:13]))["id"] == job


def test_stop_ends_jobs_and_prints_their_ids(server: Server) -> None:
    jobs = [server.ask("alice", "start", "sleep", "1000") for _ in range(2)]
    assert set(server.ask("alice", "stop", *jobs).split()) == set(jobs)
    for job in jobs:
        status = json.loads(server.ask("alice", "status", "-o", "json", job))
        assert (status["state"], status["reason"]) == ("ended", "stopped")


def test_what_acts_on_jobs_says_so_in_json_too(server: Server) -> None:
    job = server.ask("alice", "start", "sleep", "1000")
    for command in (["signal", "CONT"], ["stop"], ["rm"]):
        printed = server.ask("alice", *command, "-o", "json", job)
        assert json.loads(printed)["id"] == job


def test_stop_with_no_grace_kills(server: Server) -> None:
    job = server.ask(
        "alice", "start", "sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done"
    )
    with server.popen("alice", "logs", "-f", job) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"on\n"
        server.ask("alice", "stop", "--grace", "0", job)
        assert follower.wait(30) == 0
    status = json.loads(server.ask("alice", "status", "-o", "json", job))
    assert status["signal"] == signal.SIGKILL


def test_a_job_is_stopped_after_its_timeout(server: Server) -> None:
    job = server.ask("alice", "start", "--timeout", "300ms", "sleep", "1000")
    assert server.end("alice", job) == "143"
    assert "State:     ended: timed out, killed by SIGTERM" in server.ask("alice", "status", job)


def test_a_job_is_stopped_at_its_output_limit(server: Server) -> None:
    limit = ("--output-limit", "256K", "--output-overflow", "stop-job")
    job = server.ask("alice", "start", *limit, "yes")
    server.end("alice", job)
    status = json.loads(server.ask("alice", "status", "-o", "json", job))
    assert status["reason"] == "output_limit"


def test_output_that_is_not_kept_is_told_as_a_gap(server: Server) -> None:
    limit = ("--output-limit", "256K", "--output-overflow", "rotate")
    job = server.ask("alice", "start", *limit, "head", "-c", "4000001", "/dev/zero")
    # Only when the output is complete is it settled what is kept.
    server.run("alice", "logs", "-f", job)
    begin = json.loads(server.ask("alice", "status", "-o", "json", job))["output_begin"]
    assert 4000001 - 256 * 1024 <= begin < 4000001
    assert f"4000001 bytes, the first {begin} not kept" in server.ask("alice", "status", job)
    done = server.run("alice", "logs", job)
    assert done.returncode == 0
    assert (
        done.stderr.decode() == f"jobworker: {begin} bytes of output from byte 0 on are not kept\n"
    )
    assert len(done.stdout) == 4000001 - begin
    first, *_ = server.run("alice", "logs", "-o", "json", job).stdout.splitlines()
    assert json.loads(first) == {"job": job, "offset": 0, "gap_bytes": begin}


def test_limits_and_isolation_reach_the_job(server: Server) -> None:
    job = server.ask("alice", "start", "--open-files", "17", "sh", "-c", "ulimit -n")
    assert server.run("alice", "logs", "-f", job).stdout == b"17\n"
    assert json.loads(server.ask("alice", "status", "-o", "json", job))["limits"] == {
        "memory_bytes": None,
        "cpus": None,
        "processes": None,
        "open_files": 17,
        "io_weight": None,
    }
    assert "Limits:    open files 17" in server.ask("alice", "status", job)


def test_stats_shows_what_jobs_use(server: Server) -> None:
    script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    ended = server.ask("alice", "start", "sh", "-c", script)
    running = server.ask("alice", "start", "sleep", "1000")
    server.end("alice", ended)
    printed = server.ask("alice", "stats", "-o", "json", ended, running)
    used = [json.loads(line) for line in printed.splitlines()]
    assert [job["id"] for job in used] == [ended, running]
    assert used[0]["usage"]["user_seconds"] > 0
    assert used[0]["usage"]["wall_seconds"] > 0
    rows = [line.split()[0] for line in server.ask("alice", "stats").splitlines()]
    assert rows[0] == "JOB"
    assert running[-8:] in rows
    assert ended[-8:] not in rows
    server.ask("alice", "stop", running)


def test_a_signal_reaches_the_job(server: Server) -> None:
    script = "trap 'echo got; exit 5' USR1; echo on; while :; do sleep 0.1; done"
    job = server.ask("alice", "start", "sh", "-c", script)
    with server.popen("alice", "logs", "-f", job) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"on\n"
        server.ask("alice", "signal", "usr1", job)
        assert follower.stdout.read() == b"got\n"
        assert follower.wait(30) == 0
    assert server.end("alice", job) == "5"


def test_what_is_no_signal_is_a_usage_error(server: Server) -> None:
    done = server.run("alice", "signal", "SIGNONE", "0195")
    assert done.returncode == 2
    assert b"no signal" in done.stderr


def test_list_shows_the_newest_first(fresh_server: Server) -> None:
    ended = fresh_server.ask("alice", "start", "true")
    fresh_server.end("alice", ended)
    running = fresh_server.ask("alice", "start", "sleep", "1000")
    assert fresh_server.ask("alice", "list", "-q").split() == [running, ended]
    assert fresh_server.ask("alice", "list", "-q", "--running").split() == [running]
    assert fresh_server.ask("alice", "list", "-q", "-n", "1").split() == [running]
    assert fresh_server.ask("alice", "list", "-q", "--limit", "0").split() == [running, ended]
    assert fresh_server.ask("alice", "list", "-q", "--owner", "nobody") == ""
    table = fresh_server.ask("alice", "list").splitlines()
    assert table[0].split() == ["JOB", "OWNER", "TENANT", "AGE", "STATE", "COMMAND"]
    assert table[1].endswith("running        sleep 1000")
    printed = fresh_server.ask("alice", "list", "-o", "json").splitlines()
    assert [json.loads(line)["id"] for line in printed] == [running, ended]


def test_an_empty_list_has_no_line_of_json(fresh_server: Server) -> None:
    assert fresh_server.ask("bob", "list", "-o", "json") == ""


def test_whoami(server: Server) -> None:
    me = json.loads(server.ask("alice", "whoami", "-o", "json"))
    assert me["common_name"] == "alice"
    assert me["tenants"] == ["team-a"]
    assert int(me["serial"], 16) == server.users["alice"].serial
    assert "alice" in server.ask("alice", "whoami")


def test_every_job_is_acted_on_although_one_is_not_there(server: Server) -> None:
    job = server.ask("alice", "start", "sleep", "1000")
    done = server.run("alice", "stop", "0195dead", job, "0195beef")
    assert done.returncode == 3
    assert done.stdout.decode().split() == [job]
    # All are stopped at once, so in any order.
    assert {line.split("'")[1] for line in done.stderr.decode().splitlines()} == {
        "0195dead",
        "0195beef",
    }
