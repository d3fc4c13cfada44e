"""The log on stderr: levels, and JSON lines on demand, from all three processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker.supervisor.keeper.logs import LEVELS, log_environment
from tests.conftest import POLICY, USERS
from tests.support.chaos import services
from tests.support.server import running_server
from tests.support.waiting import until

FIELDS = {"time", "level", "process", "message"}
# One line of each level by either way, and a traceback.
SPEAKER = """
import logging
from jobworker.supervisor.keeper.logs import LEVELS, log_to_stderr, say
log_to_stderr("front")
for level in LEVELS:
    say("keeper", f"a {level}", level)
    logging.getLogger("some").log(getattr(logging, level.upper()), "two %s", level)
try:
    raise OSError("two\\nlines")
except OSError:
    logging.exception("three")
"""


def said(form: str, level: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SPEAKER],
        env={**os.environ, **log_environment(form, level)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_leaves_out_what_is_below(level: str) -> None:
    told = [json.loads(line) for line in said("json", level)]
    expected = LEVELS[LEVELS.index(level) :]
    assert [line["message"] for line in told if line["process"] == "keeper"] == [
        f"a {one}" for one in expected
    ]
    assert [line["level"] for line in told if line["process"] == "front"] == [*expected, "error"]


def test_a_traceback_is_a_field_of_its_line() -> None:
    last = json.loads(said("json", "info")[-1])
    assert set(last) == FIELDS | {"exception"}
    assert last["exception"].endswith("OSError: two\nlines")


def test_text_says_what_is_more_than_information() -> None:
    lines = said("text", "info")
    assert lines[:4] == [
        "jobworker keeper: a info",
        "jobworker front: two info",
        "jobworker keeper: warning: a warning",
        "jobworker front: warning: two warning",
    ]
    assert "jobworker front: error: three" in lines


def test_json_lines_from_every_process(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY, "log: {format: json}\n") as server:
        for process in services(server):
            process.kill()
        until(lambda: sum("serving on" in line for line in server.log) > 1)
        (tmp_path / "policy.yaml").write_text("rules: 1\n")
        until(lambda: any('"front"' in line and "policy" in line for line in server.log))
    lines = [json.loads(line) for line in server.log]
    assert all(set(line) in (FIELDS, FIELDS | {"exception"}) for line in lines)
    assert {line["process"] for line in lines} >= {"keeper", "front"}
    assert {"info", "warning"} <= {line["level"] for line in lines}
