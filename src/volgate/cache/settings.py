"""What a cache may use of its host, and when it uploads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import attrs

from volgate.core.sizes import parse_seconds, parse_size
from volgate.errors import BadConfiguration

MIB: Final = 1 << 20


@attrs.frozen
class CacheSettings:
    """Where a cache lies and what it may take.

    Attributes:
        directory: of this volume alone.
        place: 32 hex digits that stand for the bucket and prefix; what lies in the directory belongs to no other.
        max_bytes: of clean content on disk. staging_bytes: of content that is not uploaded yet.
        min_free_bytes: what both leave free on the disk.
        ttl_s: how long what the bucket said of names and attributes is trusted, seconds.
        max_age_s: when content that is being written is uploaded though it is still open, seconds.
        count_every_s: how often all is counted anew, for what others add and take away, seconds; 0 = never.
        sync_uploads: fsync returns when the bucket has the content; else when the local journal has it.
        close_uploads: likewise for close.
        take_over: take the volume from a host that left a backlog behind.
    """

    directory: Path
    place: str = "0" * 32
    max_bytes: int = 10 << 30
    staging_bytes: int = 10 << 30
    min_free_bytes: int = 512 * MIB
    ttl_s: float = 60.0
    max_age_s: float = 30.0
    count_every_s: float = 86_400.0
    sync_uploads: bool = True
    close_uploads: bool = False
    take_over: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Self:
        """Return the settings that mount options ask for; options of others are passed over.

        Raises:
            BadConfiguration: a value is none; names the option.
        """
        found: dict[str, Any] = {"directory": Path(options["cache_dir"]), "place": options["place"]}
        for name, (attribute, parse) in OPTIONS.items():
            if name in options and attribute != "directory":
                try:
                    found[attribute] = parse(options[name])
                except ValueError as error:
                    raise BadConfiguration(f"{name}: {error}") from error
        return cls(**found)


def _bytes(text: str) -> int:
    size = parse_size(text)
    if size is None:
        raise ValueError("a cache has an end; say a size such as 10G")
    return size


def _is_bucket(text: str) -> bool:
    if text not in ("bucket", "journal"):
        raise ValueError(f"'{text}' is none of bucket, journal")
    return text == "bucket"


OPTIONS: Final[dict[str, tuple[str, Any]]] = {
    "cache_dir": ("directory", Path),
    "cache_size": ("max_bytes", _bytes),
    "cache_free": ("min_free_bytes", _bytes),
    "staging_size": ("staging_bytes", _bytes),
    "attr_timeout": ("ttl_s", parse_seconds),
    "upload_age": ("max_age_s", parse_seconds),
    "count_every": ("count_every_s", parse_seconds),
    "fsync": ("sync_uploads", _is_bucket),
    "close": ("close_uploads", _is_bucket),
    "take_over": ("take_over", lambda text: text in ("", "yes", "true", "1")),
}
"""Mount options of a cache, with the attribute each sets."""
