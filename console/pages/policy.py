"""The policy in force: how it decides, and by which rules, for who may audit."""

import asyncio
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from jobworker.authz.identity import Identity
from jobworker.authz.policy.cases import parse_identity, parse_job
from jobworker.authz.policy.policy import JobFacts, PolicyError
from jobworker.authz.policy.rules import ACTIONS, ANY_ARGUMENTS, ANY_COMMAND, Rule
from jobworker.authz.policy.statements import Text
from jobworker.authz.workbench.explanation import explain
from jobworker.authz.yaml_text import Place
from jobworker.console.audits import AUDIT, audits_all, audits_some
from jobworker.console.errors import http_status, invalid_form
from jobworker.console.site import Site
from jobworker.grpc_api.guard.access import Verdict
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.proto import workerservice_pb2 as pb

# Of a policy's rules and grants, so many are shown.
MOST_SHOWN = 1000
_FIELDS = ("who", "action", "job", "command")
_HERE = Place("", 1, 1)


class _Asked(NamedTuple):
    """A question: may they do that to such a job?"""

    identity: Identity
    action: str
    job: JobFacts

    @classmethod
    def of(cls, filled: dict[str, str]) -> "_Asked":
        """What is filled in. Raises Refusal."""
        try:
            command, *arguments = shlex.split(filled["command"]) or [""]
            identity = parse_identity(Text(filled["who"], _HERE))
            job = parse_job(Text(filled["job"], _HERE), command, tuple(arguments))
        except PolicyError as error:
            hint = f"; {error.suggestion}" if error.suggestion else ""
            raise invalid_form(f"{error.problem}{hint}") from error
        except ValueError as error:
            raise invalid_form(f"the command has a quote without its end: {error}") from error
        if filled["action"] not in ACTIONS:
            raise invalid_form(f"{filled['action'][:64]!r} is no action")
        return cls(identity, filled["action"], job)


async def policy(site: Site, request: Request, caller: Caller) -> Response:
    """The rules, for who may audit every job; and an answer to what the address asks."""
    filled = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
    access = site.calls.access
    judged = access.authority.policy
    everything = audits_all(judged, caller.identity)
    words, answer, status = "", None, 200
    # It is about nobody but the caller; what they ask about is decided here, and on record.
    async with site.calls.within("Rights", pb.RightsRequest(), caller) as call:
        if not audits_some(judged, caller.identity):
            _require(site, call.record, caller, JobFacts("*", "*"))
        if any(filled.values()):
            try:
                asked = _Asked.of(filled)
                _require(site, call.record, caller, asked.job)
                answer = await asyncio.to_thread(explain, judged, *asked)
            except Refusal as error:
                words, status = f"{error}", http_status(error)
        elif everything:
            call.record(access.each_job(AUDIT))
    stated = judged.statements
    return site.page(
        request,
        caller,
        "policy.html",
        status=status,
        filled=filled,
        actions=ACTIONS,
        words=words,
        answer=answer,
        everything=everything,
        version=judged.version,
        row=_row,
        rules=[_row(rule) for rule in stated.rules[:MOST_SHOWN]] if everything else [],
        grants=stated.grants[:MOST_SHOWN] if everything else (),
        more=everything and max(len(stated.rules), len(stated.grants)) > MOST_SHOWN,
    )


def _require(
    site: Site, record: Callable[[Verdict], None], caller: Caller, about: JobFacts
) -> None:
    """Put on record whether the caller may audit such a job. Raises Refusal if not."""
    verdict = site.calls.access.judge_facts(caller.identity, AUDIT, about)
    record(verdict)
    if verdict.error is not None:
        raise verdict.error


def _row(rule: Rule) -> dict[str, str]:
    """A rule's cells; where its file lies is its administrator's business."""
    starts = rule.action in {"start", "*"}
    return {
        "effect": rule.effect,
        "action": rule.action,
        "subject": rule.subject,
        "jobs": rule.jobs,
        "command": ("any" if rule.command == ANY_COMMAND else rule.command) if starts else "",
        "arguments": _arguments(rule) if starts else "",
        "place": f"{Path(rule.place.file).name}:{rule.place.line}",
    }


def _arguments(rule: Rule) -> str:
    return "any" if rule.arguments == ANY_ARGUMENTS else rule.arguments or "none"
