"""One job: what there is to say of it, the end of its output, and what may be done to it."""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobworker.cli.display.job import command_text
from jobworker.client.messages import JobStatus, read_job
from jobworker.console.pages.acts import ACTS, act_of, fitting
from jobworker.console.pages.find import (
    MOST_BYTES,
    MOST_LINES,
    MOST_SECONDS,
    MOST_TEXT,
    find,
    sought,
)
from jobworker.console.pages.output import STREAMS, tail_of
from jobworker.console.pages.views import attempts, facts, mood
from jobworker.console.safety import asked_by_our_own
from jobworker.console.site import Site, Verbatim
from jobworker.console.streams import Sent
from jobworker.console.text import visible
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import is_utf8

_MOST_ADDRESS = 4000
_BOUNDS = {
    "lines": MOST_LINES,
    "size": f"{MOST_BYTES // 1024**2} MiB",
    "seconds": f"{MOST_SECONDS:g}",
    "text": MOST_TEXT,
}


async def job(site: Site, request: Request, caller: Caller) -> Response:
    """A job's page."""
    asked = pb.QueryStatusRequest(jobID=request.path_params["job"])
    async with site.calls.within("QueryStatus", asked, caller) as call:
        message = await site.calls.answer("QueryStatus", asked)
        found = call.job
        assert found is not None  # noqa: S101 - the guard resolves it for methods about one job
    judge = site.calls.access.judge_found
    # Nothing is offered that would be refused.
    may = {
        action: judge(caller.identity, action, found).error is None
        for action in ("output", "signal", "start", "stop", "attach")
    }
    # Only one's own are started again.
    may["start"] = may["start"] and found.owner == caller.identity.common_name
    seen = _Seen.asked(request)
    tail = lines = None
    if may["output"] and seen.text:
        lines = await find(site, found, seen.text, caller, times=seen.times)
    elif may["output"]:
        tail = await tail_of(site, found.id, caller, times=seen.times)
    read = read_job(message)
    return site.page(
        request,
        caller,
        "job.html",
        id=found.id,
        title=read.request.name or found.id,
        command=Verbatim("\n".join(map(visible, command_text(read).split("\n")))),
        facts=facts(message),
        attempts=attempts(message),
        mood=mood(read),
        over=read.ended and (read.output_complete or tail is None),
        acts=[name for name, one in ACTS.items() if may[one.action]],
        fitting=fitting(read.state),
        terminal=may["attach"] and may["output"] and not read.ended and _has_terminal(read),
        key=secrets.token_hex(16),
        again=_again(read),
        tail=tail,
        points=json.dumps(site.samples.series(found.id)),
        live=f"/live/jobs/{found.id}?from={tail.end if tail else ''}{'&times=1' * seen.times}",
        output=may["output"],
        times=seen.times,
        toggled=seen._replace(times=not seen.times).address(found.id),
        text=Verbatim(seen.text),
        without=seen._replace(text="").address(found.id),
        found=lines,
        bounds=_BOUNDS,
    )


class _Seen(NamedTuple):
    """How the output is looked at: with times, and only the lines with a text."""

    times: bool
    text: str

    @classmethod
    def asked(cls, request: Request) -> "_Seen":
        # Another site could learn by the clock whether a text is there.
        text = request.query_params.get("find", "") if asked_by_our_own(request) else ""
        return cls(request.query_params.get("times") == "1", sought(text))

    def address(self, job_id: str) -> str:
        words = {"times": "1"} if self.times else {}
        words |= {"find": self.text} if self.text else {}
        return f"/jobs/{job_id}" + (f"?{urlencode(words)}" if words else "")


def _has_terminal(job: JobStatus) -> bool:
    return job.request.HasField("terminal")


def _again(job: JobStatus) -> str:
    """Where the form is filled in with a job; empty for one that no form can hold."""
    words = {
        "command": command_text(job),
        "directory": job.working_directory,
        "tenant": job.tenant,
        "queue": job.request.queue,
    }
    if job.command_cut or not all(map(is_utf8, words.values())):
        return ""
    query = urlencode({name: word for name, word in words.items() if word})
    return f"/start?{query}" if len(query) <= _MOST_ADDRESS else ""


async def act(site: Site, request: Request, caller: Caller) -> Response:
    """Do to a job what a button says (POST)."""
    fields = await site.form(request, caller)
    chosen = act_of(request.path_params["act"])
    job_id = request.path_params["job"]
    asked = chosen.about(job_id)
    if isinstance(asked, pb.AgainRequest):
        asked.requestID = fields.get("key", "")
    answer = await site.calls.call(chosen.method, asked, caller)
    if isinstance(answer, pb.StartResponse):
        job_id = answer.jobID
    return RedirectResponse("/jobs" if chosen.method == "Remove" else f"/jobs/{job_id}", 303)


async def download(site: Site, request: Request, caller: Caller) -> Response:
    """A job's output as it is, up to now, as a file."""
    asked = pb.GetOutputRequest(jobID=request.path_params["job"], raw=True, noFollow=True)
    words = {name: stream for stream, name in STREAMS.items()}
    asked.stream = words.get(request.query_params.get("stream", ""), pb.OUTPUT_STREAM_BOTH)

    @asynccontextmanager
    async def opening() -> AsyncIterator[AsyncIterator[bytes]]:
        with site.streams.one(caller):
            async with site.calls.output(asked, caller) as messages:
                yield (message.data async for message in messages)

    name = f"job-{asked.jobID}".encode("ascii", "replace").decode()
    safe = "".join(char if char.isalnum() or char in "-." else "_" for char in name)
    headers = {
        "content-type": "application/octet-stream",
        "content-disposition": f'attachment; filename="{safe}.out"',
    }
    return Sent(opening(), headers, site.streams.stall_seconds)
