"""What a person waits for: whole commands, from their process's start to its end.

Every one makes a connection of its own, TLS 1.3 or SSH key exchange included.
"""

from functools import partial

from bench.measure import Measure, interleaved, p50
from bench.peers.openssh import run
from bench.report import Row, table
from bench.site import USER, Site, running_site
from tests.support.server import JOBWORKER

_RUNS = 7


def main() -> None:
    """Measure and print the table."""
    with running_site() as site:
        rows = [_start(site), _run(site)]
    print(table("Commands, each with a new connection", rows))


def _start(site: Site) -> Row:
    ways: dict[str, Measure] = {
        "jobworker start true": partial(_ours, site, "start", "true"),
        "ssh HOST true": partial(_ssh, site),
    }
    return Row("Start a job p50", "ms", interleaved(ways), scale=1e3, goal=200)


def _run(site: Site) -> Row:
    ways: dict[str, Measure] = {
        "jobworker run true": partial(_ours, site, "run", "true"),
        "ssh HOST true": partial(_ssh, site),
    }
    return Row("Run a command to its end p50", "ms", interleaved(ways), scale=1e3)


def _ours(site: Site, *words: str) -> float:
    environment = site.server.environment(USER)
    return p50(lambda: run([str(JOBWORKER), *words], environment), _RUNS)


def _ssh(site: Site) -> float:
    return p50(lambda: run(site.ssh.cold("true")), _RUNS)
