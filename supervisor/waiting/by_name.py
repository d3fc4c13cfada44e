"""Which of the jobs that wait have a name: found without looking at the others."""

from jobworker.supervisor.job import Entry


class ByName:
    """Jobs by owner and name; those without one are in no index."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], str] = {}

    def add(self, entry: Entry) -> None:
        """Have a job found by its name, if it has one."""
        if entry.name:
            self._ids[entry.owner, entry.name] = entry.id

    def discard(self, entry: Entry) -> None:
        """It is not to be found any more."""
        self._ids.pop((entry.owner, entry.name), None)

    def of(self, owner: str, name: str) -> str:
        """The ID of the owner's job of this name; empty for none."""
        return self._ids.get((owner, name), "")
