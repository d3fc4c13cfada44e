"""Log lines that strangers can cause: some of them one by one, the rest as a sum."""

import asyncio
import logging
from collections import Counter

_log = logging.getLogger(__name__)

# So many lines for a reason in so long are written as they are; then one tells of the rest.
_SINGLES = 5
_INTERVAL_SECONDS = 60.0
# Reasons that are told apart, of which strangers may invent some, and addresses counted.
_MOST_REASONS = 8
_MOST_ADDRESSES = 10_000
_OTHERS = "for other reasons"


class CrowdLog:
    """Lines of one kind, such as `refused connections`; belongs to one event loop."""

    def __init__(self, what: str, level: int, interval: float = _INTERVAL_SECONDS) -> None:
        """`what` is what happens to many."""
        self._what = what
        self._level = level
        self._interval = interval
        # How often, for each reason.
        self._times: Counter[str] = Counter()
        self._hosts: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, text: str, address: str, reason: object) -> None:
        """Note that it has happened to somebody at host:port; `text` is the whole line."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self.sum_up)
        known = str(reason) in self._times or len(self._times) < _MOST_REASONS
        why = str(reason) if known else _OTHERS
        self._times[why] += 1
        if self._times[why] <= _SINGLES:
            _log.log(self._level, "%s", text)
        elif len(self._hosts) < _MOST_ADDRESSES:
            self._hosts.add(address.rpartition(":")[0])

    def sum_up(self) -> None:
        """Tell of those that were only counted, and begin anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        more = {why: times - _SINGLES for why, times in self._times.most_common()}
        untold = [f"{times}: {why}" for why, times in more.items() if times > 0]
        if untold:
            _log.log(
                self._level,
                "%s: %d more within %g s, from %d hosts: %s",
                self._what,
                sum(times for times in more.values() if times > 0),
                self._interval,
                len(self._hosts),
                "; ".join(untold),
            )
        self._times.clear()
        self._hosts.clear()
