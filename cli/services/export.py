"""`jobworker export`: jobs as services in a file, for `jobworker apply`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from jobworker.cli.errors import CliError
from jobworker.cli.options import client_command
from jobworker.cli.selection import choosing_jobs

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.client.messages import JobStatus
    from jobworker.proto import workerservice_pb2 as pb

_NOTE = "# The variables of jobs are told to nobody: add `env` where they had some.\n"


@click.command()
@client_command
@choosing_jobs(labelled=True)
def export(service: "Service", *, jobs: tuple[str, ...]) -> None:
    """Print jobs as a file of services that `jobworker apply -f` takes.

    It has what holds of each, the server's defaults included, but no variables.
    """
    import yaml

    from jobworker.client.messages import read_job

    services: dict[str, dict[str, Any]] = {}
    for job in jobs:
        status = read_job(service.status(job))
        if status.command_cut:
            raise CliError(f"job {status.id}: its command line is too long to be told")
        name = status.request.name or f"job-{status.id[-8:]}"
        if name in services:
            raise CliError(f"two of these jobs are called {name}")
        services[name] = dict(_service(status))
    # As it stands there, and not in the order of the alphabet.
    text = yaml.safe_dump({"services": services}, sort_keys=False, allow_unicode=True)
    click.echo(_NOTE + text, nl=False)


def _service(job: "JobStatus") -> Iterator[tuple[str, Any]]:
    """The options that say what the job is, those that say nothing left out."""
    yield "command", list(job.command)
    yield "cwd", job.working_directory
    asked = job.request
    values = {**_plain(asked), **_words(job), **_restart(asked), **_health(asked)}
    yield from ((name, value) for name, value in values.items() if value)


def _plain(asked: "pb.StartRequest") -> dict[str, Any]:
    limits, output = asked.limits, asked.outputLimit
    return {
        "tenant": "",
        "login": asked.loginEnvironment,
        "grace": _seconds(asked.graceSeconds),
        "timeout": _seconds(asked.timeoutSeconds),
        "memory": str(limits.memoryBytes or ""),
        "cpus": f"{limits.cpus:g}" if limits.cpus else "",
        "processes": limits.processes,
        "open-files": limits.openFiles,
        "io-weight": limits.ioWeight,
        "no-network": asked.noNetwork,
        "output-limit": str(output.bytes or ""),
        "output-rate": str(output.rate or ""),
        "queue": asked.queue,
        "priority": asked.priority,
        "queue-timeout": _seconds(asked.queueTimeoutSeconds),
        "label": {
            key: value for key, value in asked.labels.items() if not key.startswith("jobworker/")
        },
    }


def _words(job: "JobStatus") -> dict[str, Any]:
    from jobworker.cli.signals import signal_name
    from jobworker.client.messages import word
    from jobworker.proto import workerservice_pb2 as pb

    overflow = word(pb.OutputOverflow.DESCRIPTOR, job.request.outputLimit.overflow)
    return {
        "tenant": job.tenant,
        "isolation": job.isolation if job.isolation == "private" else "",
        "stop-signal": signal_name(job.stop_signal) if job.stop_signal else "",
        "stop-mode": job.stop_mode if job.stop_mode == "main" else "",
        "output-overflow": overflow.replace("_", "-") if job.request.outputLimit.bytes else "",
    }


def _restart(asked: "pb.StartRequest") -> dict[str, Any]:
    from jobworker.proto import workerservice_pb2 as pb

    how = asked.restart
    whens = {pb.RESTART_WHEN_ON_FAILURE: "on-failure", pb.RESTART_WHEN_ALWAYS: "always"}
    return {
        "restart": whens.get(how.when, "no"),
        "restart-max": how.maxRestarts,
        "restart-delay": _seconds(how.delaySeconds),
        "restart-max-delay": _seconds(how.maxDelaySeconds),
        "healthy-after": _seconds(how.healthySeconds),
        "no-restart-on": list(how.finalExitCodes),
        "persist": how.persist,
    }


def _health(asked: "pb.StartRequest") -> dict[str, Any]:
    check = asked.health
    return {
        "health-port": check.port,
        "health-interval": _seconds(check.intervalSeconds),
        "health-start": _seconds(check.startSeconds),
        "health-retries": check.retries,
    }


def _seconds(value: float) -> str:
    return f"{value:g}s" if value else ""
