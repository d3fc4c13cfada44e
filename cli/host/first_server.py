"""What a first server is made of: its files' texts, and where they go."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

UNITS = ("jobworker.service", "jobworker-keeper.service")
# Where the units as they are shipped have the program, and the settings.
_SHIPPED_PROGRAM = "/opt/jobworker/bin/jobworker"
_SHIPPED_SETTINGS = "/etc/jobworker/server.yaml"


@dataclass(frozen=True, slots=True)
class FirstServer:
    """A server that is not there yet.

    `front_user` and `group` are None where jobs run as who starts the server. `units` is
    where systemd's go, None for nowhere. `user` may be empty: nobody yet.
    """

    directory: Path
    ca: Path
    state: Path
    audit: Path
    listen: str
    hosts: tuple[str, ...]
    front_user: str | None
    group: str | None
    units: Path | None
    program: Path
    user: str = ""
    tenants: tuple[str, ...] = ()
    is_root: bool = True

    @property
    def settings(self) -> Path:
        """The file of settings."""
        return self.directory / "server.yaml"

    @property
    def policy(self) -> Path:
        """The file of the policy."""
        return self.directory / "policy.yaml"

    @property
    def tls(self) -> Path:
        """The directory of what the server shows and trusts."""
        return self.directory / "tls"

    def unit_files(self) -> Iterator[Path]:
        """Where the units go."""
        if self.units is not None:
            yield from (self.units / name for name in UNITS)

    def new_files(self) -> Iterator[Path]:
        """What is made, and must not be there."""
        yield from (self.settings, self.policy)
        yield from (self.tls / name for name in ("server.crt", "server.key", "ca.crt", "ca.crl"))
        yield from self.unit_files()
        if self.user:
            yield from (self.ca / f"{self.user}.crt", self.ca / f"{self.user}.key")

    def settings_text(self) -> str:
        """The settings: what has no default, and the audit log."""
        lines = [
            "# Written by `jobworker init`. What else there is: deploy/server.yaml of job-worker,",
            "# and docs/operations.md. `jobworker serve --check` looks for what is wrong.",
            f"state_dir: {_quoted(self.state)}",
            f"listen: {_quoted(self.listen)}",
            "policy: policy.yaml",
            "tls: {certificate: tls/server.crt, key: tls/server.key, ca: tls/ca.crt}",
            f"audit: {{directory: {_quoted(self.audit)}}}",
        ]
        if self.front_user:
            lines += [
                f"front_user: {_quoted(self.front_user)}",
                "# The jobs of the CN alice run as the Unix user alice, who is in the group.",
                f'jobs: {{users: {{names: "{{cn}}", groups: [{_quoted(self.group)}]}}}}',
            ]
        elif self.is_root:
            lines += [
                "# Everybody's jobs run as root: good for trying, and for nothing else.",
                "jobs: {users: {jobs_run_as_root: true}}",
            ]
        return "\n".join(lines) + "\n"

    def unit_text(self, name: str) -> str:
        """A unit as it is shipped, for this program and these settings."""
        text = files("jobworker.deploy").joinpath(name).read_text()
        text = text.replace(_SHIPPED_PROGRAM, _quoted(self.program))
        text = text.replace(_SHIPPED_SETTINGS, _quoted(self.settings))
        # What is adapted already needs no telling.
        return re.sub(r"Copy it and .*\n# adapt the paths\. ", "Made by `jobworker init`. ", text)

    def plan(self) -> Iterator[str]:
        """What will be done, a line each."""
        made = "the one that is there" if (self.ca / "ca.crt").exists() else "a new one"
        yield f"CA           {self.ca}: {made}; its key is what everybody's identity rests on"
        yield f"server       {self.tls}/server.crt for {', '.join(self.hosts)}"
        yield f"settings     {self.settings}: listens at {self.listen}"
        yield f"policy       {self.policy}: everybody does what they like with jobs of their own"
        yield f"state        {self.state}, and the audit log in {self.audit}"
        if self.front_user:
            yield f"Unix users   {self.front_user} for the network, those in {self.group} run jobs"
        else:
            yield "Unix users   all jobs run as you"
        if self.units is not None:
            yield f"systemd      {', '.join(map(str, self.unit_files()))}"
        if self.user:
            names = "".join(f" ou={tenant}" for tenant in self.tenants)
            yield f"first user   cn={self.user}{names}: {self.ca / self.user}.crt and .key"


def policy_text() -> str:
    """The policy to begin with."""
    return files("jobworker.deploy").joinpath("policy.yaml").read_text()


def _quoted(text: object) -> str:
    """A text as YAML and systemd.syntax(7) have it, whatever is in it."""
    plain = str(text)
    if re.fullmatch(r"[A-Za-z0-9/][A-Za-z0-9/._-]*", plain):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
