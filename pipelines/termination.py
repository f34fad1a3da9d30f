"""SIGTERM (a scheduler, a container that is stopped, `kill`, `timeout`) ends a command as Ctrl-C does: in order."""

import signal
import time
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""143, what a shell reports of a process that the signal ended."""

SECONDS_OF_ONE_REQUEST = 5.0
"""A signal this soon after another asks for the same: timeout(1) sends two, and the second must not interrupt what the
first began, such as the end of a run's record. A later one is heard again, should the first have been lost in a
callback of a library that swallows exceptions."""


class Terminated(BaseException):
    """The process was asked to end. No `Exception`, so that nothing that handles failures takes it for one."""


def raise_on_sigterm() -> None:
    """Raise `Terminated` in the main thread at SIGTERM, unless whoever started the process handles or ignores it."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    heard = float("-inf")

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        before, heard = heard, time.monotonic()
        if heard - before > SECONDS_OF_ONE_REQUEST:
            raise Terminated("by SIGTERM")

    signal.signal(signal.SIGTERM, handle)


def ignore_sigterm() -> None:
    """For a process that is about to exit with `EXIT_CODE`.

    The interpreter gives signals back to the system as it ends, and another one would end it with another code.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
