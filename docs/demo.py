"""The demo: a server, two tenants, and what each may do. Run by `make demo`.

Every command that is shown is run, and what it prints is checked; the demo ends
with 1 at the first that does not show what it should. It leaves its files in
the directory it is given, and no process.
"""

import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JOBWORKER = Path(sys.executable).with_name("jobworker")
READY_SECONDS = 60
COMMAND_SECONDS = 60
NOT_THERE, REFUSED = 3, 4

SERVER = """\
state_dir: state
listen: localhost:0        # any free port
console: {listen: "localhost:0"}
policy: policy.yaml
tls:
  certificate: ca/localhost.crt
  key: ca/localhost.key
  ca: ca/ca.crt
  crl: ca/ca.crl
"""
# For the demo alone: docs/security.md tells how root runs a server for others.
JOBS_AS_ROOT = """\
jobs:
  users:
    jobs_run_as_root: true
"""
POLICY = """\
rules:
  - allow: [stop, signal, read]    # to all: on one's own jobs
    to: cn:*
    jobs: "{ou}/{cn}"
  - allow: start                   # to team-a: any command
    to: ou:team-a
    jobs: "{ou}/{cn}"
  - allow: start                   # to team-b: this command
    to: ou:team-b
    jobs: "{ou}/{cn}"
    command: /usr/bin/sleep
"""
# What the console takes after the demo, when the port may be chosen.
OPEN_IT = """\
To look at it in a browser: cd {directory} && {jobworker} serve --config console.yaml
then import alice.p12 (passphrase: demodemo) and ca/ca.crt, and open https://localhost:8443
(where to import them: docs/console.md)"""
CONSOLE = "localhost:8443"
PASSPHRASE = "demodemo"  # noqa: S105 - of a demo
COUNT = "for i in 1 2 3; do echo line $i; sleep 0.3; done; exit 3"
# Two processes that try to outlive their stop: each in a session of its own,
# the second without its parent. The demo finds them by their name.
NAME = f"demo{os.getpid()}"
TREE = (
    f"setsid bash -c 'exec -a {NAME} sleep 1001' & "
    f"(setsid bash -c 'exec -a {NAME} sleep 1002' &); wait"
)


class StepFailed(Exception):
    """A step did not show what it should."""


