"""How a large file is cut into the parts of an upload.

Pure. The cuts depend on offsets alone, never on the file's size, so appending leaves all parts but the last as they
are. 10,000 parts reach beyond S3's 5 TiB (Amazon S3 User Guide, "Multipart upload limits").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

MIB: Final = 1 << 20
_STEPS: Final = ((1000, 8 * MIB), (1000, 32 * MIB), (2000, 128 * MIB), (6000, 1024 * MIB))
"""(parts, bytes of each): 8 GiB, then 31 GiB, 250 GiB and 5.9 TiB more."""


@attrs.frozen
class Part:
    """One part. Attributes: number: from 1. start, end: bytes of the file, half-open."""

    number: int
    start: int
    end: int


def parts_of(size: int) -> Iterator[Part]:
    """Yield the parts of a file of ``size`` bytes, in order; an empty file has one, empty."""
    number, start = 1, 0
    for count, length in _STEPS:
        for _ in range(count):
            yield Part(number, start, min(size, start + length))
            number, start = number + 1, start + length
            if start >= size:
                return
