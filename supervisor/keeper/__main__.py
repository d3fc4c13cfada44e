"""The keeper's process.

Run as `python -m jobworker.supervisor.keeper FILE`, the JSON of a `KeeperConfig`.
"""

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import NoReturn

from jobworker.supervisor.keeper.config import REFUSED, KeeperConfig
from jobworker.supervisor.keeper.keeper import Keeper, log
from jobworker.supervisor.keeper.signals import reset_signals
from jobworker.supervisor.keeper.state_lock import SERVING, StateLock

PR_SET_CHILD_SUBREAPER = 36


def main() -> NoReturn:
    """The process: read the configuration, take the lock, keep."""
    reset_signals()
    path = Path(sys.argv[1])
    config = KeeperConfig.read(path)
    os.environ.update(config.environment)
    try:
        lock = StateLock(Path(config.state_dir))
    except BlockingIOError:
        log(f"another service runs on {config.state_dir}", "error")
        sys.exit(REFUSED)
    except OSError as error:
        log(f"cannot use {config.state_dir}: {error.strerror}", "error")
        sys.exit(REFUSED)
    lock.tell(SERVING)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # What is here now is not garbage; frozen, the collector leaves its pages shared with forks.
    gc.collect()
    gc.freeze()
    sys.exit(Keeper(path, config, lock).run())


if __name__ == "__main__":
    main()
