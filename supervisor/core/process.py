"""The supervisor's process: what the keeper starts, and starts again."""

import asyncio
import logging
import signal
import sys
from functools import partial
from pathlib import Path

import msgspec

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.core.recovery import recover
from jobworker.supervisor.core.supervisor import Supervisor
from jobworker.supervisor.errors import StateError
from jobworker.supervisor.host.cgroup import JobCgroups
from jobworker.supervisor.host.memory import keep_freed_memory
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.journal.missing import JOURNAL, check_journal_is_there
from jobworker.supervisor.keeper.config import REFUSED
from jobworker.supervisor.keeper.logs import log_to_stderr
from jobworker.supervisor.keeper.packets import Line
from jobworker.supervisor.local.engine import LocalEngine
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.slurm.engine import SlurmEngine
from jobworker.supervisor.slurm.shared import prepare

log = logging.getLogger(__name__)

# How long processes that were killed may take to leave their cgroups.
EMPTY_SECONDS = 2.0
# Room for the pieces of input on their way: some copies of a MiB.
KEPT_BYTES = 8 * 1024 * 1024


def main(config: str, line: Line) -> None:
    """Run until the keeper says stop. Exits with REFUSED when no restart could help."""
    log_to_stderr("supervisor")
    # A terminal sends these to the whole group; the keeper decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory(KEPT_BYTES)
    settings = msgspec.json.decode(config, type=SupervisorConfig)
    state_dir = Path(settings.state_dir)
    try:
        check_journal_is_there(state_dir)
        journal = Journal(state_dir / JOURNAL)
        if settings.engine.kind == "slurm":
            prepare(settings)
    except (StateError, OSError) as error:
        log.error("%s", error)
        sys.exit(REFUSED)
    serve = _serve_cluster if settings.engine.kind == "slurm" else _serve
    asyncio.run(serve(settings, journal, KeeperLink(line)))
    journal.close()


async def _serve(config: SupervisorConfig, journal: Journal, keeper: KeeperLink) -> None:
    try:
        kept = keeper.inherit()
    except EOFError:
        return
    cgroups = None
    if config.cgroup == "auto":
        cgroups = JobCgroups.prepare(Path(config.state_dir))
    loop = asyncio.get_running_loop()
    # Whether the jobs are left to whoever comes next, as after a crash.
    ending: asyncio.Future[bool] = loop.create_future()
    engine = LocalEngine(loop, config, keeper, kept, cgroups)
    supervisor = Supervisor(config, journal, engine, partial(_settle, ending, False))
    recover(supervisor, journal, engine)
    keeper.listen(
        loop,
        made=engine.made,
        refused=engine.refused,
        exited=engine.exited,
        client=supervisor.clients.connect,
        stop=supervisor.shut_down,
        retire=partial(_settle, ending, True),
    )
    keeper.up()
    retired = await ending
    await _let_go(supervisor)
    if cgroups is not None and not retired:
        await _give_back(cgroups)


async def _let_go(supervisor: Supervisor) -> None:
    supervisor.turn.settle_all()
    supervisor.health.close()
    supervisor.connections.close()
    supervisor.clients.close()
    # One more turn of the loop sends what the clients are still owed.
    await asyncio.sleep(0)


async def _serve_cluster(config: SupervisorConfig, journal: Journal, keeper: KeeperLink) -> None:
    """The same where jobs run on a cluster: the end of the service is not theirs."""
    try:
        keeper.inherit()
    except EOFError:
        return
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[bool] = loop.create_future()
    finish = partial(_settle, ending, True)
    engine = SlurmEngine(loop, config)
    supervisor = Supervisor(config, journal, engine, finish)
    recover(supervisor, journal, engine)
    keeper.listen(
        loop,
        made=_ignore,
        refused=_ignore,
        # What its commands have left behind.
        exited=partial(_was_no_job, keeper),
        client=supervisor.clients.connect,
        stop=finish,
        retire=finish,
    )
    keeper.up()
    await ending
    await _let_go(supervisor)
    engine.close()


def _ignore(*_: object) -> None:
    """The keeper is asked for no processes of a cluster's jobs."""


def _was_no_job(keeper: KeeperLink, serial: int, *_: object) -> None:
    keeper.recorded(serial)


def _settle(ending: "asyncio.Future[bool]", retired: bool) -> None:
    if not ending.done():
        ending.set_result(retired)


async def _give_back(cgroups: JobCgroups) -> None:
    """Remove the cgroups of a service without jobs; what was killed may take a moment to end."""
    deadline = asyncio.get_running_loop().time() + EMPTY_SECONDS
    while not all(cgroup.remove() for cgroup in cgroups.jobs()):
        if asyncio.get_running_loop().time() > deadline:
            log.warning("processes are left in a cgroup below %s", cgroups.directory)
            return
        await asyncio.sleep(0.005)
    cgroups.dissolve()
