"""What goes wrong in the command, and how it is told: a sentence and an exit code.

The exit codes are part of the command's interface: README.md and `jobworker
--help` have the table below.
"""

import json
import sys
from enum import IntEnum
from typing import NamedTuple

import click

from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import BadFile, CallFailed, CertificateEnded, ClientError, GaveUp


class ExitCode(IntEnum):
    """How the command ends when it does not end well; MEANINGS says what each means."""

    FAILED = 1
    USAGE = 2
    NO_SUCH_JOB = 3
    REFUSED = 4
    UNREACHABLE = 5
    LIMIT = 6
    # Of the server or of the command.
    FAULT = 7
    # EX_CONFIG of sysexits.h: the unit does not start the service again for it.
    BAD_SETTINGS = 78
    # As timeout(1) has it.
    TIMED_OUT = 124
    # `run` and `wait` pass on the job's own code; what goes wrong outside the job
    # must be told apart from it. docker-run(1) uses the same number.
    RUN_FAILED = 125
    # As a shell has it for a program that is there, or is not.
    CANNOT_EXECUTE = 126
    NO_SUCH_PROGRAM = 127
    INTERRUPTED = 130


MEANINGS = {
    0: "done",
    ExitCode.FAILED: "the request failed; `can-i`: no; `wait` for several: one failed or was lost",
    ExitCode.USAGE: "bad usage or settings",
    ExitCode.NO_SUCH_JOB: "no such job, or not yours to see",
    ExitCode.REFUSED: "refused, by the policy or for the certificate",
    ExitCode.UNREACHABLE: "the server cannot be reached",
    ExitCode.LIMIT: "a limit is reached",
    ExitCode.FAULT: "a fault of the server, or of the command: it says where the traceback is",
    ExitCode.BAD_SETTINGS: "`serve`: there is no serving with these settings",
    ExitCode.TIMED_OUT: "`wait --timeout`: a job still runs",
    ExitCode.RUN_FAILED: "`run`, `exec`, `wait` for one: the job's own code is not known",
    ExitCode.CANNOT_EXECUTE: "`run`, `exec`: the program cannot be executed",
    ExitCode.NO_SUCH_PROGRAM: "`run`, `exec`: the program is not there",
    ExitCode.INTERRUPTED: "interrupted",
}
# Stands with the table.
JOBS_OWN = "`run`, `exec`, and `wait` for one job, end with the job's own code, 128+N for signal N."


def codes_text() -> str:
    """Return the table for `jobworker --help`."""
    rows = "\n".join(f"  {code:3}  {meaning}" for code, meaning in MEANINGS.items())
    return f"\b\nExit codes:\n{rows}\n\n{JOBS_OWN}"


