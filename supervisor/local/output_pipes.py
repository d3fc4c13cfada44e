"""A job's pipes, from the read ends here to its recorder."""

import os
from dataclasses import dataclass, field

from jobworker.supervisor.keeper import packets
from jobworker.supervisor.output import segments
from jobworker.supervisor.output.recorder import Recorder


@dataclass
class OutputPipes:
    """`pipes` maps the read ends that are open to streams; those of an ended output are gone.

    `disk_full` says that output could not be written before.
    """

    recorder: Recorder
    pipes: dict[int, int] = field(default_factory=dict)
    disk_full: bool = False

    def open(self, stdout: int, stderr: int | None = None) -> None:
        """Take these over; on a terminal there is one."""
        self.pipes = {stdout: segments.STDOUT}
        if stderr is not None:
            self.pipes[stderr] = segments.STDERR

    def end(self, pipe: int) -> None:
        """Nobody can write to this one any more, and it is empty."""
        del self.pipes[pipe]
        os.close(pipe)

    def close(self) -> None:
        """Close everything; what is on record stays."""
        packets.close_all(tuple(self.pipes))
        self.pipes.clear()
        self.recorder.close()
