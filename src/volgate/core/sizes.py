"""Sizes as people write them: ``10G`` = ``10GiB`` = 1024**3 * 10, ``10GB`` = 10**10, ``none`` = unlimited."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)((?<=[kmgtpe])ib|b|)", re.IGNORECASE)
_LARGEST: Final = 2**63 - 1


def parse_size(text: str) -> int | None:
    """Return bytes, None for ``none``.

    Raises:
        ValueError: no size; the message says what one looks like.
    """
    if text.strip().lower() == "none":
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is no size; write for example 500M, 10GiB, 10GB (= 10 000 000 000) or none")
    number, unit, suffix = match.groups()
    base = 1000 if suffix.lower() == "b" and unit else 1024
    size = Decimal(number) * base ** _POWERS[unit.lower()]
    if size != int(size):
        raise ValueError(f"'{text}' is no whole number of bytes")
    if size > _LARGEST:
        raise ValueError(f"'{text}' is more than 8 EiB")
    return int(size)


def parse_count(text: str) -> int | None:
    """Return a number of inodes, None for ``none``; ``10K`` = 10240. Raises ValueError."""
    if text.strip().lower() != "none" and re.search(r"b$", text.strip(), re.IGNORECASE):
        raise ValueError(f"'{text}' is no number of inodes; write for example 100000, 1M or none")
    return parse_size(text)


def format_size(size: int | None) -> str:
    """Return ``10 GiB``, ``1.5 MiB``, ``unlimited`` for None; rounded to a tenth."""
    if size is None:
        return "unlimited"
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} EiB"
