"""Talking to systemd: sd_notify(3) over the socket it names in the environment; nothing happens where there is none."""

from __future__ import annotations

import os
import socket
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"


def notify(**facts: str | int) -> None:
    """Send facts such as ``READY=1`` or ``STATUS=...``. Never raises, also where the manager is gone."""
    address = os.environ.get(_SOCKET)
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={value}" for name, value in facts.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(message.encode(errors="backslashreplace"), address)
        except OSError:
            return


def is_waiting() -> bool:
    """Return whether a service manager started this process and waits for it to be ready."""
    return bool(os.environ.get(_SOCKET))


def watchdog_interval_s() -> float | None:
    """Return how often systemd wants a sign of life from this process (half of WatchdogSec), None where it does not."""
    limit, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not limit.isdigit() or pid != str(os.getpid()):
        return None
    return int(limit) / 2e6
