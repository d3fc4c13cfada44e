"""The Debian package: installed, upgraded under a running job, removed and purged, in a chroot."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.server import own_address

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 100
# A root of its own, over this host's: what is written there is in `upper` alone.
INSIDE = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for name in proc sys dev; do mount --rbind "/$name" "$1/root/$name"; done
for name in run tmp root home; do mount -t tmpfs tmpfs "$1/root/$name"; done
chmod 1777 "$1/root/tmp"
echo there
exec cat
"""

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg"),
]


def built(directory: Path) -> Path:
    """The package, built of this commit."""
    for script, *more in (("package",), ("deb", "--fast")):
        done = subprocess.run(
            [sys.executable, ROOT / ".ci" / script, *more, directory],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and (
            "No matching distribution" in done.stderr or "is no" in done.stderr
        ):
            pytest.skip(f"its parts are not to be had here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def of_release(package: Path, release: str, scratch: Path) -> Path:
    """The same package, a release later."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, scratch], check=True)
    control = scratch / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^(Version: .*)-1$", rf"\1-{release}", control.read_text()))
    later = package.with_name(package.name.replace("-1_", f"-{release}_"))
    subprocess.run(["dpkg-deb", "-Znone", "--build", scratch, later], check=True)
    shutil.rmtree(scratch)
    return later


class Host:
    """The chroot, while the process that holds its mounts lives."""

    def __init__(self, pid: int, root: Path) -> None:
        self._into = ["nsenter", "--mount", f"--target={pid}", "chroot", str(root)]
        self.root = Path(f"/proc/{pid}/root{root}")

    def command(self, *words: str) -> list[str]:
        return [
            *self._into,
            "env",
            "-i",
            "HOME=/root",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            *words,
        ]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the service until the block ends."""
        with subprocess.Popen(
            self.command("jobworker", "serve", "--config", "/etc/jobworker/server.yaml"),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            log: list[str] = []
            for line in process.stderr:
                log.append(line)
                if "serving on" in line:
                    break
            else:
                pytest.fail("".join(log))
            rest = threading.Thread(target=log.extend, args=(process.stderr,))
            rest.start()
            try:
                yield
            finally:
                process.terminate()
                assert process.wait(DEADLINE_SECONDS) == 0, log
                rest.join()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", INSIDE, "sh", mounted],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "there\n":
            pytest.skip(f"nothing can be mounted here: {process.stderr.read().strip()}")
        try:
            yield Host(process.pid, mounted / "root")
        finally:
            process.stdin.close()
            process.wait(DEADLINE_SECONDS)


@pytest.mark.slow
def test_it_is_installed_upgraded_under_a_running_job_and_removed(
    host: Host, tmp_path: Path
) -> None:
    package = built(tmp_path / "dist")
    shutil.copy(package, host.root / "tmp" / "first.deb")
    shutil.copy(of_release(package, "2", tmp_path / "raw"), host.root / "tmp" / "second.deb")

    host.run("dpkg", "--install", "--force-depends", "/tmp/first.deb")
    assert "jobworker " in host.run("jobworker", "--version")
    assert host.run("getent", "passwd", "jobworker").endswith(":/nonexistent:/usr/sbin/nologin")
    assert host.run("getent", "group", "jobusers").startswith("jobusers:")
    units = host.root / "lib/systemd/system"
    assert "ExecStart=/usr/bin/jobworker serve" in (units / "jobworker-keeper.service").read_text()
    assert (host.root / "usr/share/man/man1/jobworker-run.1.gz").exists()
    completion = host.root / "usr/share/bash-completion/completions/jobworker"
    assert "_JOBWORKER_COMPLETE" in completion.read_text()

    address = own_address()
    host.run("useradd", "--create-home", "--groups", "jobusers", "alice")
    said = host.run(
        *("jobworker", "init", "--host", address, "--listen", f"{address}:50051"),
        *("--user", "alice", "--tenant", "team-a", "--yes"),
    )
    # The units that were installed are those to enable.
    assert "systemctl enable --now jobworker" in said
    command = re.search(r"^ +(jobworker --server .*) whoami$", said, re.MULTILINE)
    assert command is not None
    alice = command[1].split()
    with host.serving():
        assert host.run(*alice, "run", "--", "id", "--user", "--name") == "alice"
        job = host.run(*alice, "start", "--", "sleep", "1000")
        before = host.run(*alice, "status", job)
        host.run("dpkg", "--install", "--force-depends", "/tmp/second.deb")
        host.run("jobworker", "serve", "--upgrade", "--config", "/etc/jobworker/server.yaml")
        assert "running" in before
        assert _pid(host.run(*alice, "status", job)) == _pid(before)
        host.run(*alice, "stop", job)

    host.run("dpkg", "--remove", "job-worker")
    for gone in ("usr/bin/jobworker", "usr/lib/jobworker", "lib/systemd/system/jobworker.service"):
        assert not (host.root / gone).exists(), gone
    assert (host.root / "etc/jobworker/server.yaml").exists()
    host.run("dpkg", "--purge", "job-worker")
    for gone in ("etc/jobworker", "var/lib/jobworker", "var/log/jobworker"):
        assert not (host.root / gone).exists(), gone
    assert (host.root / "root/jobworker-ca/ca.key").exists()


def _pid(status: str) -> str:
    found = re.search(r"(?i)\bpid\W+(\d+)", status)
    assert found is not None, status
    return found[1]
