"""A browser without a screen: HTTP/1.1 over real TLS, with a certificate and a cookie."""

import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.support.pki import Issued
from tests.support.server import Server

CONSOLE_PORT = 50080
CONSOLE = f'console: {{listen: "{{host}}:{CONSOLE_PORT}"}}\n'
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()


@dataclass
class Browser:
    """One user's. It keeps the console's cookie, and sends it along as browsers do."""

    server: Server
    context: ssl.SSLContext
    cookie: str = field(default="", repr=False)

    @property
    def origin(self) -> str:
        """The console's."""
        return f"https://{self.server.host}:{CONSOLE_PORT}"

    def get(self, path: str, **headers: str) -> Answer:
        """Follow a link."""
        return self.ask("GET", path, headers)

    def press(self, path: str, page: str, **fields: str) -> Answer:
        """Press a button of a page, whose form goes to a path."""
        token = re.search('name="token" value="([0-9a-f]+)"', self.get(page).text)
        assert token is not None, f"{page} has no form"
        return self.post(path, {"token": token[1], **fields}, origin=self.origin)

    def post(self, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
        """Send a form, with no more headers than these."""
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, {**kind, **headers}, urlencode(fields).encode())

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Send a request; `_` in the names of headers stands for `-`."""
        with closing(self.connection()) as connection:
            connection.request(method, path, body, self._headers(headers))
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            if given := told.get("set-cookie"):
                self.cookie = given.partition(";")[0]
            return Answer(answer.status, told, answer.read())

    def connection(self) -> http.client.HTTPSConnection:
        """A connection to the console."""
        return http.client.HTTPSConnection(
            self.server.host, CONSOLE_PORT, timeout=DEADLINE_SECONDS, context=self.context
        )

    @contextmanager
    def events(self, path: str, **headers: str) -> "Iterator[Events]":
        """Listen to a stream of events within the block."""
        with closing(self.connection()) as connection:
            connection.request("GET", path, headers=self._headers(headers))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            assert answer.getheader("content-type") == "text/event-stream"
            yield Events(answer)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        cookie = {"cookie": self.cookie} if self.cookie else {}
        return {**cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}


@dataclass
class Events:
    """A stream of server-sent events (HTML, 9.2); `number` is the last that one had."""

    answer: http.client.HTTPResponse
    number: str = ""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield (kind, data) of each event, until there are no more."""
        kind = ""
        for line in self.answer:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                self.number = value
            elif name == "data":
                yield kind, json.loads(value)

    def until(self, kind: str) -> Any:
        """The data of the next event of a kind."""
        for told, data in self:
            if told == kind:
                return data
        raise AssertionError(f"the stream ended without {kind}")


def tls(server: Server, issued: Issued | None) -> ssl.SSLContext:
    """What a browser connects with; with no certificate for None."""
    context = ssl.create_default_context(cafile=server.authority.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if issued is not None:
        context.load_cert_chain(issued.certificate, issued.key)
    return context


def browser(server: Server, user: str) -> Browser:
    """A user's."""
    return Browser(server, tls(server, server.users[user]))
