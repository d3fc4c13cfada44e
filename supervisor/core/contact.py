"""What reaches a job: signals, input, the size of its terminal, connections, files."""

import signal
import socket
from collections.abc import Coroutine
from functools import partial

from jobworker.supervisor.core.answers import Answers
from jobworker.supervisor.core.pauses import ended
from jobworker.supervisor.engine import Engine
from jobworker.supervisor.errors import AlreadyEnded, InvalidRequest, NoInput, NotRunning
from jobworker.supervisor.ipc import requests
from jobworker.supervisor.ipc.server import Client
from jobworker.supervisor.job import Job, State
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs

Way = Coroutine[None, None, socket.socket]


class Contact:
    """Passes it on to the engine. Nothing of it is on record, so no turn is waited for.

    Raises NoSuchJob, NotRunning for a job that has not begun, AlreadyEnded.
    """

    def __init__(self, engine: Engine, jobs: LiveJobs, answers: Answers) -> None:
        self._engine = engine
        self._jobs = jobs
        self._answers = answers

    def signal(self, job_id: str, number: int, *, to_all: bool) -> None:
        """Signal the program, or all processes."""
        job = self._begun(job_id)
        if job.state is State.PAUSED and number == signal.SIGCONT:
            raise NotRunning(f"job {job_id} is paused: resume it in place of sending it SIGCONT")
        try:
            self._engine.signal(job, number, to_all=to_all)
        except ProcessLookupError:
            raise AlreadyEnded(f"job {job_id} has ended: there is nothing to signal") from None

    def give(self, client: Client, seq: int, call: requests.Input | requests.Resize) -> None:
        """Hand input on. Raises NoInput for a job that takes none."""
        job = self._begun(call.id)
        try:
            match call:
                case requests.Input(_, piece):
                    self._engine.give(job, piece, partial(client.answer_input, seq))
                case requests.Resize(_, rows, columns):
                    self._engine.resize(job, rows, columns)
                    client.reply(seq)
        except LookupError:
            if job.state is State.ENDED:
                raise AlreadyEnded(f"job {job.id} has ended: it takes no input") from None
            raise NoInput(_why_no_input(job, call)) from None
        except ValueError as error:
            raise InvalidRequest(f"input must not leave a gap: {error}", "offset") from None

    def not_ended(self, job_id: str) -> LiveJob:
        """The job to pause or resume."""
        live = self._jobs.get(job_id)
        if live is None:
            self._begun(job_id)
            raise ended(job_id)
        return live

    def way(self, call: requests.Connect | requests.Porter) -> tuple[Job, Way]:
        """A job, and what makes a connection to a port of it, or to a porter for a file."""
        match call:
            case requests.Connect(job_id, port):
                job = self._listener(job_id).job
                return job, self._engine.connect(job, port)
            case requests.Porter(job_id, put):
                job = self._has_files(job_id)
                return job, self._engine.porter(job, put=put)

    def _listener(self, job_id: str) -> LiveJob:
        """The job to connect to; one that has ended may have left something that listens."""
        live = self._jobs.get(job_id)
        if live is None:
            self._begun(job_id)
            raise AlreadyEnded(f"job {job_id} has ended: nothing of it listens")
        return live

    def _has_files(self, job_id: str) -> Job:
        """The job whose files are to be carried, also one that has ended, or waits to go on."""
        job = self._answers.find(job_id)
        if not (job.state is State.STARTING or job.pid or job.attempts):
            # Where it is to be, and as whom, has not been decided.
            raise NotRunning(f"job {job.id} has not been started: it has no files")
        return job

    def _begun(self, job_id: str) -> Job:
        job = self._answers.find(job_id)
        if job.state is State.PENDING:
            how = "waits to be started again" if job.attempts else "has not been started yet"
            raise NotRunning(f"job {job.id} is pending: it {how}")
        return job


def _why_no_input(job: Job, call: requests.Input | requests.Resize) -> str:
    if isinstance(call, requests.Resize):
        return f"job {job.id} has no terminal: it was not started with one"
    return f"job {job.id} was started without an input: it takes none (start it with -i or -t)"
