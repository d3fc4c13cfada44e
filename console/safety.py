"""What keeps other sites out of the console, and what jobs say from becoming a script in it.

A browser shows the user's certificate to the console whichever site has it ask, so that
a request has the certificate says nothing about who wanted it.
"""

import hmac
import ipaddress
import logging
import secrets
from collections.abc import Callable, Iterable
from hashlib import sha256

import grpc
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.refusal import Refusal

log = logging.getLogger(__name__)

# No script but our own files, no frame, nothing of another host.
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not no-referrer, with which browsers tell the origin of no form (Fetch, "origin header").
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# The prefix keeps other hosts and ports without TLS from setting it (RFC 6265bis, 4.1.3.2).
COOKIE = "__Host-jobworker"
TOKEN = "token"  # noqa: S105 - the name of a field
_SECRET_BYTES = 32
# Those of RFC 9110, 9.2.1, that are served.
_READING = {"GET", "HEAD"}
# What an answer begins with, to a request and to one for a WebSocket that is refused.
_BEGINNINGS = {"http.response.start", "websocket.http.response.start"}


class Hosts:
    """The names by which browsers may come: those of the certificate, and those of the settings."""

    def __init__(self, certified: Callable[[], Iterable[str]], others: Iterable[str]) -> None:
        self._certified = certified
        self._others = frozenset(map(_plain, others))

    def know(self, host: str) -> bool:
        """Whether a Host header, with a port or without, is one of them."""
        name = _plain(_without_port(host))
        if "*" in name:
            return False
        certified = [_plain(one) for one in self._certified()]
        if name in self._others or name in certified:
            return True
        # A wildcard stands for the whole first label (RFC 6125, 6.4.3).
        first, dot, rest = name.partition(".")
        return bool(first and dot) and f"*.{rest}" in certified


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _plain(name: str) -> str:
    bare = name.removeprefix("[").removesuffix("]").removesuffix(".").lower()
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


class Safety:
    """Refuses what another site may have asked for; puts HEADERS on every answer (ASGI)."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        begun = False

        async def safely(message: Message) -> None:
            nonlocal begun
            if message["type"] in _BEGINNINGS:
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            begun = begun or message["type"] == "websocket.accept"
            await send(message)

        headers = Headers(scope=scope)
        # One for a WebSocket is no reading: what comes by it, other sites' scripts could read.
        method = scope["method"] if scope["type"] == "http" else "CONNECT"
        if objection := self._objection(method, headers):
            await PlainTextResponse(objection, 403)(scope, receive, safely)
            return
        try:
            await self._app(scope, receive, safely)
        except Exception:
            log.exception("a page could not be served")
            if not begun:
                words = "A fault of the server: its log has more.\n"
                await PlainTextResponse(words, 500)(scope, receive, safely)

    def _objection(self, method: str, headers: Headers) -> str:
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._hosts.know(host):
            return (
                "The console is not known by this name: use one of the server's certificate, "
                "or have it added to console.hosts.\n"
            )
        site = headers.get("sec-fetch-site", "none")
        if method not in _READING:
            if headers.get("origin") != f"https://{host}" or site not in ("none", "same-origin"):
                return "Another site has asked for this: it was not done.\n"
        elif site in ("cross-site", "same-site") and not _follows_a_link(headers):
            return "Another site has asked for this: it is not shown there.\n"
        return ""


def asked_by_our_own(request: HTTPConnection) -> bool:
    """Whether a page of ours, or the user, has asked for it, rather than another site's link."""
    return request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _follows_a_link(headers: Headers) -> bool:
    """Whether what is asked for is to be a page of its own (Fetch Metadata, 2)."""
    mode, destination = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return mode == "navigate" and destination == "document"


class Tokens:
    """What a form brings along to show that it is of one of our pages, shown to that user.

    It goes with a cookie that browsers send along from our own pages only (SameSite), and
    with the certificate. The secret is this front's: after a restart forms are shown anew.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(_SECRET_BYTES)

    def of(self, caller: Caller) -> str:
        """The token of a user's forms."""
        return self._made("form", caller)

    def give(self, request: Request, response: Response, caller: Caller) -> None:
        """Have the user's browser keep the cookie that goes with it."""
        cookie = self._made("cookie", caller)
        if request.cookies.get(COOKIE) != cookie:
            response.set_cookie(COOKIE, cookie, secure=True, httponly=True, samesite="strict")

    def check(self, request: HTTPConnection, token: str, caller: Caller) -> None:
        """Raise Refusal unless the token and the request's cookie are the user's."""
        given = f"{token} {request.cookies.get(COOKIE, '')}"
        expected = f"{self.of(caller)} {self._made('cookie', caller)}"
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                "STALE_PAGE",
                "nothing was done: the page is from before a restart of the server, or was "
                "another user's; open it again, and press again",
            )

    def _made(self, what: str, caller: Caller) -> str:
        who = f"{what}\n{caller.identity.common_name}\n{caller.identity.serial}"
        return hmac.new(self._secret, who.encode(), sha256).hexdigest()
