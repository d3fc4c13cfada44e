"""How fast text comes over a network of 100 Mbit/s.

A relay lets through so many bytes a second, to `jobworker logs` and to ssh alike.
ssh's -C is measured beside it, as its users know to ask for it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.caller import callers
from bench.measure import Measure, interleaved, timed
from bench.parts.output import whole_job
from bench.peers.openssh import run
from bench.report import Row, table
from bench.site import USER, running_site
from tests.support.relay import relay_to
from tests.support.server import JOBWORKER, PORT

_RATE = 12.5e6
_BYTES = 96 * 1024 * 1024
_ROUNDS = 5
_MEGABYTE = 1e-6
_TIMES_SSH = 4.0


def main() -> None:
    """Measure and print the table."""
    with running_site() as site, callers(site.login, 1) as (caller,):
        file = site.directory / "text"
        _write(file)
        job = caller.run(whole_job, str(file))
        with (
            relay_to((site.server.host, PORT), rate=_RATE) as ours,
            _ssh_config(site.ssh.config, site.directory) as config,
        ):
            environment = {**site.server.environment(USER), "JOBWORKER_SERVER": ours.address}
            logs = [str(JOBWORKER), "logs", job]
            ssh = ["ssh", "-F", str(config), "cold", "cat", str(file)]
            ways: dict[str, Measure] = {
                "jobworker logs JOB": lambda: _BYTES / timed(lambda: run(logs, environment)),
                "ssh HOST cat FILE": lambda: _BYTES / timed(lambda: run(ssh)),
                "ssh -C HOST cat FILE": lambda: (
                    _BYTES / timed(lambda: run([*ssh[:3], "-C", *ssh[3:]]))
                ),
            }
            figures = interleaved(ways, _ROUNDS)
    goal = round(_TIMES_SSH * figures["ssh HOST cat FILE"].median * _MEGABYTE)
    row = Row("Whole command > /dev/null", "MB/s", figures, _MEGABYTE, more=True, goal=goal)
    print(table(f"Text over 100 Mbit/s: {_BYTES // 2**20} MiB of log lines", [row]))


def _write(file: Path) -> None:
    """Log lines as services write them: times, names, numbers, and some that repeat nothing."""
    with file.open("wb") as out:
        for line in _lines():
            left = _BYTES - out.tell()
            out.write(line[:left])
            if left <= len(line):
                return


def _lines() -> Iterator[bytes]:
    state = 1
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        fields = {
            "time": f"2026-01-01T12:{state % 60:02}:{state // 7 % 60:02}.{state // 11 % 1000:03}Z",
            "level": ("INFO", "INFO", "INFO", "WARNING")[state >> 62],
            "request": f"{state >> 32:08x}",
            "path": f"/api/v1/items/{state // 13 % 100_000}",
            "milliseconds": state // 17 % 2_000,
        }
        yield json.dumps(fields).encode() + b"\n"


@contextmanager
def _ssh_config(config: Path, directory: Path) -> Iterator[Path]:
    """The settings of ssh, with the port of a relay in place of the server's."""
    text = config.read_text()
    port = next(line.split()[1] for line in text.splitlines() if line.strip().startswith("Port "))
    with relay_to(("127.0.0.1", int(port)), rate=_RATE) as relay:
        slow = directory / "ssh_config_slow"
        slow.write_text(text.replace(f"Port {port}", f"Port {relay.port}"))
        yield slow
