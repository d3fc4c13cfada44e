"""Which part of a job's output is which attempt's, of a job that is started again."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from jobworker.cli.errors import CliError
from jobworker.client.messages import Attempt, JobStatus
from jobworker.client.pieces import Chunk, Gap, Piece


def part_of(job: JobStatus, number: int) -> tuple[int, int | None]:
    """Return where an attempt's output begins, and ends; None where it goes on.

    Raises CliError for an attempt that there was not, or of which nothing is known any more.
    """
    for attempt in job.attempts:
        if attempt.number == number:
            return attempt.output_begin, attempt.output_end
    if number == job.attempt:
        return (job.attempts[-1].output_end if job.attempts else 0), None
    if number > job.attempt:
        raise CliError(f"job {job.id} has had no attempt {number}: its last is {job.attempt}")
    raise CliError(f"job {job.id}: of attempt {number} nothing is known any more")


def up_to(pieces: Iterable[Piece], end: int | None) -> Iterator[Piece]:
    """The pieces before that offset."""
    for piece in pieces:
        if end is None or piece.end < end:
            yield piece
            continue
        if piece.offset < end:
            yield _split(piece, end)[0]
        return


def marked(pieces: Iterable[Piece], attempts: Sequence[Attempt]) -> Iterator[Piece | str]:
    """The pieces, and before what an attempt wrote a sentence that says how that before ended."""
    left = list(attempts)
    for piece in pieces:
        rest = piece
        while left and left[0].output_end < rest.end:
            before = left.pop(0)
            if rest.offset < before.output_end:
                head, rest = _split(rest, before.output_end)
                yield head
            yield f"attempt {before.number + 1}: that before {_end(before)}"
        yield rest


def _end(attempt: Attempt) -> str:
    if attempt.signal or attempt.exit_code is None:
        return f"ended ({attempt.reason.replace('_', ' ')})"
    return f"exited with {attempt.exit_code}"


def _split(piece: Piece, at: int) -> tuple[Piece, Piece]:
    size = at - piece.offset
    if isinstance(piece, Gap):
        return Gap(piece.offset, size), Gap(at, piece.length - size)
    rest = replace(piece, offset=at, data=piece.data[size:])
    return Chunk(piece.offset, piece.data[:size], piece.stream, piece.time), rest
