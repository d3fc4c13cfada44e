"""What an audit log holds: JSON lines, each with the hash of the line before it.

A line that was changed, removed or put in breaks the chain at the next line.
The chain has no key: somebody who may write the files can make a new one from
there on. Whoever wants to notice that, too, notes a line's hash elsewhere.
"""

import shlex
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import msgspec

from jobworker.authz.errors import AuthzError
from jobworker.authz.identity import Identity
from jobworker.authz.policy.judge import JobFacts
from jobworker.authz.policy.policy import Decision

# The hash before the first line of all.
GENESIS = "0" * 64
# Characters of a command line. A request may be a megabyte, also one that is refused.
MAX_COMMAND = 4096


class AuditError(AuthzError):
    """The audit log cannot be written or read."""


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Something that was done or asked for."""


class Decided(_Event, frozen=True, kw_only=True, tag="decision"):
    """A request, and what became of it.

    `cn`, `tenants` and `serial` are from the client's certificate, `peer` is
    its address. `job` is the job's ID, empty for one that is still to start,
    `owner` and `tenant` are the job's. `command` is the command line for a
    shell; of one that was cut, `command_sha256` is the whole's hash. `rule` is
    the deciding rule's file and line, empty if there is none, and `policy` the
    policy's version.
    """

    cn: str
    tenants: tuple[str, ...]
    serial: str
    peer: str
    action: str
    job: str
    owner: str
    tenant: str
    command: str
    command_sha256: str
    allowed: bool
    rule: str
    policy: str


class Changed(_Event, frozen=True, kw_only=True, tag="job", omit_defaults=True):
    """A job's new state, and in `detail` what else is known, such as its exit code.

    `attempt` is the number of its start, of a job that is started again.
    """

    job: str
    owner: str
    tenant: str
    state: str
    detail: str
    attempt: int = 1


class Carried(_Event, frozen=True, kw_only=True, tag="session"):
    """A session with a job has ended that a decision of before allowed, and what went through it.

    `target` is what of the job it was with, such as a port; `up` the bytes to the
    job, `down` those from it, `seconds` how long it was open.
    """

    cn: str
    serial: str
    peer: str
    action: str
    job: str
    owner: str
    tenant: str
    target: str
    up: int
    down: int
    seconds: float


class Recovered(_Event, frozen=True, kw_only=True, tag="recovery"):
    """The log was opened after a crash; so many bytes of an unfinished line were dropped."""

    dropped_bytes: int


Event = Decided | Changed | Carried | Recovered


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the log: the event, when it was recorded (UTC), and its place in the chain.

    `number` counts from 1 without a gap; `previous` is the SHA-256, in hex, of
    the line before, without its line end.
    """

    number: int
    time: datetime
    previous: str
    event: Event


def encode(record: Record) -> bytes:
    """Return the record's line, without a line end; it has none within either."""
    return msgspec.json.encode(record)


def decode(line: bytes) -> Record:
    """Return the record of a line. Raises AuditError if it is none."""
    try:
        return msgspec.json.decode(line, type=Record)
    # What is no UTF-8 within a string is not msgspec's error.
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AuditError(f"not a record: {error}") from error


def line_hash(line: bytes) -> str:
    """Return what the next record's `previous` is to be."""
    return sha256(line).hexdigest()


def decided(
    *,
    identity: Identity,
    peer: str,
    action: str,
    job_id: str,
    job: JobFacts,
    decision: Decision,
    version: str,
) -> Decided:
    """Return the record of a decision; `version` is that of the policy which made it."""
    command, command_sha256 = _command([job.command, *job.arguments] if job.command else [])
    return Decided(
        cn=identity.common_name,
        tenants=identity.tenants,
        serial=identity.serial,
        peer=peer,
        action=action,
        job=job_id,
        owner=job.owner,
        tenant=job.tenant,
        command=command,
        command_sha256=command_sha256,
        allowed=decision.allowed,
        rule=str(decision.rule.place) if decision.rule else "",
        policy=version,
    )


def _command(argv: Sequence[str]) -> tuple[str, str]:
    # Surrogates, which no request can hold, could not be written as UTF-8.
    whole = shlex.join(argv).encode(errors="backslashreplace").decode()
    if len(whole) <= MAX_COMMAND:
        return whole, ""
    return whole[:MAX_COMMAND], sha256(whole.encode()).hexdigest()
