"""The same done to several jobs, which were chosen in the list."""

import asyncio
import signal
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobworker.cli.job_ids import short_id
from jobworker.console.errors import invalid_form
from jobworker.console.pages.acts import ACTS, act_of
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import SupervisorError

# What starts something is done to one at a time.
SEVERAL = tuple(name for name in ACTS if name != "again")
SIGNALS = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT", "KILL")
SIGNAL = "signal"
# As many as a page has.
MOST_CHOSEN = 50
# Beside the jobs: the token, what to do, the signal, and where to go back to.
_OTHER_FIELDS = 4


async def several(site: Site, request: Request, caller: Caller) -> Response:
    """Do to the chosen jobs what a button says, each decided by itself (POST)."""
    pairs = await site.form_pairs(request, caller, MOST_CHOSEN + _OTHER_FIELDS)
    fields = dict(pairs)
    jobs = list(dict.fromkeys(value for name, value in pairs if name == "job"))
    if not jobs:
        raise invalid_form("choose the jobs first, then press the button")
    method, requests = _requests(fields, jobs)
    outcomes = await asyncio.gather(*(_outcome(site, method, one, caller) for one in requests))
    # It was written by this page, but came by the browser.
    back = f"/jobs?{urlencode(parse_qsl(fields.get('query', '')))}"
    if not any(outcomes):
        return RedirectResponse(back, 303)
    told = [
        {"id": job, "short": short_id(job), "words": words or "done"}
        for job, words in zip(jobs, outcomes, strict=True)
    ]
    failed = sum(map(bool, outcomes))
    return site.page(
        request, caller, "several.html", status=409, told=told, failed=failed, back=back
    )


def _requests(fields: dict[str, str], jobs: list[str]) -> tuple[str, list[Any]]:
    """The method, and its request for each job. Raises Refusal."""
    name = fields.get("do", "")
    if name == SIGNAL:
        if (word := fields.get("signal", "")) not in SIGNALS:
            raise invalid_form("there is no such signal")
        number = signal.Signals[f"SIG{word}"]
        return "Signal", [pb.SignalRequest(jobID=job, signal=number) for job in jobs]
    if name not in SEVERAL:
        raise invalid_form("there is no such button")
    act = act_of(name)
    return act.method, [act.about(job) for job in jobs]


async def _outcome(site: Site, method: str, asked: Any, caller: Caller) -> str:
    """Why it was not done; empty if it was."""
    try:
        await site.calls.call(method, asked, caller)
    except (Refusal, SupervisorError) as error:
        return str(error)
    return ""
