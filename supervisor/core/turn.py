"""The end of a turn of the event loop: in which order changes become durable, done and told.

What callbacks change within a turn is settled in an order that no crash can
break: one commit for all changes; then the launches of the jobs that it
recorded; one sync to the disk, which so many starts share; what must only
happen to recorded jobs; and last the answers and the news. A turn that answers
nobody, and changes no job that somebody watches, leaves its sync to one that
does, or to a timer.

Whatever one of these steps raises, the others are done: what fails concerns one
job or one client, and the rest of the turn belongs to others.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from jobworker.supervisor.core.live_job import LiveJob
from jobworker.supervisor.journal.journal import Journal

log = logging.getLogger(__name__)

# How long to wait before writing again to a journal that could not be written.
RETRY_SECONDS = 0.5
# How long what nobody waits for, such as an exit, may wait for its sync.
SYNC_SECONDS = 0.02


class _Insert(NamedTuple):
    live: LiveJob
    then: Callable[[], None]
    failed: Callable[[str], None]


class Turn:
    """Collects what a turn changes and settles it. The only writer of the journal.

    `tell` is called for each job with news, `removed` with the ID of each that
    is on record no longer; `watched` says whether somebody waits for news of one.
    Where the disk has no room, `free` is asked to make some by what belongs to the
    jobs that are to go, and says whether it did; `stuck` is told of those whose
    changes could not be recorded for all that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        tell: Callable[[LiveJob], None],
        removed: Callable[[str], None],
        watched: Callable[[str], bool],
        *,
        free: Callable[[Collection[str]], bool] = lambda _: False,
        stuck: Callable[[Collection[LiveJob]], None] = lambda _: None,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._tell = tell
        self._removed = removed
        self._watched = watched
        self._free = free
        self._stuck = stuck
        self._due = False
        self._sync_due = False
        # Something was put off that must not be told before a sync.
        self._owing = False
        self._unrecorded: set[str] = set()
        self._inserts: list[_Insert] = []
        self._updates: dict[str, LiveJob] = {}
        self._notes: dict[str, LiveJob] = {}
        self._deletes: set[str] = set()
        self._withdrawn: set[str] = set()
        self._anyway: list[Callable[[], None]] = []
        self._after_commit: list[Callable[[], None]] = []
        self._answers: list[Callable[[], None]] = []
        self._news: dict[str, LiveJob] = {}

    def insert(
        self, live: LiveJob, *, then: Callable[[], None], failed: Callable[[str], None]
    ) -> None:
        """Record a new job and call `then`, or `failed` with why it cannot be recorded."""
        self._inserts.append(_Insert(live, then, failed))
        self._settle()

    def update(self, live: LiveJob) -> None:
        """Record a job's state as it will be at the end of the turn, and tell of it."""
        self._updates[live.job.id] = live
        self.tell(live)

    def note(self, live: LiveJob) -> None:
        """Record a job's state as it will be; of no news to anybody, and not worth a sync."""
        self._notes[live.job.id] = live
        self._settle()

    def delete(self, job_id: str) -> None:
        """Remove a job from the record."""
        self._updates.pop(job_id, None)
        self._notes.pop(job_id, None)
        self._news.pop(job_id, None)
        self._deletes.add(job_id)
        self._settle()

    def withdraw(self, job_id: str) -> None:
        """Remove a job from the record as if it had never been there."""
        self._withdrawn.add(job_id)
        self.delete(job_id)

    def removes(self, job_id: str) -> bool:
        """Whether the job is on record only until the turn ends."""
        return job_id in self._deletes and job_id not in self._withdrawn

    def withdraws(self, job_id: str) -> bool:
        """Whether the job will never have been there when the turn ends."""
        return job_id in self._withdrawn

    def unrecorded(self, job_id: str) -> bool:
        """Whether the job has changed in a way that could not be recorded yet: tell the record."""
        return job_id in self._unrecorded

    def after_attempt(self, action: Callable[[], None]) -> None:
        """Do this once all changes so far are on record, or could not be put there."""
        self._anyway.append(action)
        self._settle()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this once all changes so far are on record."""
        self._after_commit.append(action)
        self._settle()

    def answer(self, action: Callable[[], None]) -> None:
        """Do this last: it tells somebody outside."""
        self._answers.append(action)
        self._settle()

    def tell(self, live: LiveJob) -> None:
        """There is news of this job that needs no record, such as more output."""
        self._news[live.job.id] = live
        self._settle()

    def _settle(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self.end)

    def end(self) -> None:
        """Settle everything now."""
        self._due = False
        inserts, self._inserts = self._inserts, []
        # What the launches add is for the next turn: it needs another commit first.
        after_commit, self._after_commit = self._after_commit, []
        answers, self._answers = self._answers, []
        anyway, self._anyway = self._anyway, []
        answering = self._owing or bool(inserts or answers or self._deletes)
        answering = answering or any(map(self._watched, self._updates))
        try:
            deleted = self._commit_if_need_be_with_more_room(inserts)
        except sqlite3.Error as error:
            # Nothing is lost: the keeper holds every exit status until it is on record. And
            # nobody is told what is not: see `unrecorded`.
            log.error("the journal cannot be written: %s", error)
            for insert in inserts:
                _contained(partial(insert.failed, str(error)))
            self._unrecorded = set(self._updates)
            refusals, self._answers = self._answers, []
            self._put_off(after_commit, [])
            self._tell_all([*anyway, *answers, *refusals])
            _contained(partial(self._stuck, tuple(self._updates.values())))
            return
        for step in [insert.then for insert in inserts] + anyway:
            _contained(step)
        after_commit += [partial(self._removed, job_id) for job_id in deleted]
        if not self._sync(answering):
            self._put_off(after_commit, answers)
            return
        self._owing = False
        self._unrecorded.clear()
        for action in after_commit:
            _contained(action)
        self._tell_all(answers)

    def _tell_all(self, answers: list[Callable[[], None]]) -> None:
        """Give these answers, and the news of jobs of which all is on record."""
        for answer in answers:
            _contained(answer)
        news, self._news = self._news, {}
        for job_id, live in news.items():
            if job_id in self._unrecorded:
                self._news[job_id] = live
            else:
                _contained(partial(self._tell, live))

    def _put_off(
        self, after_commit: list[Callable[[], None]], answers: list[Callable[[], None]]
    ) -> None:
        """Do and tell these when all is on record; try for that again soon."""
        self._after_commit = after_commit + self._after_commit
        self._answers = answers + self._answers
        self._owing = True
        self._loop.call_later(RETRY_SECONDS, self._settle)

    def _commit_if_need_be_with_more_room(self, inserts: list[_Insert]) -> set[str]:
        """As `_commit`, once more for each way to make room that there is."""
        try:
            return self._commit(inserts)
        except sqlite3.Error:
            if not self._journal.make_room() and not self._free(self._deletes):
                raise
        try:
            return self._commit(inserts)
        except sqlite3.Error:
            if not self._free(self._deletes):
                raise
        return self._commit(inserts)

    def _sync(self, now: bool) -> bool:
        """Sync now, or soon, together with what follows; False if what is told could be lost."""
        if now:
            return self._try_sync()
        if self._journal.dirty:
            self._sync_later(SYNC_SECONDS)
        return True

    def _try_sync(self) -> bool:
        try:
            self._journal.sync()
        except OSError as error:
            log.error("the journal cannot be synced: %s", error)
            self._sync_later(RETRY_SECONDS)
            return False
        return True

    def _sync_later(self, seconds: float) -> None:
        if not self._sync_due:
            self._sync_due = True
            self._loop.call_later(seconds, self._sync_late)

    def _sync_late(self) -> None:
        self._sync_due = False
        self._try_sync()

    def _commit(self, inserts: list[_Insert]) -> set[str]:
        """Returns the IDs of the jobs that are on record no longer.

        Raises sqlite3.Error, and has changed nothing then.
        """
        try:
            self._write(inserts)
        except sqlite3.Error:
            self._journal.rollback()
            raise
        self._updates.clear()
        self._notes.clear()
        deleted, self._deletes = self._deletes, set()
        self._withdrawn.clear()
        return deleted

    def _write(self, inserts: list[_Insert]) -> None:
        # First, as a start that failed may be repeated under its ID.
        for job_id in self._deletes:
            self._journal.delete(job_id, keep_key=job_id not in self._withdrawn)
        for insert in inserts:
            self._journal.insert(insert.live.job)
        for live in (self._notes | self._updates).values():
            self._journal.update(live.job)
        self._journal.commit(worth_a_sync=bool(inserts or self._updates or self._deletes))


def _contained(step: Callable[[], None]) -> None:
    """Take one step of the end of a turn; what it raises is logged, and ends with it."""
    try:
        step()
    except Exception:
        log.exception("a step of the end of a turn failed")
