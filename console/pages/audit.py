"""The audit log, searched: who asked for what, and what became of it; for who may audit all."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
from starlette.requests import Request
from starlette.responses import Response

from jobworker.authz.audit.files import AuditBroken, Line
from jobworker.authz.audit.record import AuditError, Carried, Changed, Decided
from jobworker.authz.audit.search import Wanted, search
from jobworker.cli.job_ids import short_id
from jobworker.cli.quantities import seconds
from jobworker.console.audits import AUDIT, audits_all
from jobworker.console.errors import http_status, invalid_form
from jobworker.console.pages.views import moment
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.proto import workerservice_pb2 as pb

# Of what is found, the newest.
MOST_SHOWN = 200
# A log may be of many gigabytes, and the front has other things to do.
_MOST_SECONDS = 10.0
_FIELDS = ("since", "until", "user", "owner", "tenant", "job", "action", "decision", "text")
_LAST_DAY = "1d"
_DECISIONS = {"": None, "allowed": True, "refused": False}


class Found(NamedTuple):
    """The lines, the newest first; whether all was looked at; and how many lines were none."""

    lines: list[Line]
    whole: bool
    damaged: int


async def audit(site: Site, request: Request, caller: Caller) -> Response:
    """What the address asks for; by default what happened within a day."""
    filled = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
    filled["since"] = filled["since"] or _LAST_DAY
    words, found, status = "", Found([], whole=True, damaged=0), 200
    access = site.calls.access
    async with site.calls.within("Rights", pb.RightsRequest(), caller) as call:
        if not audits_all(access.authority.policy, caller.identity):
            refusal = _refusal(caller)
            call.record(access.each_job(AUDIT)._replace(decision=None, error=refusal))
            raise refusal
        call.record(access.each_job(AUDIT))
        try:
            wanted = _wanted(filled)
            if site.places.audit is None:
                raise invalid_form("this server keeps no audit log: audit.directory is not set")
            found = await _searched(site, site.places.audit, wanted)
        except Refusal as error:
            words, status = str(error), http_status(error)
        except AuditError as error:
            words, status = str(error), 500
    return site.page(
        request,
        caller,
        "audit.html",
        status=status,
        filled=filled,
        decisions=list(_DECISIONS),
        words=words,
        rows=[_row(line) for line in found.lines[:MOST_SHOWN]],
        more=len(found.lines) > MOST_SHOWN,
        most=MOST_SHOWN,
        found=found,
        seconds=f"{_MOST_SECONDS:g}",
    )


def _refusal(caller: Caller) -> Refusal:
    """Also for who may audit some jobs: the log is of all."""
    who = f"audit refused to {caller.identity}"
    why = "the audit log is of all jobs, and the policy does not let you audit every one"
    return Refusal(grpc.StatusCode.PERMISSION_DENIED, "DENIED", f"{who}: {why}")


def _wanted(filled: dict[str, str]) -> Wanted:
    """What is filled in. Raises Refusal."""
    if filled["decision"] not in _DECISIONS:
        raise invalid_form("a decision is allowed or refused")
    return Wanted(
        since=_time(filled["since"]),
        until=_time(filled["until"]) if filled["until"] else None,
        user=filled["user"],
        owner=filled["owner"],
        tenant=filled["tenant"],
        job=filled["job"],
        actions=(filled["action"],) if filled["action"] else (),
        allowed=_DECISIONS[filled["decision"]],
        text=filled["text"],
    )


def _time(text: str) -> datetime:
    """So long ago, or a time, in UTC unless it names a zone. Raises Refusal."""
    try:
        if (ago := seconds(text)) is not None:
            return datetime.now(UTC) - timedelta(seconds=ago)
        told = datetime.fromisoformat(text.removesuffix(" UTC"))
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        words = "is neither so long ago, such as 10m, nor a time, such as 2026-01-31 12:00"
        raise invalid_form(f"{text[:64]!r} {words}") from error


async def _searched(site: Site, directory: Path, wanted: Wanted) -> Found:
    """Search in a thread, one search at a time. Raises AuditError."""
    async with site.searching:
        return await asyncio.to_thread(_search, directory, wanted)


def _search(directory: Path, wanted: Wanted) -> Found:
    deadline = time.monotonic() + _MOST_SECONDS
    whole = True
    damaged: list[AuditBroken] = []

    def enough() -> bool:
        nonlocal whole
        whole = time.monotonic() < deadline
        return not whole

    # One more than is shown tells whether there are others.
    found = list(search(directory, wanted, MOST_SHOWN + 1, damaged.append, enough))
    return Found(found[::-1], whole, len(damaged))


def _row(line: Line) -> dict[str, str]:
    """A line's cells."""
    event = line.record.event
    row = dict.fromkeys(("by", "peer", "job", "short", "of", "about", "rule", "mood"), "")
    row |= {"time": moment(line.record.time), "what": "the log goes on after a crash"}
    if isinstance(event, Decided | Carried):
        tenants = event.tenants if isinstance(event, Decided) else ()
        row |= {"by": " ".join([event.cn, *(f"({one})" for one in tenants)]), "peer": event.peer}
    if isinstance(event, Decided | Changed | Carried):
        row |= {"job": event.job, "short": short_id(event.job)}
        row["of"] = f"{event.tenant}/{event.owner}" if event.tenant or event.owner else ""
    match event:
        case Decided():
            row |= {"what": f"{event.action} {'allowed' if event.allowed else 'refused'}"}
            row |= {"about": event.command, "rule": event.rule}
            row |= {"mood": "good" if event.allowed else "bad"}
        case Changed():
            row |= {"what": event.state, "about": event.detail}
        case Carried():
            told = f"{event.target}: {event.up} bytes to it, {event.down} from it"
            row |= {"what": f"{event.action} ended", "about": f"{told}, {event.seconds:g} s"}
    return row
