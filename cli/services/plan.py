"""What is to be done so that what runs is what a file of services says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from jobworker.cli.services.file import DIGEST_LABEL, SET_LABEL, Service, ServicesFile

if TYPE_CHECKING:
    from jobworker.client.connection import Service as Server
    from jobworker.proto import workerservice_pb2 as pb


class Action(StrEnum):
    """What is done to a service."""

    START = "started"
    REPLACE = "replaced"
    KEEP = "unchanged"
    REMOVE = "removed"
    # It runs, the file does not have it, and nobody has asked to remove what is not there.
    LEAVE = "left"


@dataclass(frozen=True)
class Step:
    """An action, with the service as the file has it, and the job there is."""

    action: Action
    name: str
    service: Service | None = None
    job: "pb.QueryStatusResponse | None" = None
    # What is different, in words.
    changes: tuple[str, ...] = field(default=())


def jobs_of(server: "Server", set_name: str) -> "dict[str, pb.QueryStatusResponse]":
    """One's own jobs of the set that have not ended, by their names."""
    from jobworker.cli.selection import pages
    from jobworker.proto import workerservice_pb2 as pb

    me = server.whoami().commonName
    request = pb.ListRequest(running=True, owner=me, labels={SET_LABEL: set_name})
    return {job.request.name: job for job in pages(server, request, 0)}


def plan(
    asked: ServicesFile, running: "Mapping[str, pb.QueryStatusResponse]", *, prune: bool
) -> list[Step]:
    """What is to be done, in order: first what goes, then what comes, each after its others."""
    named = {service.name for service in asked.services}
    extra = Action.REMOVE if prune else Action.LEAVE
    steps = [Step(extra, name, job=job) for name, job in running.items() if name not in named]
    for service in asked.services:
        job = running.get(service.name)
        if job is None:
            steps.append(Step(Action.START, service.name, service))
        elif job.request.labels[DIGEST_LABEL] == service.digest:
            steps.append(Step(Action.KEEP, service.name, service, job))
        else:
            changes = tuple(_changes(service, job)) or ("env",)
            steps.append(Step(Action.REPLACE, service.name, service, job, changes))
    return steps


def _changes(service: Service, job: "pb.QueryStatusResponse") -> Iterator[str]:
    """In what the job is not as the file has it, as far as a server tells that.

    It tells nobody the variables, and of all else what it has made of it.
    """
    asked = service.request
    if _argv(asked) != _argv(job):
        yield "command"
    for descriptor, value in asked.ListFields():
        if descriptor.name in _TOLD_OTHERWISE:
            continue
        told = getattr(job.request, descriptor.name)
        if descriptor.name == "labels":
            if {**told, DIGEST_LABEL: ""} != {**value, DIGEST_LABEL: ""}:
                yield "label"
        elif hasattr(value, "ListFields"):
            if any(getattr(told, one.name) != part for one, part in value.ListFields()):
                yield descriptor.name
        elif told != value:
            yield descriptor.name


# Or to nobody.
_TOLD_OTHERWISE = {
    *("commandName", "Arguments", "rawArguments", "environment", "rawEnvironment", "tenant"),
    *("workingDirectory", "rawWorkingDirectory"),
}


def _argv(message: "pb.StartRequest | pb.QueryStatusResponse") -> list[bytes]:
    words = (message.commandName, *message.Arguments)
    return list(message.rawArguments) or [word.encode() for word in words]
