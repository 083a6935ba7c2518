"""The checksum of what moves between places: CRC-64/NVME, as S3 has it (its reference: "Checking object integrity")."""

from __future__ import annotations


def crc64nvme(data: bytes, previous: int = 0) -> int:
    """Return the checksum of what ``previous`` is that of, and data behind it."""
    from awscrt import checksums  # at its first use: not every process moves files

    found: int = checksums.crc64nvme(data, previous)
    return found


def to_text(checksum: int) -> str:
    """Return a checksum as DTOs have it."""
    return f"crc64nvme:{checksum:016x}"
