"""The end of a turn of the event loop: in which order changes become durable, done and told.

What callbacks change within a turn is settled in an order that no crash can
break: one commit for all changes; then the launches of the jobs that it
recorded; one sync to the disk, which so many starts share; what must only
happen to recorded jobs; and last the answers and the news. A turn that answers
nobody, and changes no job that somebody watches, leaves its sync to one that
does, or to a timer.

What could be found out again after a crash, as the keeper remembers processes
and exits, leaves even its commit to the next, where nobody waits for it: then a
short job's whole life is one change of its row.

Whatever one of these steps raises, the others are done: what fails concerns one
job or one client, and the rest of the turn belongs to others.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Hashable
from functools import partial
from typing import NamedTuple

from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.live.live_job import LiveJob

log = logging.getLogger(__name__)

# How long to wait before writing again to a journal that could not be written.
RETRY_SECONDS = 0.5
# How long what nobody waits for, such as an exit, may wait for its commit, and then its sync.
COMMIT_SECONDS = 0.02
SYNC_SECONDS = 0.02


class _Answer(NamedTuple):
    """What tells somebody outside; about one job, or (empty) about any."""

    action: Callable[[], None]
    job_id: str


class _Insert(NamedTuple):
    live: LiveJob
    then: Callable[[], None]
    failed: Callable[[str], None]
    waited: bool


class _Write(NamedTuple):
    action: Callable[[], None]
    failed: Callable[[], None] | None


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
        self._commit_due = False
        self._sync_due = False
        # There is something that does not wait for a later turn's commit.
        self._pressing = False
        # Something was put off that must not be told before a sync.
        self._owing = False
        self._unrecorded: set[str] = set()
        # Those whose last change is committed, and may not be on the disk yet.
        self._unsynced: set[str] = set()
        self._inserts: list[_Insert] = []
        self._updates: dict[str, LiveJob] = {}
        self._notes: dict[str, LiveJob] = {}
        self._writes: dict[Hashable, _Write] = {}
        self._deletes: set[str] = set()
        self._withdrawn: set[str] = set()
        self._anyway: list[Callable[[], None]] = []
        self._after_commit: list[Callable[[], None]] = []
        self._answers: list[_Answer] = []
        self._news: dict[str, LiveJob] = {}

    def insert(
        self,
        live: LiveJob,
        *,
        then: Callable[[], None],
        failed: Callable[[str], None],
        waited: bool = False,
    ) -> None:
        """Record a new job, or the start of one that has `waited` on record.

        Calls `then`, or `failed` with why it cannot be recorded.
        """
        self._inserts.append(_Insert(live, then, failed, waited))
        self._press()

    def update(self, live: LiveJob) -> None:
        """Record a job's state as it will be at the end of the turn, and tell of it."""
        self._updates[live.job.id] = live
        self._press()
        self.tell(live)

    def learned(self, live: LiveJob) -> None:
        """Record what a crash would not undo, as it can be found out again; and tell of it then.

        So it may be a later turn that does, unless somebody waits for it.
        """
        self._updates[live.job.id] = live
        self.tell(live)

    def note(self, live: LiveJob) -> None:
        """The same of what is of no news to anybody, and not worth a sync."""
        self._notes[live.job.id] = live
        self._settle()

    def write(
        self, key: Hashable, action: Callable[[], None], failed: Callable[[], None] | None = None
    ) -> None:
        """Record something else by `action`, in the same commit; of a key, the last counts.

        Where that cannot be, `failed` is called and it is given up; without, it is tried again.
        """
        self._writes[key] = _Write(action, failed)
        self._press()

    def delete(self, job_id: str) -> None:
        """Remove a job from the record."""
        self._updates.pop(job_id, None)
        self._notes.pop(job_id, None)
        self._news.pop(job_id, None)
        self._deletes.add(job_id)
        self._press()

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
        self._press()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this once all changes so far are on record."""
        self._after_commit.append(action)
        self._settle()

    def answer(self, action: Callable[[], None], job_id: str = "") -> None:
        """Do this last: it tells somebody outside of one job, or of any."""
        self._answers.append(_Answer(action, job_id))
        self._settle()

    def settle_all(self) -> None:
        """Settle everything now, also what waits for another turn's commit."""
        self._pressing = True
        self.end()

    def tell(self, live: LiveJob) -> None:
        """There is news of this job that needs no record, such as more output."""
        self._news[live.job.id] = live
        self._settle()

    def _settle(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self.end)

    def _press(self) -> None:
        self._pressing = True
        self._settle()

    def end(self) -> None:
        """Settle everything now, but for what waits for another turn's commit."""
        self._due = False
        answering = self._owing or bool(self._inserts or self._deletes or self._writes)
        answering = answering or any(map(self._concerns_the_record, self._answers))
        answering = answering or any(map(self._watched, self._updates))
        if answering or self._pressing:
            self._settle_record(answering)
            return
        answers, self._answers = self._answers, []
        self._tell_all(answers)
        if (self._updates or self._notes or self._after_commit) and not self._commit_due:
            self._commit_due = True
            self._loop.call_later(COMMIT_SECONDS, self._commit_late)

    def _concerns_the_record(self, answer: _Answer) -> bool:
        """Whether it may tell what is not on the disk yet."""
        about = answer.job_id
        return not about or about in self._updates or about in self._unsynced

    def _commit_late(self) -> None:
        self._commit_due = False
        if self._updates or self._notes or self._after_commit:
            self._press()

    def _settle_record(self, answering: bool) -> None:
        """Commit, and do and tell what is on record then; sync before, if it is answered."""
        self._pressing = False
        inserts, self._inserts = self._inserts, []
        # What the launches add is for the next turn: it needs another commit first.
        after_commit, self._after_commit = self._after_commit, []
        answers, self._answers = self._answers, []
        anyway, self._anyway = self._anyway, []
        try:
            deleted = self._commit_if_need_be_with_more_room(inserts)
        except sqlite3.Error as error:
            # Nothing is lost: the keeper holds every exit status until it is on record. And
            # nobody is told what is not: see `unrecorded`.
            log.error("the journal cannot be written: %s", error)
            for insert in inserts:
                _contained(partial(insert.failed, str(error)))
            self._give_up_writes()
            self._unrecorded = set(self._updates)
            refusals, self._answers = self._answers, []
            self._put_off(after_commit, [])
            for step in anyway:
                _contained(step)
            self._tell_all([*answers, *refusals])
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

    def _give_up_writes(self) -> None:
        """Those that are not to be tried again."""
        failures = {key: write.failed for key, write in self._writes.items() if write.failed}
        for key, failed in failures.items():
            del self._writes[key]
            _contained(failed)

    def _tell_all(self, answers: list[_Answer]) -> None:
        """Give these answers, and the news of jobs of which all is on record."""
        for answer in answers:
            _contained(answer.action)
        news, self._news = self._news, {}
        for job_id, live in news.items():
            if job_id in self._updates:
                self._news[job_id] = live
            else:
                _contained(partial(self._tell, live))

    def _put_off(self, after_commit: list[Callable[[], None]], answers: list[_Answer]) -> None:
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
            self._unsynced.clear()
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
        self._unsynced.update(self._updates)
        self._updates.clear()
        self._notes.clear()
        self._writes.clear()
        deleted, self._deletes = self._deletes, set()
        self._withdrawn.clear()
        return deleted

    def _write(self, inserts: list[_Insert]) -> None:
        # First, as a start that failed may be repeated under its ID.
        for job_id in self._deletes:
            self._journal.delete(job_id, keep_key=job_id not in self._withdrawn)
        for insert in inserts:
            if insert.waited:
                self._journal.begin_waiting(insert.live.job)
            else:
                self._journal.insert(insert.live.job)
        for live in (self._notes | self._updates).values():
            self._journal.update(live.job)
        for write in self._writes.values():
            self._journal.begin()
            write.action()
        worth_a_sync = bool(inserts or self._updates or self._deletes or self._writes)
        self._journal.commit(worth_a_sync=worth_a_sync)


def _contained(step: Callable[[], None]) -> None:
    """Take one step of the end of a turn; what it raises is logged, and ends with it."""
    try:
        step()
    except Exception:
        log.exception("a step of the end of a turn failed")
