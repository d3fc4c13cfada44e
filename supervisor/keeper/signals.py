"""Signals as a program expects to find them, whatever started the one that starts it."""

import ctypes
import os
import signal
import sys

# Python ignores these, and must: a closed pipe is no reason to die. A job
# expects them as a shell would give them.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
# The C library keeps these for itself (nptl(7)) and refuses to change them, but
# a program started by posix_spawn(3) can find the first one ignored.
_LIBRARY_SIGNALS = (32, 33)
# The number of rt_sigaction(2), by machine.
_RT_SIGACTION = {"x86_64": 13, "aarch64": 134, "riscv64": 134}


def reset_signals() -> None:
    """Undo what the program that started this one did to its signals: jobs would inherit it."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number not in IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for internal in _LIBRARY_SIGNALS:
        system_action(internal, signal.SIG_DFL)


def system_action(number: int, action: signal.Handlers) -> None:
    """Set what a signal does past the C library; does nothing on a machine not known here."""
    system_call = _RT_SIGACTION.get(os.uname().machine)
    if system_call is not None:
        # rt_sigaction(2): the handler, no flags, and an empty mask of 8 bytes.
        wanted = ctypes.create_string_buffer(action.to_bytes(8, sys.byteorder), 64)
        ctypes.CDLL(None).syscall(system_call, number, wanted, None, 8)
