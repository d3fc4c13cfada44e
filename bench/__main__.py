"""`python -m bench [PART...]`: runs the parts named, by default all, and prints their tables."""

import argparse
import importlib
import signal
import sys

from bench.machine import description, noise, wait_for_quiet
from bench.peers.daemon import NotInstalled

# Each is a module of bench.parts, with a `main` that measures and prints.
PARTS = (
    "start",
    "output",
    "session",
    "command",
    "crowd",
    "thousands",
    "pending",
    "fanout",
    "slow_link",
    "edge",
    "console",
    "authz",
    "confinement",
)


def _part(name: str) -> str:
    # Not argparse's `choices`, which nothing is not one of (python/cpython issue 53834).
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(PARTS)}")
    return name


def main() -> None:
    """Run the parts, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", type=_part, metavar="PART")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="before each part, wait so long at most for the machine to be idle",
    )
    options = parser.parse_args()
    # So that what runs for a measurement is ended, too, when this is.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    print(description())
    left_out = False
    for part in options.parts or PARTS:
        wait_for_quiet(options.wait)
        print(f"\n{part}: {noise()}", flush=True)
        try:
            importlib.import_module(f"bench.parts.{part}").main()
        except NotInstalled as error:
            left_out = True
            print(f"{part} is not measured: {error}", flush=True)
    sys.exit(left_out)


if __name__ == "__main__":
    main()
