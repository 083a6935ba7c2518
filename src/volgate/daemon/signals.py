"""Which signals a daemon hears, and until when."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Final

import trio

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def received_signals(*others: signal.Signals) -> Iterator[AsyncIterator[int]]:
    """Receive SIGTERM, SIGINT and ``others``; afterwards all are ignored to the process's end.

    What is left then is closing, which nobody shall cut off: not a second signal, nor one that was heard too late to be
    asked for (timeout(1), for one, sends each signal twice).
    """
    numbers = (*_STOPS, *others)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # one that comes just now waits for its receiver
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)  # what trio puts back when the receiver closes
        with trio.open_signal_receiver(*numbers) as signals:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield signals
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
