"""OpenSSL's own client, as a witness of what a TLS server accepts."""

import os
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.pki import Issued

DEADLINE = 20.0
# RFC 9113, 3.4: the client's preface and an empty SETTINGS frame.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
FRAME_HEADER = 9
SETTINGS = 4


class Outcome(NamedTuple):
    """What came back as application data, and what openssl said about it."""

    received: bytes
    said: str

    @property
    def speaks_http2(self) -> bool:
        """Whether a server's preface, which is a SETTINGS frame, came back."""
        return len(self.received) >= FRAME_HEADER and self.received[3] == SETTINGS


def s_client(port: int, *options: str, ca: Path, client: Issued | None = None) -> Outcome:
    """Open an HTTP/2 connection with `openssl s_client`, until its server answers or ends it."""
    arguments = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-quiet"]
    arguments += ["-alpn", "h2", "-CAfile", str(ca), "-verify_return_error", *options]
    if client is not None:
        arguments += ["-cert", str(client.certificate), "-key", str(client.key)]
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(DEADLINE, process.kill)
    watchdog.start()
    received = b""
    try:
        # It may have been refused before it could send this.
        with suppress(BrokenPipeError):
            process.stdin.write(PREFACE)
        while len(received) < FRAME_HEADER:
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                break
            received += piece
        timed_out = not watchdog.is_alive()
    finally:
        watchdog.cancel()
        process.kill()
        _, said = process.communicate()
    assert not timed_out, f"the server neither answered nor ended the connection: {said!r}"
    return Outcome(received, said.decode())
