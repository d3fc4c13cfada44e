"""What every page is made with: who looks, what they may call, and the templates."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl
from weakref import WeakValueDictionary

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, Response

from jobworker.console.audits import audits_all, audits_some
from jobworker.console.calls import Calls
from jobworker.console.errors import invalid_form
from jobworker.console.news import News
from jobworker.console.safety import TOKEN, Tokens
from jobworker.console.samples import Samples
from jobworker.console.streams import Streams
from jobworker.console.text import visible
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.guard import Clients, caller_behind, unless_stalled

_MOST_FORM_BYTES = 256 * 1024
_MOST_FIELDS = 32
# How long the body of a form may take.
_FORM_SECONDS = 20.0


class Places(NamedTuple):
    """The directory of the server's state, and that of the audit log, None for no log."""

    state: Path
    audit: Path | None


class Verbatim(str):
    """A text whose lines and characters are shown as they are; templates escape it, too."""

    __slots__ = ()


class Site:
    """Shared by all pages; belongs to the event loop."""

    def __init__(self, calls: Calls, clients: Clients, streams: Streams, places: Places) -> None:
        self.calls = calls
        self.places = places
        # Whoever searches the audit log.
        self.searching = asyncio.Lock()
        # Whoever searches some output, each user for themselves.
        self._finding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.samples = Samples(calls.access.supervisor)
        self.news = News()
        self.streams = streams
        self._clients = clients
        self._tokens = Tokens()
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "pages" / "templates"),
            autoescape=True,
            finalize=_shown,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    def caller(self, request: HTTPConnection) -> Caller:
        """Who asks. Raises Refusal for a certificate that names nobody, or has too much open."""
        return caller_behind(self._clients, request.client.host if request.client else "")

    def finding(self, caller: Caller) -> asyncio.Lock:
        """To be held by the one search of some output that a user may have at a time."""
        return self._finding.setdefault(caller.identity.common_name, asyncio.Lock())

    def page(
        self, request: Request, caller: Caller, template: str, *, status: int = 200, **values: Any
    ) -> Response:
        """A page for a user; see the template for its values."""
        text = self._templates.get_template(template).render(
            me=caller.identity,
            token=self._tokens.of(caller),
            path=request.url.path,
            audits=audits_some(self.calls.access.authority.policy, caller.identity),
            audits_all=audits_all(self.calls.access.authority.policy, caller.identity),
            **values,
        )
        response = HTMLResponse(text, status)
        self._tokens.give(request, response, caller)
        return response

    def notice(self, title: str, words: str, status: int) -> Response:
        """A page that says what went wrong, to whomever."""
        template = self._templates.get_template("notice.html")
        text = template.render(
            me=None, path="", audits=False, audits_all=False, title=title, words=words
        )
        return HTMLResponse(text, status)

    def check_token(self, request: HTTPConnection, token: str, caller: Caller) -> None:
        """Raise Refusal unless a page of ours, that was shown to the caller, has said this."""
        self._tokens.check(request, token, caller)

    async def form(self, request: Request, caller: Caller) -> Mapping[str, str]:
        """The fields of a form of ours. Raises Refusal for another's, or what is none."""
        return dict(await self.form_pairs(request, caller, _MOST_FIELDS))

    async def form_pairs(
        self, request: Request, caller: Caller, most: int
    ) -> list[tuple[str, str]]:
        """The same, of a form that has a field several times; `most` in all."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise invalid_form("this is no form: use the page's own")
        body = bytearray()
        try:
            async with unless_stalled(_FORM_SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > _MOST_FORM_BYTES:
                        raise invalid_form(f"a form holds at most {_MOST_FORM_BYTES} bytes")
            pairs = parse_qsl(
                body.decode(), keep_blank_values=True, max_num_fields=most, errors="strict"
            )
        except (ValueError, ClientDisconnect) as error:
            raise invalid_form("this is no form: use the page's own") from error
        self._tokens.check(request, dict(pairs).get(TOKEN, ""), caller)
        return pairs


def _shown(value: object) -> object:
    """A value as templates write it: strings are names and commands unless they are Verbatim."""
    return visible(value) if type(value) is str else value
