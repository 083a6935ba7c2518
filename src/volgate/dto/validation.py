"""attrs validators and converters that several DTOs share; pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Final

VOLUME_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SNAPSHOT_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")

_YEAR_10000: Final = 253_402_300_800


def check_volume_id(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse what is not a volume id.

    Raises:
        ValueError: not 1..63 characters of ``a-z0-9._-`` beginning with a letter or digit.
    """
    if not isinstance(value, str) or not VOLUME_ID.fullmatch(value):
        raise ValueError(f"{attribute.name}: {value!r} is no volume id (1 to 63 of a-z 0-9 . _ -, first a-z or 0-9)")


def check_snapshot_id(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse what is not a snapshot's id, which is a file name for every tool.

    Raises:
        ValueError: not 1..63 characters of ``a-zA-Z0-9._-`` beginning with a letter or digit.
    """
    if not isinstance(value, str) or not SNAPSHOT_ID.fullmatch(value):
        raise ValueError(
            f"{attribute.name}: {value!r} is no snapshot id (1 to 63 of a-z A-Z 0-9 . _ -, first a letter or digit)"
        )


def check_not_negative(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse a negative number; None passes where the field allows it."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{attribute.name}: {value!r} is no number")
    if value < 0:
        raise ValueError(f"{attribute.name}: {value!r} is below zero")


def check_moment(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse what is no time in UNIX seconds that a calendar has."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{attribute.name}: {value!r} is no number")
    if not 0 <= value < _YEAR_10000:
        raise ValueError(f"{attribute.name}: {value!r} is no time between the years 1970 and 9999")


def check_count(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse what is no whole number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name}: {value!r} is no whole number")
    if value < 0:
        raise ValueError(f"{attribute.name}: {value!r} is below zero")


def check_text_pairs(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse what is no mapping of texts to texts."""
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise TypeError(f"{attribute.name}: {value!r} are no pairs of texts")


def check_absolute(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse a path that does not start at the root."""
    if not isinstance(value, PurePath):
        raise TypeError(f"{attribute.name}: {value!r} is no path")
    if not value.is_absolute():
        raise ValueError(f"{attribute.name}: {str(value)!r} is not absolute")


def check_relative_path(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse a path that is absolute, climbs by ``..`` or holds a NUL byte."""
    if not isinstance(value, PurePath):
        raise TypeError(f"{attribute.name}: {value!r} is no path")
    if value.is_absolute():
        raise ValueError(f"{attribute.name}: {str(value)!r} is absolute")
    if ".." in value.parts:
        raise ValueError(f"{attribute.name}: {str(value)!r} leaves the volume by '..'")
    if "\0" in str(value):
        raise ValueError(f"{attribute.name}: {str(value)!r} holds a NUL byte")


def check_text(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse an empty or non-text value."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name}: {value!r} is no text")
    if not value:
        raise ValueError(f"{attribute.name} is empty")


def check_checksum(_instance: object, attribute: Any, value: Any) -> None:
    """Refuse what is neither ``algorithm:hex`` nor empty."""
    if not isinstance(value, str) or not re.fullmatch(r"([a-z0-9]+:[0-9a-f]+)?", value):
        raise ValueError(f"{attribute.name}: {value!r} is not 'algorithm:hex'")


def to_path(value: str | Path) -> Path:
    """Accept text where a path is meant."""
    return Path(value) if isinstance(value, str) else value


def to_frozen_mapping(value: Mapping[str, str]) -> Mapping[str, str]:
    """Copy a mapping into one that cannot be changed."""
    return MappingProxyType(dict(value))
