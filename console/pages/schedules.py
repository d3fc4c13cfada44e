"""What is started again and again, and when; and what may be done to it."""

import shlex
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobworker.authz.policy.policy import JobFacts
from jobworker.cli.job_ids import short_id
from jobworker.console.errors import invalid_form
from jobworker.console.pages.views import stamped
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb


class _Act(NamedTuple):
    """What a button does, the right it takes, and whether it is the owner's alone."""

    change: pb.ScheduleChange
    action: str
    own: bool = False


_ACTS = {
    "pause": _Act(pb.SCHEDULE_CHANGE_PAUSE, "stop"),
    "resume": _Act(pb.SCHEDULE_CHANGE_RESUME, "start", own=True),
    "run": _Act(pb.SCHEDULE_CHANGE_RUN, "start", own=True),
    "remove": _Act(pb.SCHEDULE_CHANGE_REMOVE, "stop"),
}


async def schedules(site: Site, request: Request, caller: Caller) -> Response:
    """Those that the caller may see, by owner and name."""
    answer = await site.calls.call("ListSchedules", pb.ListSchedulesRequest(), caller)
    rows = [_row(site, caller, status) for status in answer.schedules]
    return site.page(request, caller, "schedules.html", rows=rows)


def _row(site: Site, caller: Caller, status: pb.ScheduleStatus) -> dict[str, Any]:
    told = status.schedule
    words = (told.start.commandName, *told.start.Arguments)
    return {
        "name": told.name,
        "owner": status.owner,
        "times": told.cron,
        "zone": told.timeZone or "UTC",
        "next": "paused" if status.paused else stamped(status, "next"),
        "last": stamped(status, "last"),
        "job": status.lastJobID,
        "short": short_id(status.lastJobID),
        "skipped": status.skipped,
        "ends": stamped(status, "notAfter"),
        "command": shlex.join(words),
        "acts": _offered(site, caller, status),
    }


def _offered(site: Site, caller: Caller, status: pb.ScheduleStatus) -> list[str]:
    """The buttons that fit, of those that the policy allows."""
    start = status.schedule.start
    about = JobFacts(status.owner, status.tenant, start.commandName, tuple(start.Arguments))
    mine = status.owner == caller.identity.common_name
    left_out = "pause" if status.paused else "resume"
    judge = site.calls.access.judge_facts
    return [
        name
        for name, act in _ACTS.items()
        if name != left_out
        and (mine or not act.own)
        and judge(caller.identity, act.action, about).error is None
    ]


async def act(site: Site, request: Request, caller: Caller) -> Response:
    """Do to a schedule what a button says (POST)."""
    fields = await site.form(request, caller)
    chosen = _ACTS.get(request.path_params["act"])
    if chosen is None:
        raise invalid_form("there is no such button")
    asked = pb.ChangeScheduleRequest(
        name=fields.get("name", ""), owner=fields.get("owner", ""), change=chosen.change
    )
    await site.calls.call("ChangeSchedule", asked, caller)
    return RedirectResponse("/schedules", 303)
