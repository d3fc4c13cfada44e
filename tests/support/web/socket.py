"""A WebSocket of a browser's, as another program speaks it: wsproto over real TLS."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from tests.support.web.browser import CONSOLE_PORT, DEADLINE_SECONDS, Browser


class Refused(Exception):
    """It did not become a WebSocket; `status` is what HTTP said."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status


class Socket:
    """One that is open; `texts` are the JSON that came, `shown` the bytes."""

    def __init__(self, connection: ssl.SSLSocket, browser: Browser) -> None:
        self._socket = connection
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._host = f"{browser.server.host}:{CONSOLE_PORT}"
        self.texts: list[dict[str, Any]] = []
        self.shown = b""
        self.closed = False

    def open(self, path: str, headers: dict[str, str]) -> None:
        """Ask for it. Raises Refused."""
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._send(Request(host=self._host, target=path, extra_headers=extra))
        words = b""
        while True:
            for event in self._events():
                match event:
                    case AcceptConnection():
                        return
                    case RejectConnection(status_code=status, has_body=False):
                        raise Refused(status, "")
                    case RejectConnection(status_code=status):
                        refused = status
                    case RejectData(data=data, body_finished=finished):
                        words += data
                        if finished:
                            raise Refused(refused, words.decode())

    def say(self, **told: Any) -> None:
        """Send JSON."""
        self.text(json.dumps(told))

    def text(self, text: str) -> None:
        """Send a text."""
        self._send(TextMessage(text))

    def type(self, data: bytes) -> None:
        """Send bytes."""
        self._send(BytesMessage(data))

    def until_shown(self, wanted: bytes) -> None:
        """Read until the bytes that came hold that; say that they are drawn."""
        while wanted not in self.shown:
            assert not self.closed, (self.texts, self.shown[-200:])
            before = len(self.shown)
            self._read()
            if len(self.shown) > before:
                self.say(shown=len(self.shown))

    def until_told(self, name: str) -> Any:
        """Read until JSON with that has come; its value."""
        while not (found := [one[name] for one in self.texts if name in one]):
            assert not self.closed, (self.texts, self.shown[-200:])
            self._read()
        return found[0]

    def until_closed(self) -> None:
        """Read until the other end has closed it."""
        while not self.closed:
            self._read()

    def read_once(self) -> None:
        """Take what comes next."""
        self._read()

    def _read(self) -> None:
        for event in self._events():
            match event:
                case TextMessage(data=text):
                    self.texts.append(json.loads(text))
                case BytesMessage(data=data):
                    self.shown += bytes(data)
                case Ping():
                    self._send(event.response())
                case CloseConnection():
                    self.closed = True

    def _events(self) -> Iterator[Any]:
        data = self._socket.recv(65536)
        self.closed = self.closed or not data
        if data:
            self._protocol.receive_data(data)
            yield from self._protocol.events()

    def _send(self, event: Any) -> None:
        self._socket.sendall(self._protocol.send(event))


@contextmanager
def web_socket(browser: Browser, path: str, **headers: str) -> Iterator[Socket]:
    """A user's WebSocket to the console, with the headers that the console's own page sends."""
    own = {"origin": browser.origin, "cookie": browser.cookie, "sec-fetch-site": "same-origin"}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {name: value for name, value in {**own, **given}.items() if value}
    address = browser.server.host, CONSOLE_PORT
    with (
        socket.create_connection(address, DEADLINE_SECONDS) as plain,
        browser.context.wrap_socket(plain, server_hostname=browser.server.host) as secure,
    ):
        opened = Socket(secure, browser)
        opened.open(path, sent)
        yield opened