class CliError(Exception):
    """Ends the command: the message goes to stderr, `exit_code` to the shell."""

    def __init__(self, message: str, exit_code: int = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class SettingsError(CliError):
    """A setting is missing, malformed, or names a file that will not do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)


class RequestFailed(CliError):
    """The server did not do what it was asked, or could not be asked.

    `errno` is as in CallFailed.
    """

    def __init__(self, message: str, exit_code: int = ExitCode.FAILED, errno: str = "") -> None:
        super().__init__(message, exit_code)
        self.errno = errno


class CutOff(CliError):
    """What was followed is followed no more, as one's certificate is not accepted any longer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.REFUSED)


class _Telling(NamedTuple):
    exit_code: ExitCode
    sentence: str


# gRPC status code -> exit code and sentence. {message} is the server's own,
# {server} is HOST:PORT, {certificate} the client's certificate file.
_TELLINGS = {
    "INVALID_ARGUMENT": _Telling(ExitCode.USAGE, "{message}"),
    "NOT_FOUND": _Telling(
        ExitCode.NO_SUCH_JOB, "{message} (`jobworker list` shows the jobs you may see)"
    ),
    "PERMISSION_DENIED": _Telling(ExitCode.REFUSED, "{message}"),
    "UNAUTHENTICATED": _Telling(
        ExitCode.REFUSED, "the server does not accept the certificate {certificate}: {message}"
    ),
    "FAILED_PRECONDITION": _Telling(ExitCode.FAILED, "{message}"),
    "ALREADY_EXISTS": _Telling(ExitCode.FAILED, "{message}"),
    "ABORTED": _Telling(ExitCode.FAILED, "{message}; try again"),
    "OUT_OF_RANGE": _Telling(ExitCode.USAGE, "{message}"),
    "RESOURCE_EXHAUSTED": _Telling(ExitCode.LIMIT, "a limit is reached: {message}"),
    "UNAVAILABLE": _Telling(ExitCode.UNREACHABLE, "cannot talk to the server {server}: {message}"),
    "DEADLINE_EXCEEDED": _Telling(
        ExitCode.UNREACHABLE,
        "the server {server} did not answer in time; it may still have done what was asked",
    ),
    "UNIMPLEMENTED": _Telling(
        ExitCode.FAULT,
        "the server {server} does not know this request; it is older than this command",
    ),
    "CANCELLED": _Telling(ExitCode.INTERRUPTED, "interrupted"),
}
_FAULT = _Telling(
    ExitCode.FAULT, "the server {server} failed ({code}): {message}; its log says more"
)


def failure(error: ClientError, endpoint: Endpoint) -> CliError:
    """Return what ends the command for an error of the client.

    Of a server that cannot be reached the reason is looked for, which may take
    some seconds.
    """
    # Only now: it imports ssl.
    from jobworker.client.diagnosis import explained

    return _told(explained(error, endpoint), endpoint)


def _told(error: ClientError, endpoint: Endpoint) -> CliError:
    match error:
        case CertificateEnded(sought=sought) as ended:
            why = _request_failed(ended, endpoint)
            return CutOff(f"gave up on {sought}: {why}; the job goes on")
        case CallFailed() as failed:
            return _request_failed(failed, endpoint)
        case GaveUp(sought=sought, last=last):
            told = _told(last, endpoint)
            return CliError(f"gave up on {sought}: {told}", told.exit_code)
        case BadFile() as bad:
            return SettingsError(str(bad))
        case other:
            return CliError(str(other), ExitCode.FAULT)


def _request_failed(failed: CallFailed, endpoint: Endpoint) -> RequestFailed:
    """Return what to tell of a call that ended with a gRPC status.

    A code without a row of its own (INTERNAL, UNKNOWN, DATA_LOSS) is a fault of
    the server.
    """
    telling = _TELLINGS.get(failed.code, _FAULT)
    sentence = telling.sentence.format(
        message=failed.message,
        server=endpoint.server,
        certificate=endpoint.cert,
        code=failed.code,
    )
    return RequestFailed(sentence, telling.exit_code, failed.errno)


class _Voice:
    """How this process speaks on stderr."""

    as_json = False


def speak_json(*, yes: bool) -> None:
    """Have what is told be lines of JSON from here on, or sentences again."""
    _Voice.as_json = yes


def speaks_json() -> bool:
    """Whether what is told is lines of JSON."""
    return _Voice.as_json


def tell(sentence: str, exit_code: int | None = None) -> None:
    """Write a sentence to stderr, after the command's name; or as JSON, where that is asked for.

    With the `exit_code` that it is the reason of it is an error, else a message.
    """
    if not _Voice.as_json:
        end = line_end()
        told = printable_lines(sentence).replace("\n", end)
        click.echo(f"jobworker: {told}{end}", err=True, nl=False)
    elif exit_code is None:
        click.echo(json.dumps({"message": sentence}), err=True)
    else:
        click.echo(json.dumps({"error": sentence, "exit_code": int(exit_code)}), err=True)


def line_end() -> str:
    """What ends a line on stderr: a terminal that is raw is not told by a newline alone."""
    # Whoever makes it raw has imported this.
    if "termios" not in sys.modules or not sys.stderr.isatty():
        return "\n"
    import termios

    output_flags = termios.tcgetattr(sys.stderr.fileno())[1]
    return "\n" if output_flags & termios.OPOST else "\r\n"


def printable_lines(text: str) -> str:
    """Return each line of `text` as `printable` has it."""
    return "\n".join(map(printable, text.splitlines()))


def printable(text: str) -> str:
    """Return `text` with everything a terminal might act on spelled out, line ends included.

    What a server sends may hold other people's command lines.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
