"""Signals as people type and read them: those of the server's host, which is Linux.

The numbers of this one may be others: SIGUSR1 is 30 on macOS.
"""

import re

import click

# signal(7), for all architectures but Alpha, MIPS, PA-RISC and SPARC; from 1 on.
_NAMES = (
    *("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV"),
    *("USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN"),
    *("TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS"),
)
_NAMED = {number: f"SIG{name}" for number, name in enumerate(_NAMES, 1)}
# What the C library leaves to programs.
_NAMED |= {34: "SIGRTMIN", 64: "SIGRTMAX"}
_NUMBERS = {name: number for number, name in _NAMED.items()}
_NUMBERS |= {"SIGCLD": _NUMBERS["SIGCHLD"], "SIGIOT": _NUMBERS["SIGABRT"]}
_NUMBERS |= {"SIGPOLL": _NUMBERS["SIGIO"]}
_LARGEST = 64


class SignalNumber(click.ParamType[int]):
    """A signal: HUP, SIGHUP or 1. Its value is the number."""

    name = "signal"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number; what is no signal on Linux is a usage error."""
        text = str(value).upper()
        if re.fullmatch("[0-9]{1,2}", text) and 1 <= int(text) <= _LARGEST:
            return int(text)
        name = text if text.startswith("SIG") else f"SIG{text}"
        if name not in _NUMBERS:
            self.fail(f"{value!r} is no signal; `kill -l` lists them", param, ctx)
        return _NUMBERS[name]


def signal_name(number: int) -> str:
    """Return SIGHUP for 1; `signal 40` for one without a name."""
    return _NAMED.get(number, f"signal {number}")
