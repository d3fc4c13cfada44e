"""Signals as people type and read them."""

import re
import signal

import click


class SignalNumber(click.ParamType[int]):
    """A signal: HUP, SIGHUP or 1. Its value is the number."""

    name = "signal"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number; what is no signal here is a usage error."""
        text = str(value).upper()
        if re.fullmatch("[0-9]{1,2}", text) and 1 <= int(text) <= signal.NSIG - 1:
            return int(text)
        name = text if text.startswith("SIG") else f"SIG{text}"
        if name not in signal.Signals.__members__:
            self.fail(f"{value!r} is no signal; `kill -l` lists them", param, ctx)
        return signal.Signals[name].value


def signal_name(number: int) -> str:
    """Return SIGHUP for 1; `signal 40` for one without a name."""
    names = {member.value: member.name for member in signal.Signals}
    return names.get(number, f"signal {number}")
