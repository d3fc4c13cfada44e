"""`jobworker send`: gives a running job input, and goes."""

import os
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import client_command
from jobworker.cli.streams import STDIN

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.client.input import InputSender

_READ_BYTES = 256 * 1024


@click.command()
@click.argument("job", type=JobID(), metavar="JOB")
@click.argument("text", metavar="[TEXT]...", nargs=-1)
@click.option("--eof", is_flag=True, help="Then the job finds the end of its input.")
@click.option("--no-newline", is_flag=True, help="Send TEXT without a newline behind it.")
@click.option("--take-over", is_flag=True, help="Also where somebody else types: they stop.")
@click.option("--share", is_flag=True, help="Also where others type who share it.")
@client_command
def send(
    service: "Service",
    job: str,
    text: tuple[str, ...],
    *,
    eof: bool,
    no_newline: bool,
    take_over: bool,
    share: bool,
) -> None:
    """Send a job TEXT and a newline, or without TEXT what is on stdin; return when it is there.

    The job must have been started with -i or -t. With --eof alone nothing is sent.
    """
    from jobworker.client.input import sending
    from jobworker.proto import workerservice_pb2 as pb

    if take_over and share:
        raise click.UsageError("--take-over and --share exclude each other")
    sharing = pb.INPUT_SHARING_TAKE_OVER if take_over else pb.INPUT_SHARING_ALONE
    if share:
        sharing = pb.INPUT_SHARING_SHARED
    job_id = service.status(job).jobID
    with sending(service, job_id, sharing) as sender:
        if text:
            sender.send(os.fsencode(" ".join(text)) + (b"" if no_newline else b"\n"))
        elif not eof or not os.isatty(STDIN):
            send_all(sender, STDIN)
        if eof:
            sender.end()
    if sender.refused:
        raise CliError(f"job {job_id} takes no more input: it has ended, or closed its stdin")


def send_all(sender: "InputSender", descriptor: int) -> None:
    """Send what is there to its end, or as much as the job takes."""
    while (data := os.read(descriptor, _READ_BYTES)) and sender.send(data):
        pass