class Demo:
    """Runs commands in a directory, for everybody to see."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = ""

    def write(self, name: str, text: str) -> None:
        """Write a file and show it."""
        (self.directory / name).write_text(text)
        print(f"  {name}:")
        _indented(text)

    def run(self, command: str, user: str = "", code: int = 0, shows: str = "") -> str:
        """Run a jobworker command line as `user`, and return what it prints.

        Raises:
            StepFailed: It ends with another exit code, or prints nothing that
                the pattern `shows` matches.
        """
        print(f"  {user}$ jobworker {command}", flush=True)
        done = subprocess.run(
            [JOBWORKER, *shlex.split(command)],
            cwd=self.directory,
            env=self._environment(user),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        _indented(done.stdout)
        if done.returncode:
            _indented(f"(exit code {done.returncode})")
        if done.returncode != code:
            raise StepFailed(f"it should end with exit code {code}, not {done.returncode}")
        if not re.search(shows, done.stdout):
            raise StepFailed(f"it should print something like {shows!r}")
        return done.stdout.strip()

    def look(self, path: str, user: str, shows: str) -> None:
        """Get a page of the console's as the user's browser does. Raises StepFailed."""
        log = (self.directory / "server.log").read_text()
        found = re.search(r"the console is at https://.*:(\d+)$", log, re.MULTILINE)
        if found is None:
            raise StepFailed(f"the server has no console:\n{log}")
        context = ssl.create_default_context(cafile=self.directory / "ca/ca.crt")
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(
            self.directory / f"ca/{user}.crt", self.directory / f"ca/{user}.key"
        )
        address = f"https://localhost:{found[1]}{path}"
        print(f"  {user}'s browser: {address}", flush=True)
        with urllib.request.urlopen(address, context=context, timeout=COMMAND_SECONDS) as answer:
            page = answer.read().decode()
        if shows not in page:
            raise StepFailed(f"the page should show {shows!r}")
        _indented(f"({len(page)} bytes of HTML, with {shows!r} in it)")

    @contextmanager
    def server(self) -> Iterator[None]:
        """Run a server until the block ends; sets `address`."""
        print("  $ jobworker serve --config server.yaml &", flush=True)
        log = self.directory / "server.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [JOBWORKER, "serve", "--config", "server.yaml"], cwd=self.directory, stderr=stderr
            )
        try:
            self.address = _address(process, log)
            print(f"    serving on {self.address}")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(COMMAND_SECONDS)
        if code:
            raise StepFailed(f"the server should end with exit code 0, not {code}")

    def _environment(self, user: str) -> dict[str, str]:
        if not user:
            return dict(os.environ)
        return {
            **os.environ,
            "JOBWORKER_SERVER": self.address,
            "JOBWORKER_CA": "ca/ca.crt",
            "JOBWORKER_CERT": f"ca/{user}.crt",
            "JOBWORKER_KEY": f"ca/{user}.key",
        }


def main() -> int:
    """Tell the story; return the exit code."""
    directory = Path(sys.argv[1])
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    demo = Demo(directory)
    try:
        set_up(demo)
        with demo.server():
            run_a_job(demo)
            stop_a_tree(demo)
            refuse_another_tenant(demo)
            open_the_console(demo)
    except (StepFailed, subprocess.TimeoutExpired) as error:
        print(f"\nThe demo failed: {error}\nThe server's log: {directory}/server.log")
        return 1
    print(f"\nThat was all of it. The server has ended; its files are in {directory}.")
    print(OPEN_IT.format(directory=directory, jobworker=JOBWORKER))
    return 0


def set_up(demo: Demo) -> None:
    """Make all that a server needs."""
    _title("Certificates: a CA, a server, and a user of each of two tenants")
    demo.run("ca init")
    demo.run("ca issue --server localhost")
    demo.run("ca issue --cn alice --ou team-a")
    demo.run("ca issue --cn bob --ou team-b")
    _title("A policy, the server's settings, and the server")
    demo.write("policy.yaml", POLICY)
    demo.write("server.yaml", SERVER + (JOBS_AS_ROOT if os.geteuid() == 0 else ""))


def run_a_job(demo: Demo) -> None:
    """Start, follow and look at a job."""
    _title("Alice starts a job, follows its output to the end, and asks how it went")
    demo.run("whoami", "alice", shows="team-a")
    job = demo.run(f'start -- bash -c "{COUNT}"', "alice", shows="^[0-9a-f-]{36}$")
    demo.run(f"logs -f {job}", "alice", shows="^line 1\nline 2\nline 3\n$")
    demo.run(f"status {job}", "alice", shows="exited with 3")


def stop_a_tree(demo: Demo) -> None:
    """Stop a job whose processes do all they can to be left behind."""
    _title("She stops a job: everything that it started ends, however well it hid")
    job = demo.run(f'start -- bash -c "{TREE}"', "alice")
    _show_processes(expected=2)
    demo.run(f"stop {job}", "alice", shows=job)
    _show_processes(expected=0)
    demo.run(f"status {job}", "alice", shows="stopped")


def refuse_another_tenant(demo: Demo) -> None:
    """Show what someone of another tenant may not do."""
    _title("Bob, of another tenant, may not start that, and sees no job of Alice's")
    job = demo.run("start -- /usr/bin/sleep 1000", "alice")
    demo.run("start -- /usr/bin/id", "bob", REFUSED, shows="start refused to cn=bob")
    demo.run(f"status {job}", "bob", NOT_THERE, shows="no job")
    demo.run(f"stop {job}", "bob", NOT_THERE, shows="no job")
    demo.run("list --quiet", "bob", shows="^$")
    demo.run("run -- /usr/bin/sleep 0.1", "bob")
    demo.run("list", "alice", shows=f"{job[-8:]} .* running ")


def open_the_console(demo: Demo) -> None:
    """Show Alice's jobs as her browser gets them."""
    _title("The same in a browser: Alice's certificate as browsers import it, and her list")
    (demo.directory / "passphrase").write_text(PASSPHRASE)
    demo.run("cert export --p12 alice.p12 --passphrase-file passphrase", "alice")
    demo.look("/jobs", "alice", shows="exited with 3")
    # For whoever wants to see it themselves, later.
    settings = (demo.directory / "server.yaml").read_text()
    settings = settings.replace('{listen: "localhost:0"}', f'{{listen: "{CONSOLE}"}}')
    (demo.directory / "console.yaml").write_text(settings)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return where the server listens, once its log says so."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        serving = re.search(r"serving on .*:(\d+)$", log.read_text(), re.MULTILINE)
        if serving:
            return f"localhost:{serving[1]}"
        time.sleep(0.05)
    raise StepFailed(f"the server did not come up:\n{log.read_text()}")


def _show_processes(expected: int) -> None:
    """Show the processes of the tree, once there are as many as expected."""
    deadline = time.monotonic() + COMMAND_SECONDS
    while len(found := _processes()) != expected:
        if time.monotonic() > deadline:
            raise StepFailed(f"there should be {expected} processes, not {found}")
        time.sleep(0.05)
    _indented("\n".join(found) if found else "(no process of it is left)")


def _processes() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            # It ended while we looked.
            continue
        if words[0] == NAME:
            found.append(f"process {process.name}: {' '.join(words).strip()}")
    return sorted(found)


def _title(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def _indented(text: str) -> None:
    for line in text.splitlines():
        print(f"    {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
