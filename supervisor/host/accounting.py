"""What a job has used: read from its cgroup, from /proc, and from wait4(2)."""

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from jobworker.supervisor.host import kernel_files

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
# getrusage(2) counts input and output in blocks of so many bytes.
_BLOCK_BYTES = 512


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Seconds of CPU time, bytes of memory, bytes from and to disks; None for not known.

    `memory` and `processes` (with threads) are of now, and None once the job
    has ended.
    """

    user_seconds: float | None = None
    system_seconds: float | None = None
    memory: int | None = None
    peak_memory: int | None = None
    read: int | None = None
    written: int | None = None
    processes: int | None = None

    def else_from(self, other: "Usage") -> "Usage":
        """This, and what is not known here from the other."""
        known = {
            name: value for name, value in msgspec.structs.asdict(self).items() if value is not None
        }
        return msgspec.structs.replace(other, **known)

    def ended(self) -> "Usage":
        """What of this is still true of a job that has ended."""
        return msgspec.structs.replace(self, memory=None, processes=None)


UNKNOWN = Usage()


class ExitUsage(NamedTuple):
    """What the keeper learned from wait4(2) of a process: seconds, KiB, blocks of 512 bytes."""

    user_seconds: float
    system_seconds: float
    peak_kib: int
    read_blocks: int
    written_blocks: int

    @classmethod
    def of_report(cls, fields: Sequence[str | int | float]) -> "ExitUsage":
        """From what follows the wait status in an exit report; zeros for what is not there.

        An older keeper, which an upgrade leaves in place, reports the first three.
        """
        user, system, peak, read, written = (*(float(field) for field in fields), 0, 0, 0, 0, 0)[:5]
        return cls(user, system, int(peak), int(read), int(written))

    def usage(self) -> Usage:
        """The same, as of a job; its processes that nobody waited for are not in it."""
        return Usage(
            user_seconds=self.user_seconds,
            system_seconds=self.system_seconds,
            peak_memory=self.peak_kib * 1024,
            read=self.read_blocks * _BLOCK_BYTES,
            written=self.written_blocks * _BLOCK_BYTES,
        )


def of_cgroup(directory: Path, controllers: Collection[str]) -> Usage:
    """What a cgroup's files tell; each is there only with its controller, cpu.stat always.

    Documentation/admin-guide/cgroup-v2.rst; memory.peak is there since Linux 5.19.
    """
    cpu = _pairs(f"{directory}/cpu.stat")
    # To find out that a file is not there takes as long as reading it.
    memory, io = "memory" in controllers, "io" in controllers
    read, written = _io(_text(f"{directory}/io.stat")) if io else (None, None)
    return Usage(
        user_seconds=cpu["user_usec"] / 1e6 if "user_usec" in cpu else None,
        system_seconds=cpu["system_usec"] / 1e6 if "system_usec" in cpu else None,
        memory=_number(f"{directory}/memory.current") if memory else None,
        peak_memory=_number(f"{directory}/memory.peak") if memory else None,
        read=read,
        written=written,
        processes=_number(f"{directory}/pids.current") if "pids" in controllers else None,
    )


def of_process(pid: int) -> Usage:
    """What /proc (proc(5)) tells of a process and the children it has waited for.

    Without its CPU time when the process has ended; `io` is its owner's and root's to read.
    """
    stat = _text(f"/proc/{pid}/stat")
    if stat is None:
        return UNKNOWN
    # The second field, the name, may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    io = _pairs(f"/proc/{pid}/io", ": ")
    return Usage(
        user_seconds=(user + children_user) / _TICKS,
        system_seconds=(system + children_system) / _TICKS,
        memory=int(fields[21]) * _PAGE_BYTES,
        read=io.get("read_bytes"),
        written=io.get("write_bytes"),
    )


def oom_kills(directory: Path) -> int:
    """How many processes of a cgroup, and those below it, the kernel killed for lack of memory."""
    return _pairs(f"{directory}/memory.events").get("oom_kill", 0)


def _text(path: str) -> str | None:
    """What one of the kernel's files says; None where it cannot be read."""
    with contextlib.suppress(OSError):
        return kernel_files.read(path)
    return None


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text is not None else None


def _pairs(path: str, separator: str = " ") -> dict[str, int]:
    """A file of lines `NAME NUMBER`; nothing where it cannot be read."""
    text = _text(path)
    found: dict[str, int] = {}
    for line in (text or "").splitlines():
        name, _, value = line.partition(separator)
        if value.lstrip("-").isdigit():
            found[name] = int(value)
    return found


def _io(text: str | None) -> tuple[int | None, int | None]:
    """The bytes read and written of all devices, from the text of an io.stat."""
    if text is None:
        return None, None
    read = written = 0
    for line in text.splitlines():
        for field in line.split()[1:]:
            name, _, value = field.partition("=")
            if name == "rbytes":
                read += int(value)
            elif name == "wbytes":
                written += int(value)
    return read, written
