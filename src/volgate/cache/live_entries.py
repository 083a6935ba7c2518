"""Where in the journal the last entry of each key lies. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from volgate.cache.segment import Segment
from volgate.core.journal_codec import RawEntry


@attrs.frozen
class Place:
    """Where an entry lies: length bytes from an offset of a segment on; the other two as in RawEntry."""

    segment: Segment
    offset: int
    length: int
    head_length: int
    crc: int


class LiveEntries:
    """The index of the journal; ``segment.keys`` is kept in step with it.

    Attributes:
        places: key to the place of its last entry.
        bytes_: that these entries take.
    """

    def __init__(self) -> None:
        self.places: Final[dict[str, Place]] = {}
        self.bytes_ = 0

    def apply(self, segment: Segment, offset: int, entries: Iterable[RawEntry]) -> None:
        """Take in the entries of a record, the first of which lies at an offset."""
        for entry in entries:
            length = len(entry.body)
            self._discard(entry.key)
            if entry.pending:
                self.places[entry.key] = Place(segment, offset, length, entry.head_length, entry.crc)
                segment.keys[entry.key] = None
                self.bytes_ += length
            offset += length

    def forget(self, segment: Segment) -> None:
        """Discard what lies in a segment."""
        for key in tuple(segment.keys):
            self._discard(key)

    def _discard(self, key: str) -> None:
        place = self.places.pop(key, None)
        if place is not None:
            del place.segment.keys[key]
            self.bytes_ -= place.length
