"""The machine the figures are from, and how busy it is with other things."""

import os
import platform
import time
from pathlib import Path

# Above this load average others are at work, and figures are worth less.
QUIET_LOAD = 0.5
# The same, of the share of the processors that is in use at a moment.
QUIET_SHARE = 0.1
_LOOK_SECONDS = 2.0


def description() -> str:
    """The processor, the kernel and the Python, on one line."""
    return (
        f"{os.cpu_count()} x {_processor()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def noise() -> str:
    """The load now, marked when it is too high for figures to be trusted."""
    load, _, _ = os.getloadavg()
    share = busy_share()
    quiet = load <= QUIET_LOAD and share <= QUIET_SHARE
    mark = "" if quiet else "  ** NOISY: others are using this machine **"
    return f"load average {load:.2f}, {share:.0%} of the processors in use{mark}"


def wait_for_quiet(seconds: float) -> None:
    """Wait until nobody else uses the processors, at most so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and busy_share() > QUIET_SHARE:
        pass


def busy_share(seconds: float = _LOOK_SECONDS) -> float:
    """The share of all processors' time in use over the next `seconds`: 0 to 1."""
    busy, total = _processor_times()
    time.sleep(seconds)
    busy_later, total_later = _processor_times()
    return (busy_later - busy) / max(total_later - total, 1)


def _processor_times() -> tuple[int, int]:
    """Busy and all ticks since boot, of all processors together (proc(5), /proc/stat)."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
