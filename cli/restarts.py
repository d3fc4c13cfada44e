"""Whether a new job is started again, and how it is told that it is well: the options for that."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypedDict

import click

from jobworker.cli.errors import tell
from jobworker.cli.quantities import Seconds
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb


class RestartOptions(TypedDict):
    """The values of RESTART_OPTIONS: times in seconds; 0 and None leave it to the server."""

    restart: str
    restart_max: int | None
    restart_delay: float
    restart_max_delay: float
    healthy_after: float
    no_restart_on: tuple[int, ...]
    persist: bool
    health_port: int | None
    health_interval: float
    health_start: float
    health_retries: int | None


_WHEN = {
    "no": "RESTART_WHEN_UNSPECIFIED",
    "on-failure": "RESTART_WHEN_ON_FAILURE",
    "always": "RESTART_WHEN_ALWAYS",
}

RESTART_OPTIONS = (
    click.option(
        "--restart",
        type=click.Choice(list(_WHEN)),
        default="no",
        help="Start it again when it ends: in any way (always), or but by exit with 0. It is not "
        "after a stop.",
    ),
    click.option(
        "--restart-max",
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Give up after so many restarts in a row; by default 10.",
    ),
    click.option(
        "--restart-delay",
        type=Seconds(),
        default=0,
        metavar="TIME",
        help="Wait so long before the first restart, twice as long before the second and so on; "
        "by default 1s.",
    ),
    click.option(
        "--restart-max-delay",
        type=Seconds(),
        default=0,
        metavar="TIME",
        help="Wait no longer than that; by default 5m.",
    ),
    click.option(
        "--healthy-after",
        type=Seconds(),
        default=0,
        metavar="TIME",
        help="Count, and wait, from the start again when it has run for so long; by default 1m.",
    ),
    click.option(
        "--no-restart-on",
        type=click.IntRange(0, 255),
        multiple=True,
        metavar="CODE",
        help="Not after an exit with CODE; more than once for several.",
    ),
    click.option(
        "--persist",
        is_flag=True,
        help="Start it again, too, after the service or the host went down while it ran.",
    ),
)
HEALTH_OPTIONS = (
    click.option(
        "--health-port",
        type=click.IntRange(1, 65535),
        metavar="PORT",
        help="It is ready when it takes connections at that TCP port of its own, and is ended "
        "when it does no more.",
    ),
    click.option(
        "--health-interval",
        type=Seconds(),
        default=0,
        metavar="TIME",
        help="Try that so often; by default every 5s.",
    ),
    click.option(
        "--health-start",
        type=Seconds(),
        default=0,
        metavar="TIME",
        help="Give it so long to be ready; by default 1m.",
    ),
    click.option(
        "--health-retries",
        type=click.IntRange(1, 100),
        metavar="N",
        help="End it after so many tries in vain in a row; by default 3.",
    ),
)
# Say nothing without a policy.
_HOW = ("restart_max", "restart_delay", "restart_max_delay", "healthy_after", "no_restart_on")
# Of a job that is not started again, and is well as long as it runs.
NO_RESTART: RestartOptions = {
    "restart": "no",
    "restart_max": None,
    "restart_delay": 0.0,
    "restart_max_delay": 0.0,
    "healthy_after": 0.0,
    "no_restart_on": (),
    "persist": False,
    "health_port": None,
    "health_interval": 0.0,
    "health_start": 0.0,
    "health_retries": None,
}


def restart_policy(given: RestartOptions) -> "pb.RestartPolicy | None":
    """Return what the options ask for; None for a job that is not started again."""
    from jobworker.proto import workerservice_pb2 as pb

    if given["restart"] == "no":
        # To be started again after a loss, a job needs no other policy.
        idle = _HOW if not given["persist"] else ()
        _only_with("--restart", given, idle)
    policy = pb.RestartPolicy(
        when=_WHEN[given["restart"]],
        maxRestarts=given["restart_max"],
        delaySeconds=given["restart_delay"],
        maxDelaySeconds=given["restart_max_delay"],
        healthySeconds=given["healthy_after"],
        finalExitCodes=given["no_restart_on"],
        persist=given["persist"],
    )
    return policy if policy.ListFields() else None


def health_check(given: RestartOptions) -> "pb.HealthCheck | None":
    """Return what the options ask for; None for a job without one."""
    from jobworker.proto import workerservice_pb2 as pb

    if given["health_port"] is None:
        _only_with("--health-port", given, ("health_interval", "health_start", "health_retries"))
        return None
    return pb.HealthCheck(
        port=given["health_port"],
        intervalSeconds=given["health_interval"],
        startSeconds=given["health_start"],
        retries=given["health_retries"],
    )


def _only_with(needed: str, given: RestartOptions, names: Iterable[str]) -> None:
    values: dict[str, object] = {**given}
    for name in names:
        if values[name]:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} says how {needed} does it, which is not there")


def warn_unless_known(service: "Service", request: "pb.StartRequest", job: str) -> None:
    """Say so where the server, which is older, will not start the job again."""
    if not request.HasField("restart"):
        return
    try:
        known = service.status(job).request.HasField("restart")
    except ClientError:
        # Who may start jobs may have no right to see them.
        return
    if not known:
        tell(f"job {job} will not be started again: the server is older than this command")
