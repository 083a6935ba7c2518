"""Sizes as people write them: ``10G`` = ``10GiB`` = 1024**3 * 10, ``10GB`` = 10**10, ``none`` = unlimited."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)((?<=[kmgtpe])ib|b|)", re.IGNORECASE)
_SECONDS: Final = {"": 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d|)")
_LARGEST: Final = 2**63 - 1


def parse_size(text: str) -> int | None:
    """Return bytes, None for ``none``; parts of a byte are cut off.

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
    if "." in number and not unit:
        raise ValueError(f"'{text}' is no whole number of bytes")
    size = Decimal(number) * base ** _POWERS[unit.lower()]
    if size > _LARGEST:
        raise ValueError(f"'{text}' is more than 8 EiB")
    return int(size)


def parse_count(text: str) -> int | None:
    """Return a number of inodes, None for ``none``; ``10K`` = 10 000. Raises ValueError."""
    match = re.fullmatch(r"(\d+)([kmg]?)", text.strip(), re.IGNORECASE)
    if text.strip().lower() == "none":
        return None
    if match is None:
        raise ValueError(f"'{text}' is no number of inodes; write for example 100000, 1M (= 1 000 000) or none")
    return int(match.group(1)) * int(1000 ** _POWERS[match.group(2).lower()])


def parse_seconds(value: str | float) -> float:
    """Return seconds of ``60``, ``1.5s``, ``500ms``, ``10min``, ``2h``, at most a day.

    Raises:
        ValueError: it is not that.
    """
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"'{value}' is no duration such as 60, 1.5s, 500ms, 10min, 2h")
    seconds = float(match.group(1)) * _SECONDS[match.group(2)]
    if seconds > _SECONDS["d"]:
        raise ValueError(f"'{value}' is more than a day")
    return seconds


def format_count(count: int, noun: str) -> str:
    """Return ``1 file``, ``2 files``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_backlog(files: int, bytes_: int) -> str:
    """Return ``2 files, 10 MiB``."""
    return f"{format_count(files, 'file')}, {format_size(bytes_)}"


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
