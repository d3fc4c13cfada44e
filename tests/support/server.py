"""A real server for tests: `jobworker serve` with a CA, certificates and a policy of its own."""

import ctypes
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.pki import Authority, Issued

JOBWORKER = Path(sys.executable).with_name("jobworker")
PORT = 50051
# A server that is started by root must be told whose jobs run as whom.
JOBS_AS_ROOT = "jobs: {users: {jobs_run_as_root: true}}\n"
DEADLINE_SECONDS = 60.0
# How long what a server leaves behind may take to be gone.
GONE_SECONDS = 60.0
PR_SET_CHILD_SUBREAPER = 36

_counter = itertools.count(1)


@dataclass(frozen=True)
class Server:
    """A server that is up. `host` is an address of its own on the loopback network."""

    directory: Path
    host: str
    authority: Authority
    users: dict[str, Issued]
    process: "subprocess.Popen[str]"
    log: list[str] = field(repr=False)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{PORT}"

    def environment(self, user: str, server: str | None = None) -> dict[str, str]:
        """The environment in which jobworker calls this server as `user`."""
        return {
            "PATH": f"{JOBWORKER.parent}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "JOBWORKER_SERVER": server or self.address,
            "JOBWORKER_CA": str(self.authority.certificate),
            "JOBWORKER_CERT": str(self.users[user].certificate),
            "JOBWORKER_KEY": str(self.users[user].key),
        }

    def run(
        self, user: str, *words: str, server: str | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run the command as `user` to its end."""
        return subprocess.run(
            [JOBWORKER, *words],
            env=self.environment(user, server),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def ask(self, user: str, *words: str) -> str:
        """Run the command as `user`; it must succeed. Returns what it printed."""
        done = self.run(user, *words)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def end(self, user: str, *jobs: str) -> str:
        """Wait as `user` for jobs, however they end. Returns what that printed."""
        done = self.run(user, "wait", *jobs)
        assert not done.stderr, done.stderr.decode()
        return done.stdout.decode().strip()

    @contextmanager
    def popen(
        self, user: str, *words: str, server: str | None = None
    ) -> "Iterator[subprocess.Popen[bytes]]":
        """Run the command as `user`; it is killed if it still runs when the block ends."""
        process = subprocess.Popen(
            # As from a terminal, however the tests were started: nohup(1) and the
            # shell's & leave signals ignored.
            ["env", "--default-signal=HUP,INT,TERM", JOBWORKER, *words],
            env=self.environment(user, server),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def running_server(
    directory: Path, users: Sequence[tuple[str, str]], policy: str, settings: str = ""
) -> Iterator[Server]:
    """Run a server with its files in `directory`, until the block ends.

    `users` are (name, tenant) pairs, each with a certificate; `policy` is the
    text of a YAML policy; `settings` are more lines of the server's settings, in which
    {host} stands for its address.
    When the block ends so does the server, and nothing it started may be left.
    """
    host = own_address()
    authority = configure(directory, host, policy, settings)
    issued = {name: authority.client(name, [tenant]) for name, tenant in users}
    with leaving_no_process(), serving(directory / "server.yaml") as (process, log):
        yield Server(directory, host, authority, issued, process, log)


def configure(directory: Path, host: str, policy: str, settings: str) -> Authority:
    """Write server.yaml and all that it names. Returns the CA, for more certificates."""
    pki = directory / "pki"
    pki.mkdir()
    authority = Authority(pki)
    own = authority.server("localhost", host)
    authority.write_crl(authority.certificate.with_suffix(".crl"))
    (directory / "policy.yaml").write_text(policy)
    (directory / "server.yaml").write_text(
        f"state_dir: state\nlisten: {host}:{PORT}\npolicy: policy.yaml\ntls:\n"
        f"  certificate: {own.certificate}\n  key: {own.key}\n  ca: {authority.certificate}\n"
        + settings.replace("{host}", host)
        + ("" if os.geteuid() or re.search("^jobs:", settings, re.MULTILINE) else JOBS_AS_ROOT)
    )
    return authority


@contextmanager
def serving(
    config: Path, *, returncode: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """Run `jobworker serve` until the block ends; gives its process and its log, which grows.

    The block begins when the server serves. It is ended with SIGTERM, and must
    then end with `returncode`.
    """
    process = subprocess.Popen(
        [JOBWORKER, "serve", "--config", str(config)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    ready = threading.Event()
    reader = threading.Thread(target=_read_log, args=(process, log, ready))
    reader.start()
    try:
        assert ready.wait(DEADLINE_SECONDS), log
        assert process.poll() is None, log
        yield process, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
            process.wait()
    reader.join()
    assert process.returncode == returncode, log


@contextmanager
def leaving_no_process() -> Iterator[None]:
    """Fail if the block leaves a process behind that was not there before; ends it first.

    What loses its parent becomes a child of this process (prctl(2),
    PR_SET_CHILD_SUBREAPER), so nothing can hide.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = {child.pid for child in _descendants()}
    try:
        yield
    finally:
        mine = [child for child in _descendants() if child.pid not in before]
        _, left = psutil.wait_procs(mine, timeout=GONE_SECONDS)
        told = [f"{child.pid}: {' '.join(child.cmdline())}" for child in left]
        for child in left:
            child.kill()
        psutil.wait_procs(left, timeout=GONE_SECONDS)
        assert not told, f"left behind: {told}"


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def own_address() -> str:
    """An address of 127.0.0.0/8 that no other server of a running test has.

    So every server has the same port, also after it was started again.
    """
    pid = os.getpid()
    return f"127.{1 + pid // 250 % 250}.{pid % 250}.{1 + next(_counter) % 250}"


def _read_log(process: "subprocess.Popen[str]", log: list[str], ready: threading.Event) -> None:
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            log.append(line.rstrip("\n"))
            if "serving on" in line:
                ready.set()
    ready.set()
