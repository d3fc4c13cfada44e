"""jobworker-node: what Slurm executes on a node for a job. It runs the program, and records.

It is the job's user. Whatever else happens to the service or to Slurm's daemons, it goes on:
what it has to say it writes into the job's directory. The standard library and output alone.
"""

import os
import socket
import sys
from pathlib import Path

from jobworker.supervisor.slurm.files import EXIT, STARTED, Order, Places
from jobworker.supervisor.slurm.program import CannotBegin, adopt_orphans, begin
from jobworker.supervisor.slurm.recording import Recording
from jobworker.supervisor.slurm.watching import Watch, tell

_USAGE = "usage: jobworker-node SHARED_DIRECTORY JOB_ID NONCE (Slurm executes it, nobody else)"
# Room for a burst, as jobs have it elsewhere.
_PIPE_BYTES = 1024 * 1024


def main() -> None:
    """Run the job that the arguments name, and exit as its program did."""
    if len(sys.argv) != 4:
        sys.exit(_USAGE)
    places = Places(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    # The output is the job's user's and the readers', and so is what is told of it.
    os.umask(0o027)
    order = _claimed(places)
    if order is None:
        # Given up meanwhile, or run by another: Slurm was asked twice.
        sys.exit(0)
    sys.exit(run(places, order))


def _claimed(places: Places) -> Order | None:
    try:
        order = Order.decode(places.order.read_bytes())
        if places.claim() and places.order.exists():
            return order
    except FileNotFoundError:
        pass
    return None


def run(places: Places, order: Order) -> int:
    """Execute the program and record until nothing is left of it; how a shell would report it."""
    watch = Watch(places, order.memory)
    adopt_orphans()
    out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    recording = Recording(places.output, order, out[0], err[0], _PIPE_BYTES)
    try:
        main_pid = begin(order, out[1], err[1])
    except CannotBegin as error:
        tell(places, EXIT, {"error": error.number, "step": error.step})
        return 126
    finally:
        os.close(out[1])
        os.close(err[1])
    tell(
        places,
        STARTED,
        {
            "pid": main_pid,
            "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "slurm": int(os.environ.get("SLURM_JOB_ID", "0")),
        },
    )
    code = watch.until_ended(main_pid, recording)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    main()
