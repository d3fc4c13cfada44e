"""From a program's pipes to its job's segments, on a node."""

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

from jobworker.supervisor.host.disk_space import NO_ROOM
from jobworker.supervisor.output.limbo import Limbo
from jobworker.supervisor.output.pump import SHARE_BYTES
from jobworker.supervisor.output.recorder import Keep, Recorder
from jobworker.supervisor.output.segments import STDERR, STDOUT
from jobworker.supervisor.slurm.files import Order

# How soon a disk that had no room is tried again; the program waits meanwhile.
_RETRY_SECONDS = 0.1


class Recording:
    """Owns the read ends; `pipes` maps those that are open to streams."""

    def __init__(
        self, directory: Path, order: Order, stdout: int, stderr: int, pipe_bytes: int
    ) -> None:
        self.pipes = {stdout: STDOUT, stderr: STDERR}
        for pipe in self.pipes:
            os.set_blocking(pipe, False)
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, pipe_bytes)
        self._recorder = Recorder(directory, Keep(order.segment_bytes, order.rotate))
        self._most = order.most
        # A death of this process is the end of the job, so that needs no other to settle it.
        self._limbo = Limbo(os.memfd_create("jobworker-limbo", os.MFD_CLOEXEC))

    def move(self) -> bool:
        """Move some of what is in each pipe; whether there may be more."""
        moved = [self._move(pipe) for pipe in list(self.pipes)]
        return any(moved)

    def _move(self, pipe: int) -> bool:
        try:
            moved = self._record(pipe)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in {*NO_ROOM, errno.EIO, errno.ESTALE}:
                raise
            time.sleep(_RETRY_SECONDS)
            return True
        if not moved:
            del self.pipes[pipe]
            os.close(pipe)
        return moved > 0

    def _record(self, pipe: int) -> int:
        share, now_ns = SHARE_BYTES, time.time_ns()
        if self._most:
            room = self._most - self._recorder.end
            if room <= 0:
                return self._recorder.lose(pipe, self._limbo, now_ns, share)
            share = min(share, room)
        return self._recorder.record(pipe, self.pipes[pipe], now_ns, share)

    def drain(self) -> None:
        """Move all that is there, and let go."""
        while self.move():
            pass
        for pipe in self.pipes:
            os.close(pipe)
        self.pipes.clear()
        self._recorder.close()
