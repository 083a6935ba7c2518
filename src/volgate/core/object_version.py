"""Which content of an object is meant."""

from __future__ import annotations

import attrs


@attrs.frozen
class ObjectVersion:
    """One content of an object: whoever has the same three has the same bytes.

    Attributes:
        key: relative to the volume.
        etag: as the store gave it, without quotes.
        size: in bytes.
    """

    key: str
    etag: str
    size: int
