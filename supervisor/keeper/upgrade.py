"""An upgrade that is under way: what to go back to, and how it went, for those who wait for it."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from jobworker.supervisor.keeper import logs
from jobworker.supervisor.keeper.config import KeeperConfig, write_private

_FILE = "upgrade.json"
UNDER_WAY, DONE = "under way", "done"


class UpgradeNote(NamedTuple):
    """How the newest upgrade of a keeper stands: its number, from 1; 0 for none so far.

    `outcome` is UNDER_WAY, DONE, or else why the settings of before are in force again.
    `refused` says that no other try with the same settings could help.
    """

    keeper: int
    number: int
    outcome: str
    refused: bool = False


def upgrade_note(state_dir: Path, keeper: int) -> UpgradeNote | None:
    """What the keeper of this PID says; None for one that is of before this file was."""
    try:
        note = UpgradeNote(*json.loads((state_dir / _FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return note if note.keeper == keeper else None


class Upgrade:
    """The keeper's side: at most one upgrade at a time is under way."""

    def __init__(self, path: Path, config: KeeperConfig) -> None:
        """`config` is what is in force, read from the file `path`."""
        self._path = path
        self._file = Path(config.state_dir) / _FILE
        self._in_force = config
        self._before: KeeperConfig | None = None
        self._number = 0
        self._tell(DONE)

    @property
    def under_way(self) -> bool:
        """Whether it is not known yet how it goes."""
        return self._before is not None

    def begin(self, config: KeeperConfig) -> None:
        """This is tried now. What has not come up yet is not gone back to."""
        self._before = self._before or self._in_force
        self._in_force = config
        self._number += 1
        self._tell(UNDER_WAY)

    def succeed(self) -> None:
        """There is serving with it."""
        if self._before is not None:
            self._before = None
            self._tell(DONE)

    def refuse(self, reason: str) -> None:
        """It could not even be tried; all stays as it is."""
        self._number += 1
        self._tell(reason, refused=True)

    def fail(self, reason: str, *, refused: bool) -> KeeperConfig:
        """There is no serving with it: what to go back to, which is in the file again."""
        if self._before is None:
            raise RuntimeError("no upgrade is under way")
        self._in_force, self._before = self._before, None
        try:
            self._in_force.write(self._path)
        except OSError as error:
            logs.say("keeper", f"cannot write {self._path}: {error.strerror}", "error")
        self._tell(reason, refused=refused)
        return self._in_force

    def _tell(self, outcome: str, *, refused: bool = False) -> None:
        note = UpgradeNote(os.getpid(), self._number, outcome, refused)
        try:
            write_private(self._file, json.dumps(note))
        except OSError as error:
            # On a full disk those who wait are not told; that keeps no service from going on.
            logs.say("keeper", f"cannot write {self._file}: {error.strerror}", "warning")
