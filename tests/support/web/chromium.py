"""A real browser: Debian's chromium without a screen, told what to do over a pipe.

The DevTools protocol (https://chromedevtools.github.io/devtools-protocol/), messages
ended by NUL on descriptors 3 and 4 (--remote-debugging-pipe).
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server
from tests.support.web.browser import CONSOLE_PORT

DEADLINE_SECONDS = 60.0
PASSPHRASE = "correct horse battery"
TOOLS = ("chromium", "certutil", "pk12util", "bwrap")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
needs_chromium = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


class Page:
    """The one tab of a browser."""

    def __init__(self, to: int, of: int, server: Server) -> None:
        self._to, self._of = to, of
        self._numbers = itertools.count(1)
        self._received = b""
        self._session = ""
        self.origin = f"https://{server.host}:{CONSOLE_PORT}"
        # What the page has said on its console: errors, and what its policy has refused.
        self.complaints: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, path: str) -> None:
        """Go to a page, and wait until it has been loaded."""
        error = self._ask("Page.navigate", url=self.origin + path).get("errorText")
        assert not error, error
        self.until("document.readyState === 'complete'")

    def look(self, width: int, height: int, scheme: str, file: Path | None = None) -> None:
        """Give the page a size and a colour scheme; take a picture of it."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._ask("Emulation.setEmulatedMedia", features=[feature])
        if file is not None:
            picture = self._ask("Page.captureScreenshot", format="png")["data"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(base64.b64decode(picture))

    def press(self, key: str, code: int) -> None:
        """Press a key, such as Tab (9) or Enter (13)."""
        typed = {"Enter": "\r", " ": " "}.get(key)
        text = {"text": typed} if typed else {}
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **text,
            )

    def type(self, text: str) -> None:
        """Press the keys of a text, one after another."""
        for char in text:
            key = {"\r": "Enter"}.get(char, char)
            self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=char)
            self._ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def without_scripts(self) -> None:
        """Load the pages from here on without them."""
        self._ask("Emulation.setScriptExecutionDisabled", value=True)

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        answer = self._ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true in the page."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.value(script):
            assert time.monotonic() < deadline, f"it did not come to be: {script}"
            time.sleep(0.02)

    def _ask(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._hear(answer)

    def _hear(self, told: dict[str, Any]) -> None:
        if told.get("method") == "Log.entryAdded":
            self.complaints.append(told["params"]["entry"]["text"])
        elif told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(told["params"]["exceptionDetails"]))

    def _read(self) -> Any:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._of], [], [], DEADLINE_SECONDS)
            assert ready, "the browser says nothing"
            piece = os.read(self._of, 1024 * 1024)
            assert piece, "the browser has gone"
            self._received += piece
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)


@contextmanager
def chromium(directory: Path, server: Server, user: str) -> Iterator[Page]:
    """A browser that has a user's certificate, until the block ends."""
    home, policies = directory / "home", directory / "policies"
    _import(home, server, _exported(directory, server, user))
    (policies / "managed").mkdir(parents=True)
    # Else somebody would have to choose it in a window.
    choose = json.dumps({"pattern": f"https://{server.host}:{CONSOLE_PORT}", "filter": {}})
    rules = {"AutoSelectCertificateForUrls": [choose]}
    (policies / "managed/rules.json").write_text(json.dumps(rules))
    theirs, to = os.pipe()
    of, told = os.pipe()
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{told}', "bash", *_command(home, policies)],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs, told),
    )
    os.close(theirs)
    os.close(told)
    try:
        yield Page(to, of, server)
    finally:
        os.close(to)
        os.close(of)
        try:
            process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
            process.wait()


def _command(home: Path, policies: Path) -> list[str]:
    """Chromium, which finds its rules in the place that the host's own would be in."""
    inside = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/etc/chromium"]
    inside += ["--ro-bind", str(policies), "/etc/chromium/policies", "--die-with-parent"]
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    options += ["--no-first-run", "--disable-dev-shm-usage", f"--user-data-dir={home}/profile"]
    return [*inside, "--", "chromium", *options, "about:blank"]


def _exported(directory: Path, server: Server, user: str) -> Path:
    """The user's certificate as the command writes it for a browser."""
    words = directory / "words"
    words.write_text(PASSPHRASE)
    file = directory / f"{user}.p12"
    server.ask(user, "cert", "export", "--p12", str(file), "--passphrase-file", str(words))
    return file


def _import(home: Path, server: Server, bundle: Path) -> None:
    store = home / ".pki/nssdb"
    store.mkdir(parents=True)
    place = ["-d", f"sql:{store}"]
    for words in (
        ["certutil", *place, "-N", "--empty-password"],
        ["pk12util", *place, "-i", str(bundle), "-W", PASSPHRASE, "-K", ""],
        [
            "certutil",
            *place,
            "-A",
            "-t",
            "C,,",
            "-n",
            "ca",
            "-i",
            str(server.authority.certificate),
        ],
    ):
        subprocess.run(words, check=True, capture_output=True, timeout=DEADLINE_SECONDS)
