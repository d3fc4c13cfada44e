"""`jobworker apply`: has the services of a file run, as it says and no others."""

import os
import time
from typing import IO, TYPE_CHECKING

import click

from jobworker.cli.errors import CliError, tell
from jobworker.cli.options import OutputFormat, client_command, output_option, say_json
from jobworker.cli.quantities import Seconds
from jobworker.cli.restarts import warn_unless_known

if TYPE_CHECKING:
    from jobworker.cli.services.plan import Step
    from jobworker.client.connection import Service

_LOOK_SECONDS = 0.2


@click.command()
@click.option(
    "--file",
    "-f",
    "source",
    type=click.File("r", encoding="utf-8"),
    required=True,
    help="What is to run; - is stdin.",
)
@click.option("--prune", is_flag=True, help="Stop what runs of the set and is not in the file.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--wait",
    "patience",
    type=Seconds(),
    is_flag=False,
    flag_value="5m",
    metavar="[TIME]",
    help="Return when all are ready, or fail after TIME; by default after 5m.",
)
@output_option
@client_command
def apply(
    service: "Service",
    *,
    source: "IO[str]",
    prune: bool,
    dry_run: bool,
    patience: float | None,
    output: OutputFormat,
) -> None:
    """Have the services of a file run, as it says.

    What does not run is started, what runs otherwise is stopped and started
    anew, what runs as it should is left alone. Before anything is stopped the
    server is asked whether all of it may be started.
    """
    from jobworker.cli.services.file import read_services
    from jobworker.cli.services.plan import Action, jobs_of, plan

    asked = read_services(source.read(), getattr(source, "name", "-"))
    running = jobs_of(service, asked.name)
    steps = plan(asked, running, prune=prune)
    _check(service, steps)
    ids = {name: job.jobID for name, job in running.items()}
    for step in steps:
        if not dry_run:
            if step.action in (Action.REPLACE, Action.REMOVE) and step.job is not None:
                _stop(service, step.job.jobID)
            if step.action in (Action.START, Action.REPLACE):
                ids[step.name] = _start(service, step, ids)
        _say(step, ids.get(step.name, ""), output, dry_run=dry_run)
    if patience is not None and not dry_run:
        _wait(service, {one.name: ids[one.name] for one in asked.services}, patience)


def _check(server: "Service", steps: "list[Step]") -> None:
    """Raise CliError for what could not be started, while nothing has been done yet."""
    from jobworker.cli.services.plan import Action
    from jobworker.proto import workerservice_pb2 as pb

    for step in steps:
        if step.service is None or step.action is Action.KEEP:
            continue
        request = pb.StartRequest()
        request.CopyFrom(step.service.request)
        if step.action is Action.REPLACE:
            # The one that is there has it, and its place in the quotas.
            request.ClearField("name")
            request.queue = request.queue or "default"
        answer = server.can_i(pb.CanIRequest(action="start", start=request))
        if not answer.allowed:
            raise CliError(f"service {step.name}: {answer.reason}; nothing has been changed")


def _stop(server: "Service", job: str) -> None:
    from jobworker.proto import workerservice_pb2 as pb

    reply = server.stop(pb.StopRequest(jobID=job))
    if not reply.success:
        raise CliError(reply.message)


def _start(server: "Service", step: "Step", ids: dict[str, str]) -> str:
    from jobworker.cli.commands.new_job import with_whole_ids
    from jobworker.proto import workerservice_pb2 as pb

    assert step.service is not None  # noqa: S101 - what is started is in the file
    request = pb.StartRequest()
    request.CopyFrom(step.service.request)
    request.requestID = os.urandom(16).hex()
    if step.service.after:
        request.after.extend(ids.get(name, name) for name in step.service.after)
        request.afterOutcome = getattr(pb, f"AFTER_OUTCOME_{step.service.outcome.upper()}")
    reply = server.start(with_whole_ids(server, request))
    if not reply.success:
        raise CliError(f"service {step.name}: {reply.message}")
    warn_unless_known(server, request, reply.jobID)
    return reply.jobID


def _say(step: "Step", job: str, output: OutputFormat, *, dry_run: bool) -> None:
    changes = list(step.changes)
    if output == "json":
        say_json(
            {
                "service": step.name,
                "action": step.action.value,
                "job": job or None,
                "changes": changes,
                "done": not dry_run,
            }
        )
        return
    would = "would be " if dry_run and step.action.value not in ("unchanged", "left") else ""
    why = f" ({', '.join(changes)})" if changes else ""
    click.echo(f"{step.name}: {would}{step.action.value}{why}")


def _wait(server: "Service", jobs: dict[str, str], patience: float) -> None:
    """Return when all are ready. Raises CliError for what ends before, or takes too long."""
    from jobworker.cli.display.job import outcome_text
    from jobworker.client.messages import read_job

    deadline = time.monotonic() + patience
    left = dict(jobs)
    while left:
        for name, job in list(left.items()):
            status = read_job(server.status(job))
            if status.ended and (status.reason, status.exit_code) != ("exited", 0):
                raise CliError(f"service {name} is not ready: {outcome_text(status)}")
            if status.ready or status.ended:
                del left[name]
        if left and time.monotonic() > deadline:
            raise CliError(f"not ready within {patience:g} s: {', '.join(left)}")
        if left:
            time.sleep(_LOOK_SECONDS)
    tell("all services are ready")
