"""Doing something to several jobs, also when it fails for one of them."""

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue

import click

from jobworker.cli.errors import CliError, failure, tell
from jobworker.client.connection import Service
from jobworker.client.errors import ClientError

Act = Callable[[str], None]


def for_each(service: Service, jobs: Iterable[str], act: Act) -> None:
    """Act on every job in turn; each failure is told at once.

    Raises:
        click.exceptions.Exit: At least one failed; with the exit code of the first.
    """
    _finish(service, (_outcome(act, job) for job in jobs))


def for_all_at_once(service: Service, jobs: Iterable[str], act: Act) -> None:
    """Act on every job, each in a thread of its own; each failure is told at once.

    Raises:
        click.exceptions.Exit: At least one failed; with the exit code of the first.
        BrokenPipeError: One found that nobody reads stdout; the rest are left alone.
    """
    outcomes: SimpleQueue[Exception | None] = SimpleQueue()
    threads = [
        threading.Thread(target=lambda job=job: outcomes.put(_outcome(act, job)), daemon=True)
        for job in jobs
    ]
    for thread in threads:
        thread.start()
    _finish(service, (outcomes.get() for _ in threads))


def _outcome(act: Act, job: str) -> Exception | None:
    try:
        act(job)
    except Exception as error:  # noqa: BLE001 - whoever reads the outcome raises it again
        return error
    return None


def _finish(service: Service, outcomes: Iterable[Exception | None]) -> None:
    codes: list[int] = []
    # What is so for all of them, such as a full disk, is told once.
    sentences: set[str] = set()
    for error in outcomes:
        match error:
            case None:
                continue
            case CliError():
                told = error
            case ClientError():
                told = failure(error, service.endpoint)
            case _:
                raise error
        if str(told) not in sentences:
            tell(str(told), told.exit_code)
        sentences.add(str(told))
        codes.append(told.exit_code)
    if codes:
        raise click.exceptions.Exit(codes[0])
