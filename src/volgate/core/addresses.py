"""Addresses as people write them."""

from __future__ import annotations

from typing import Any


def parse_address(value: Any) -> tuple[str, int] | None:
    """Return (host, port) of ``HOST:PORT`` or ``[IPV6]:PORT``; None for an empty text, which means "off".

    Raises:
        ValueError: it is not that.
    """
    if value == "":
        return None
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"{value!r} is no address such as 127.0.0.1:9478")
    return host.strip("[]"), int(port)
