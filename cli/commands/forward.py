"""`jobworker forward`: a TCP port of a job as one of this host's."""

from typing import TYPE_CHECKING, NamedTuple

import click

from jobworker.cli.errors import CliError, failure, tell
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import client_command

if TYPE_CHECKING:
    from jobworker.client.connection import Service

MAX_PORT = 65535


class Ports(NamedTuple):
    """The port of this host, 0 for any that is free, and that of the job."""

    local: int
    remote: int


class PortsType(click.ParamType[Ports]):
    """[LOCAL:]PORT; both are the same unless LOCAL says otherwise."""

    name = "ports"

    def convert(
        self,
        value: str | Ports,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Ports:
        """Return the two ports."""
        if isinstance(value, Ports):
            return value
        local, _, remote = value.rpartition(":")
        words = [local, remote] if ":" in value else [remote, remote]
        if not all(word.isascii() and word.isdigit() and len(word) <= 5 for word in words):
            self.fail(f"{value!r} is not [LOCAL:]PORT, such as 8888 or 9000:8888", param, ctx)
        ports = Ports(*map(int, words))
        if not (ports.local <= MAX_PORT and 1 <= ports.remote <= MAX_PORT):
            self.fail(f"{value!r}: ports are 1 to {MAX_PORT}", param, ctx)
        return ports


@click.command()
@click.argument("job", type=JobID())
@click.argument("ports", type=PortsType(), metavar="[LOCAL:]PORT")
@client_command
def forward(service: "Service", job: str, ports: Ports) -> None:
    """Make a TCP port of JOB one of this host's, at 127.0.0.1, until interrupted.

    \b
    jobworker forward 0199e3c2 8888          http://127.0.0.1:8888 is the job's 8888
    jobworker forward 0199e3c2 9000:8888     127.0.0.1:9000 is
    jobworker forward 0199e3c2 0:8888        any port that is free: it says which

    It leads to processes of that job and to nothing else on its host. Whoever is on this
    host may connect to it.
    """
    import asyncio

    try:
        asyncio.run(_forward(service, job, ports))
    except OSError as error:
        raise CliError(
            f"cannot listen at 127.0.0.1:{ports.local} ({error.strerror}): "
            f"choose another port, as in {ports.local + 1}:{ports.remote}"
        ) from error


async def _forward(service: "Service", job: str, ports: Ports) -> None:
    from jobworker.client.errors import CallFailed
    from jobworker.client.forward import HOST, Forward

    def told(error: CallFailed) -> None:
        tell(str(failure(error, service.endpoint)))

    def listening(local: int) -> None:
        click.echo(f"{HOST}:{local} is port {ports.remote} of job {job}")

    way = Forward(service.endpoint, job, ports.remote, told)
    try:
        await way.check()
        await way.listen(ports.local, listening)
    finally:
        await way.close()
